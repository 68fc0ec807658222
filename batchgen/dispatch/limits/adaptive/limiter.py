"""Learns how fast the server lets the job go, and notices outages: see `AdaptiveLimiter`."""

from __future__ import annotations

import asyncio
from typing import Literal

from batchgen.dispatch.limits.adaptive.circuit import Circuit, Hold
from batchgen.dispatch.limits.adaptive.cubic import BETA, CubicCurve
from batchgen.dispatch.limits.adaptive.meter import SLOWEST, STORE, Meter
from batchgen.dispatch.limits.adaptive.noise import NoiseFilter
from batchgen.dispatch.limits.window import Clock

State = Literal["ramping", "unlimited", "limited", "tripped"]

# FIRST_RATE is a job's first rate, in requests a second. While nothing is throttled, the rate
# doubles in DOUBLE_IN_ANSWERS times the time of an answer, but within the two bounds (seconds). So
# a throttle arrives before much more is sent.
FIRST_RATE = 100.0
DOUBLE_IN_ANSWERS = 5
DOUBLE_AT_LEAST = 0.02
DOUBLE_AT_MOST = 0.5

# Requests a second at which the rate no longer holds anything back.
UNLIMITED = 10_000.0

# Seconds by which requests may be early: a timer for each of a thousand requests a second would
# cost too much.
EARLY = 0.005

# Seconds without growth after a throttle that is not believed yet, or while little is left of a
# limit.
STEADY = 0.5

# Fewer requests than this measure no rate.
FEW = 10

# The largest cut: to this share of the rate.
DEEPEST_CUT = 0.2

# The share that is used of a limit which headers name; and the share by which such a limit may
# differ and still be the same.
NAMED_SHARE = 0.98
SAME_NAMED = 0.1


