"""How fast the server lets the job go, and whether it is there at all: learned from its answers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from batchgen.dispatch.limits.window import Clock

State = Literal["starting", "open", "slowed", "closed"]

# Consecutive outage-like failures that close the circuit, and the probes' intervals in seconds.
OUTAGE = 8
FIRST_PROBE = 1.0
LAST_PROBE = 30.0

# A job begins with so many requests a second. While nothing is refused the rate doubles in so many times as an answer
# takes, and in seconds at the least and at the most: slowly enough for a refusal to arrive before much more is sent.
FIRST_RATE = 100.0
DOUBLE_IN_ANSWERS = 5
DOUBLE_AT_LEAST = 0.02
DOUBLE_AT_MOST = 0.5

# Requests a second that are no hindrance any more.
UNHINDERED = 10_000.0

# However often it is throttled, a job asks once a minute.
SLOWEST = 1 / 60

# Seconds by which calls may be early: a timer for each of a thousand calls a second would cost more than the calls.
EARLY = 0.005

# A throttle is believed at once where a limit is known, else when there were so many beyond the share of calls that may be
# throttled for no reason: the usual share, and how many times the share that was found to mean nothing.
ENOUGH_THROTTLES = 4
HARMLESS = 0.01
HARMLESS_TIMES = 2

# After so many cuts in a row that changed nothing, and at most so large a share of throttles, they mean nothing.
VAIN_CUTS = 3
VAIN_SECONDS = 3.0
VAIN_SHARE = 0.15

# Seconds without growth after a throttle that is not believed yet, or while little is left of a limit.
STEADY = 0.5

# What got through is remembered so finely (seconds), so many times; a rate is known from so many calls.
SAMPLE = 0.25
SAMPLES = 128
FEW = 10

# Seconds of its limit that a server is taken to keep in store.
STORE = 1.0

# Of a limit that headers name this share is used; one that differs by no more is the same.
NAMED_SHARE = 0.98
SAME_NAMED = 0.1

# After a throttle the rate keeps below what got through, for so many seconds, or requests where they are few.
BELOW = 0.93
DEEPEST = 0.2
HOLD_SECONDS = 10.0
HOLD_REQUESTS = 150.0
HOLD_AT_MOST = 20.0


class AdaptiveLimiter:
    """Learns how fast the server lets the job go. One state machine, for the whole job:

    starting  from a modest rate, doubled quickly
    open      nothing holds the job back but its own limits
    slowed    throttled: just below the rate that got through, then carefully beyond
    closed    an outage: one probe per interval until something answers

    A server is taken to let through what flows in, and what one second gathers at the most. With `told`, the job's own
    limits say how fast it may go, and it starts open.
    """

    def __init__(self, clock: Clock, *, told: bool = False) -> None:
        self._clock = clock
        self._began = clock()
        self.state: State = "open" if told else "starting"
        self._before: State = self.state
        self.answered = False
        self.last_success = float("-inf")
        # Since when, and why, nothing has got through; None while all is well.
        self.trouble_since: float | None = None
        self.trouble = ""
        self._failures = 0
        self._probing = False
        self._interval = FIRST_PROBE
        self._not_before = 0.0
        self._opened = asyncio.Event()
        # The rate a second that is held, when the next request is due, and when the rate last grew.
        self._rate = FIRST_RATE
        self._next = 0.0
        self._grown_at = self._began
        self._doubling = DOUBLE_AT_MOST
        # The curve of a slowed job: from `low` to `peak`, so old (seconds).
        self._low = self._peak = self._age = 0.0
        # The rates that replies and throttles name, and the one that a throttle confirmed.
        self._named = self._said = 0.0
        self._ceiling = float("inf")
        # All requests; (when, how many had got through by then), oldest first.
        self._sent = self._refused = 0
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)], maxlen=SAMPLES)
        self._sample_at = self._began + SAMPLE
        # Since the rate was last cut: when, requests before, and how many of those since were throttled.
        self._cut_at = self._since = float("-inf")
        self._sent_before = self._sent_at_cut = 0
        self._refused_since = 0
        # Throttles in excess of those that may mean nothing, and the share that may.
        self._doubt = 0.0
        self._harmless = HARMLESS
        self._through = 0.0
        # The rate does not grow until then.
        self._steady_until = float("-inf")
        # Cuts in a row that changed nothing: how many, what got through before them, requests and throttles before.
        self._vain = 0
        self._best = self._fast = 0.0
        self._vain_from = (0.0, 0, 0)

    async def gate(self) -> bool:
        """Wait until one more request may be sent; True says that it is the probe of an outage."""
        while True:
            now = self._clock()
            if self._probing:
                await self._pause(None)
            elif now < self._not_before:
                await self._pause(self._not_before - now)
                # What the server would have let through meanwhile nobody knows.
                if self._clock() - now > STORE / 2:
                    self._measure_from(self._clock())
            elif self.state not in ("open", "closed") and now < self._next - EARLY:
                await self._pause(self._next - now)
            else:
                break
        if self.state not in ("open", "closed"):
            self._grow(now)
            apart = 1 / self._rate
            self._next = max(self._next, now - max(apart, EARLY)) + apart
        self._sent += 1
        if now >= self._sample_at:
            self._samples.append((now, self._sent - self._refused))
            self._sample_at = now + SAMPLE
        self._probing = self.state == "closed"
        return self._probing

    async def _pause(self, seconds: float | None) -> None:
        """Sleep, or less when the circuit opens meanwhile."""
        self._opened.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._opened.wait()
        except TimeoutError:
            return

    def spoke(self) -> None:
        """The server answered, and not with an error of its own: there is no outage."""
        self.answered = True
        self._failures = 0
        if self.state == "closed":
            self.state = self._before
            self._interval = FIRST_PROBE
            self._not_before = 0.0
            self._probing = False
            self._opened.set()

    def succeeded(self, sent_at: float) -> None:
        """A request sent at `sent_at` was answered."""
        self.last_success = self._clock()
        if self.state == "starting":
            double = DOUBLE_IN_ANSWERS * (self.last_success - sent_at)
            self._doubling = min(self._doubling, max(double, DOUBLE_AT_LEAST))
        if self._doubt:
            self._doubt = max(0.0, self._doubt - self._harmless)
        self.settled()

    def settled(self) -> None:
        """A request got through, to an answer or to a refusal of its own."""
        self.trouble_since = None

    def troubled(self, message: str) -> None:
        """A request did not get through, for a reason that may pass."""
        if self.trouble_since is None:
            self.trouble_since = self._clock()
        self.trouble = message

    def unasked(self) -> None:
        """The probe was never sent: the next request may be one."""
        self._probing = False
        self._opened.set()

    def slept(self, seconds: float) -> None:
        """The process was stopped for so long: nobody can be blamed for that time."""
        self.last_success += seconds
        if self.trouble_since is not None:
            self.trouble_since += seconds

    def throttled(self, sent_at: float, wait: float | None, ceiling: float | None) -> None:
        """A request sent at `sent_at` was throttled; `wait` is the Retry-After in seconds, `ceiling` the requests a
        minute that the reply's headers name."""
        now = self._clock()
        self._refused += 1
        if ceiling:
            self._said = ceiling / 60 * NAMED_SHARE
        known = self._harmless <= HARMLESS
        self._doubt += 1
        believed = self._doubt >= self._patience()
        if believed or known:
            self._not_before = max(self._not_before, now + (wait or 0.0))
        self._refused_since += sent_at >= self._since
        if sent_at < self._cut_at:
            return
        if believed:
            self._cut(now, sent_at)
        else:
            self._steady_until = now + STEADY

    def named(self, per_minute: float, *, explicit: bool) -> None:
        """Replies name a limit of so many requests a minute. It is kept to from then on, and tried later whether
        it is true; unless the job has an `explicit` limit, which only a throttle lowers."""
        rate = per_minute / 60 * NAMED_SHARE
        if abs(rate - self._named) <= SAME_NAMED * rate:
            return
        self._named = rate
        if self._ceiling < float("inf"):
            self._ceiling = rate
        elif explicit:
            return
        if self.state != "closed":
            self.state = "slowed"
            self._low = self._peak = self._best = self._rate = rate
            self._age = self._through = 0.0
            self._grown_at = self._clock()

    def little_left(self) -> None:
        """Replies say that little is left of a limit: the rate does not grow for now."""
        self._steady_until = self._clock() + STEADY

    @property
    def hinders(self) -> bool:
        """Whether the next request waits for the server's rate limit."""
        return self.state == "slowed" and self._clock() < max(self._next - EARLY, self._not_before)

    @property
    def learned(self) -> float | None:
        """The requests a minute that got through when the server last throttled; None when it does not hold the job back."""
        known = self._through and self.state == "slowed" and self._harmless <= HARMLESS
        return self._through * 60 if known else None

    def _patience(self) -> int:
        """How many throttles are believed: one where it is expected, two below a rate that got through (it may be another
        job that asked too much), more where nothing is known."""
        if self._harmless > HARMLESS:
            return 2 * ENOUGH_THROTTLES
        if self.state != "slowed":
            return ENOUGH_THROTTLES
        return 1 if self._rate >= self._best * 0.98 else 2

    def _cut(self, now: float, sent_at: float) -> None:
        """Slow down to what got through."""
        slowed = self.state == "slowed"
        rate = self._rate if slowed else min(self._rate, self._asked(now))
        if self._means_nothing(rate):
            return
        # Of those sent after this one nobody knows yet.
        unknown = rate * (now - sent_at)
        through = max(0.0, self._sent - self._sent_before - self._refused_since - unknown)
        seconds = max(sent_at - self._since, 0.01)
        if slowed and through < FEW and seconds * self._low < FEW:
            # Too early to tell, but for what could have got through and did not.
            self._low = min(rate * (1 if through >= 1 else 0.7), (through + 1) / seconds) * BELOW
            self._peak = (
                min(self._peak, 2 * (through + 1) / seconds) if through >= 1 else self._peak * 0.8
            )
        else:
            got = self._got(sent_at, unknown, through / seconds if slowed else 0.0)
            close = slowed and self._low >= 0.7 * got
            above = min(max(rate, got), 2 * got)
            self._peak = (got + above) / 2 if close else above
            self._low = min(got, rate) * BELOW
            self._through = got
            # A limit that is well below what got through is another one: a day's, or a second's.
            self._ceiling = self._said if self._said > 0.8 * got else float("inf")
            self._measure_from(now)
            if not self._vain:
                self._best, self._fast = got, max(rate, 0.9 * self._fast)
                self._vain_from = (now, self._sent, self._refused)
        self._low = max(self._low, rate * DEEPEST, SLOWEST)
        self._peak = max(self._peak, self._low)
        self._rate = max(min(self._low, self._ceiling), SLOWEST)
        self._age = self._doubt = 0.0
        self._harmless = HARMLESS
        self._cut_at = self._grown_at = now
        self._sent_at_cut = self._sent
        self._next = max(self._next, now + 1 / self._rate)
        self.state = "slowed"

    def _measure_from(self, now: float) -> None:
        self._since, self._sent_before, self._refused_since = now, self._sent, 0

    def _means_nothing(self, rate: float) -> bool:
        """Whether throttles go on as before at a rate below one that got through: then they say nothing of a rate, and the
        job goes on as fast as before the first of them."""
        calm = self._sent - self._sent_at_cut > 3 / HARMLESS
        if self.state != "slowed" or rate >= self._best * 0.98 or calm:
            self._vain = 0
            return False
        self._vain += 1
        at, sent, refused = self._vain_from
        sent, refused = self._sent - sent, self._refused - refused
        if (
            self._vain < VAIN_CUTS
            or self._clock() - at < VAIN_SECONDS
            or refused > VAIN_SHARE * sent
        ):
            return False
        self._harmless = max(HARMLESS, HARMLESS_TIMES * refused / sent)
        self._low = self._peak = self._rate = self._fast
        self._age = self._hold()
        self._vain, self._doubt = 0, 0.0
        return True

    def failed(self, wait: float | None, *, probe: bool, answered: bool) -> None:
        """An outage-like failure: no connection, no answer in time, or (`answered`) the server's own error, which may name
        a Retry-After of `wait` seconds."""
        now = self._clock()
        self.answered = self.answered or answered
        self._failures += 1
        if self.state != "closed":
            # A host that has not answered yet is more likely misspelt than down: ask gently from the start.
            if self._failures < OUTAGE and self.answered:
                return
            self._before = self.state
            self.state = "closed"
        elif probe:
            self._probing = False
            self._interval = min(self._interval * 2, LAST_PROBE)
            self._opened.set()
        else:
            return
        self._not_before = max(self._not_before, now + max(self._interval, wait or 0.0))

    def _asked(self, now: float) -> float:
        """Requests a second of late, throttled ones included."""
        at, through = next(
            (each for each in reversed(self._samples) if each[0] <= now - 1), self._samples[0]
        )
        return max((self._sent - through) / max(now - at, SAMPLE), SLOWEST)

    def _got(self, at: float, unknown: float, got: float) -> float:
        """Requests a second that got through until `at`: `got`, or what can be said from any time on, less what the server
        may have had in store then."""
        through = self._sent - self._refused - unknown
        known = (each for each in self._samples if self._since <= each[0] <= at)
        return max((got, *((through - before) / (at - then + STORE) for then, before in known)))

    def _hold(self) -> float:
        return min(max(HOLD_SECONDS, HOLD_REQUESTS / self._peak), HOLD_AT_MOST)

    def _grow(self, now: float) -> None:
        """A starting job doubles. A slowed one comes up to what got through, long about there, then ever faster beyond."""
        if now < self._steady_until:
            self._grown_at = now
            return
        passed = min(now - self._grown_at, max(1.0, 2 / self._rate))
        self._grown_at = now
        if self.state == "starting":
            self._rate *= 2 ** (passed / self._doubling)
        else:
            self._age += passed
            hold, before = self._hold(), self._rate
            if self._age < hold:
                self._rate = self._peak - (self._peak - self._low) * (1 - self._age / hold) ** 3
            else:
                self._rate = self._peak * (1 + 0.01 * (2 ** (10 * (self._age / hold - 1)) - 1))
            self._rate = min(self._rate, 2 * before)
        self._rate = min(self._rate, self._ceiling)
        if self._rate > UNHINDERED:
            self.state = "open"
            self._rate = UNHINDERED