class AdaptiveLimiter:
    """Learns how fast the server lets the job go. One state machine for the whole job:

    ramping    from a modest rate, doubled quickly
    unlimited  nothing holds the job back but its own limits
    limited    throttled: just below the rate that got through, then carefully beyond (see cubic)
    tripped    an outage opened the circuit: one probe per interval until something answers

    The server is assumed to use a token bucket one second deep. With `explicit`, the job's own
    limits say how fast it may go, and it starts unlimited. Rates are requests per second unless a
    name says otherwise.
    """

    def __init__(self, clock: Clock, *, explicit: bool = False) -> None:
        now = clock()
        self._clock = clock
        self._mode: State = "unlimited" if explicit else "ramping"
        self._meter, self._curve, self._noise = Meter(now), CubicCurve(), NoiseFilter()
        self._circuit = Circuit()
        self.last_success = float("-inf")
        # Since when nothing has got through (None while all is well), and why.
        self.trouble_since: float | None = None
        self.trouble = ""
        # The rate that is kept, when the next request is due, when the rate last grew, and how fast
        # it doubles.
        self._rate = FIRST_RATE
        self._next = 0.0
        self._grown_at = now
        self._doubling = DOUBLE_AT_MOST
        # No request before this time: the server's Retry-After.
        self._not_before = 0.0
        # The rate does not grow before this time.
        self._steady_until = float("-inf")
        # The rate that headers name, the rate that throttles name, and the highest rate: a named
        # one that a throttle confirmed.
        self._named = self._named_by_throttle = 0.0
        self._ceiling = float("inf")
        # When the rate was last cut, and what got through then.
        self._cut_at = float("-inf")
        self._measured = 0.0

    @property
    def state(self) -> State:
        """The state of the machine above."""
        return "tripped" if self._circuit.is_open else self._mode

    @property
    def answered(self) -> bool:
        """Whether the server has ever answered."""
        return self._circuit.answered

    @property
    def hold(self) -> Hold:
        """What holds the next request back."""
        return Hold(self._circuit.probing, self._not_before, self._circuit.probe_at, self._next)

    @property
    def learned_per_minute(self) -> float | None:
        """The requests a minute that got through as it throttled; None while it does not."""
        known = self._measured and self.state == "limited" and self._noise.is_usual
        return self._meter.per_minute(self._measured) if known else None

    async def acquire(self) -> bool:
        """Wait until one more request may be sent. Returns whether it is the probe of an outage."""
        while True:
            now = self._clock()
            wait_until = max(self._not_before, self._circuit.probe_at)
            if self._circuit.probing:
                await self._pause(None)
            elif now < wait_until:
                await self._pause(wait_until - now)
                # What the server would have let through meanwhile is unknown.
                if self._clock() - now > STORE / 2:
                    self._meter.restart(self._clock())
            elif self._is_pacing and now < self._next - EARLY:
                await self._pause(self._next - now)
            else:
                break
        if self._is_pacing:
            self._grow(now)
            interval = 1 / self._rate
            self._next = max(self._next, now - max(interval, EARLY)) + interval
        self._meter.record_sent(now)
        self._circuit.probing = self._circuit.is_open
        return self._circuit.probing

    @property
    def _is_pacing(self) -> bool:
        return self.state in ("ramping", "limited")

    async def _pause(self, seconds: float | None) -> None:
        """Sleep, or less when the circuit changes meanwhile."""
        self._circuit.changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._circuit.changed.wait()
        except TimeoutError:
            return

    def record_response(self) -> None:
        """Note a reply that is not an error of the server itself: there is no outage."""
        if self._circuit.record_response():
            self._not_before = 0.0

    def record_success(self, sent_at: float) -> None:
        """Note that a request which was sent at `sent_at` was answered."""
        self.last_success = self._clock()
        if self.state == "ramping":
            doubling = DOUBLE_IN_ANSWERS * (self.last_success - sent_at)
            self._doubling = min(self._doubling, max(doubling, DOUBLE_AT_LEAST))
        self._meter.record_answer(self.last_success)
        self._noise.record_success()
        self.clear_trouble()

    def record_trouble(self, message: str) -> None:
        """Note that a request did not get through, for a reason that may pass."""
        if self.trouble_since is None:
            self.trouble_since = self._clock()
        self.trouble = message

    def clear_trouble(self) -> None:
        """Note that a request got through: it was answered, or refused for its own fault."""
        self.trouble_since = None

    def shift_clock(self, seconds: float) -> None:
        """Leave out the `seconds` for which the process was stopped."""
        self.last_success += seconds
        if self.trouble_since is not None:
            self.trouble_since += seconds

    def release_probe(self) -> None:
        """Note that the probe was not sent after all: the next request may be one."""
        self._circuit.release_probe()

    def record_failure(self, retry_after: float | None, *, probe: bool, answered: bool) -> None:
        """Note that a request failed as in an outage: no connection, no answer in time, or
        (`answered`) the server's own error, which may name a `retry_after` in seconds.
        """
        self._circuit.record_failure(self._clock(), retry_after, probe=probe, answered=answered)

    def record_throttle(
        self, sent_at: float, retry_after: float | None, named_per_minute: float | None
    ) -> None:
        """Note that a request which was sent at `sent_at` was throttled. The reply may name a
        `retry_after` in seconds, and the limit in requests a minute.
        """
        now, limited = self._clock(), self.state == "limited"
        self._meter.record_throttle(sent_at)
        if named_per_minute:
            self._named_by_throttle = named_per_minute / 60 * NAMED_SHARE
        self._noise.record_throttle()
        believed = self._noise.is_believed(self._rate, limited=limited)
        if believed or self._noise.is_usual:
            self._not_before = max(self._not_before, now + (retry_after or 0.0))
        # The last cut was made for all requests that were sent before it.
        if sent_at < self._cut_at:
            return
        if believed:
            self._cut(now, sent_at)
        else:
            self._steady_until = now + STEADY

    def set_named_limit(self, per_minute: float, *, explicit: bool) -> None:
        """Note that replies name a limit of `per_minute` requests. The rate keeps to it, and later
        probes whether more gets through. If the job has an `explicit` limit, only a throttle lowers
        the rate.
        """
        rate = per_minute / 60 * NAMED_SHARE
        if abs(rate - self._named) <= SAME_NAMED * rate:
            return
        self._named = rate
        if self._ceiling < float("inf"):
            self._ceiling = rate
        elif explicit:
            return
        if self.state != "tripped":
            self._mode = "limited"
            self._curve.start(rate, rate)
            self._noise.best = self._rate = rate
            self._measured = 0.0
            self._grown_at = self._clock()

    def hold_growth(self) -> None:
        """Keep the rate from growing for now: replies say that little is left of a limit."""
        self._steady_until = self._clock() + STEADY

    def _cut(self, now: float, sent_at: float) -> None:
        """Slow down to what got through, unless the throttles prove to be noise."""
        limited = self.state == "limited"
        rate = self._rate if limited else min(self._rate, self._meter.offered_rate(now))
        restored = self._noise.restored_rate(now, self._meter, rate, limited=limited)
        if restored is not None:
            self._rate = restored
            self._curve.start_beyond(restored)
            return
        w_min, w_max = self._target(now, sent_at, rate, limited=limited)
        w_min = max(w_min, rate * DEEPEST_CUT, SLOWEST)
        self._curve.start(w_min, max(w_max, w_min))
        self._rate = max(min(w_min, self._ceiling), SLOWEST)
        self._noise.note_cut(self._meter.sent)
        self._cut_at = self._grown_at = now
        self._next = max(self._next, now + 1 / self._rate)
        self._mode = "limited"

    def _target(
        self, now: float, sent_at: float, rate: float, *, limited: bool
    ) -> tuple[float, float]:
        """Where the curve starts after a cut, and its plateau: (w_min, w_max).

        now: seconds on the run's clock
        sent_at: when the throttled request was sent
        rate: the rate until now
        limited: whether the job was limited already
        """
        # Requests that were sent after the throttled one have no reply yet.
        unknown = rate * (now - sent_at)
        passed = self._meter.passed(unknown)
        seconds = max(sent_at - self._meter.since, 0.01)
        w_min, w_max = self._curve.w_min, self._curve.w_max
        if limited and passed < FEW and seconds * w_min < FEW:
            # It is too early to measure a rate, except an upper bound.
            at_most = (passed + 1) / seconds
            w_min = min(rate * (1 if passed >= 1 else 0.7), at_most) * BETA
            return w_min, min(w_max, 2 * at_most) if passed >= 1 else w_max * 0.8
        throughput = self._meter.throughput(sent_at, unknown, passed / seconds if limited else 0.0)
        too_much = min(max(rate, throughput), 2 * throughput)
        if limited and w_min >= 0.7 * throughput:
            # The limit is close: aim between what got through and what was too much.
            too_much = (throughput + too_much) / 2
        self._measured = throughput
        # A named limit well below what got through is another one: a day's, or a second's.
        named = self._named_by_throttle
        self._ceiling = named if named > 0.8 * throughput else float("inf")
        self._meter.restart(now)
        self._noise.note_measured(now, self._meter, rate, throughput)
        return min(throughput, rate) * BETA, too_much

    def _grow(self, now: float) -> None:
        """Let the rate grow: while ramping it doubles, while limited it follows the curve."""
        if now < self._steady_until:
            self._grown_at = now
            return
        passed = min(now - self._grown_at, max(1.0, 2 / self._rate))
        self._grown_at = now
        if self.state == "ramping":
            self._rate *= 2 ** (passed / self._doubling)
        else:
            self._rate = self._curve.grow(passed, self._rate)
        self._rate = min(self._rate, self._ceiling)
        if self._rate > UNLIMITED:
            self._mode = "unlimited"
            self._rate = UNLIMITED
