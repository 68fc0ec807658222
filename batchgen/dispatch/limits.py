"""Admission: requests, tokens, pictures and money, first in first out; and the governor that learns what lies beneath.

The caller holds one turn while it is admitted, so nothing overtakes and large requests do not starve. Buckets are
about a quarter of a second deep and refill a little below the limit, so that no window of 60 s passes it, the first included.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal

from aiolimiter import AsyncLimiter

from batchgen.errors import LimitError

Clock = Callable[[], float]

# Consecutive outage-like failures that close the circuit, and the probes' intervals in seconds.
OUTAGE = 8
FIRST_PROBE = 1.0
LAST_PROBE = 30.0

# Retries are paid from this: so many a first attempt, so many a second, and what there is to begin with.
RETRIES_PER_REQUEST = 0.2
RETRIES_PER_SECOND = 1.0
RETRIES_AT_FIRST = 10.0


class Bucket:
    """A ceiling of `limit` units in any 60 s window."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._depth = max(1.0, limit / 240)
        # A full bucket and a minute's refill together stay within the limit. One unit arrives with the window's edge.
        rate = (limit - self._depth + 1) / 60 if limit > self._depth else limit / 60
        self._bucket = AsyncLimiter(self._depth, self._depth / rate)

    async def take(self, amount: float) -> None:
        """Wait for `amount` units; more than the bucket's depth are taken in chunks."""
        while amount > 0:
            chunk = min(amount, self._depth)
            await self._bucket.acquire(chunk)
            amount -= chunk


class TokenBucket(Bucket):
    """Tokens a minute, charged as the server does: the estimated input plus the answer's cap, up front.

    The estimate learns: tokens per byte of input from the usage that comes back, and the mean answer for requests without
    a cap. What an answer used beyond its estimate is charged to the next request.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self._per_byte = 0.25
        self._mean_answer = 256.0
        self._debt = 0.0

    def estimate(self, input_bytes: int, answer_bound: int | None) -> float:
        """The tokens that a request will be charged."""
        return input_bytes * self._per_byte + (self._mean_answer if answer_bound is None else answer_bound)

    async def take(self, amount: float) -> None:
        """Wait for `amount` tokens and for what earlier answers used beyond their estimates."""
        debt, self._debt = self._debt, 0.0
        await super().take(amount + debt)

    def settle(self, charged: float, input_bytes: int, input_tokens: int | None, output_tokens: int | None) -> None:
        """Learn from an answer's usage."""
        if input_tokens is not None and input_bytes:
            self._per_byte += 0.1 * (input_tokens / input_bytes - self._per_byte)
        if output_tokens is not None:
            self._mean_answer += 0.1 * (output_tokens - self._mean_answer)
        self._debt += max(0.0, (input_tokens or 0) + (output_tokens or 0) - charged)


class Purse:
    """Money in nano-dollars: what is spent plus what is in flight at its worst never passes `cap`."""

    def __init__(self, cap: int, *, name: str) -> None:
        self._left = cap
        self._reserved = 0
        self._name = name
        self._settled = asyncio.Event()

    async def reserve(self, amount: int) -> None:
        """Set `amount` aside, waiting for calls in flight to settle. Raises LimitError when there will never be enough."""
        while amount > self._left - self._reserved:
            if not self._reserved:
                raise LimitError(
                    f"{self._name} is reached: the next call may cost up to ${amount / 1e9:.6f} and"
                    f" ${self._left / 1e9:.6f} is left; raise it and run again"
                )
            self._settled.clear()
            await self._settled.wait()
        self._reserved += amount

    def settle(self, reserved: int, cost: int | None) -> None:
        """A call ended: `cost` is what it took; None (unknown) keeps all of `reserved` spent."""
        self._reserved -= reserved
        self._left -= reserved if cost is None else cost
        self._settled.set()


class RetryBudget:
    """Retries are paid from a rate. When it is empty they wait; no row fails for it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._level = RETRIES_AT_FIRST
        self._at = clock()

    def first_attempt(self) -> None:
        """A row was sent for the first time."""
        self._level += RETRIES_PER_REQUEST

    async def take(self) -> None:
        """Wait until one retry is paid for."""
        self._refill()
        while self._level < 1:
            await asyncio.sleep((1 - self._level) / RETRIES_PER_SECOND)
            self._refill()
        self._level -= 1

    def _refill(self) -> None:
        now = self._clock()
        self._level += (now - self._at) * RETRIES_PER_SECOND
        self._at = now


class Governor:
    """Learns how fast the server lets the job go. One state machine, for the whole job:

    open     nothing holds the job back but its own limits
    slowed   throttled: requests are spaced; the rate was halved once for the throttle and grows while all is well
    closed   an outage: one probe per interval until something answers
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock()
        self.state: Literal["open", "slowed", "closed"] = "open"
        self.answered = False
        self.first_failure: float | None = None
        self.last_success = clock()
        self._failures = 0
        self._probing = False
        self._interval = FIRST_PROBE
        self._not_before = 0.0
        self._opened = asyncio.Event()
        self._rate = 0.0
        self._peak = 0.0
        self._grown_at = 0.0
        self._cut_at = float("-inf")
        self._ceiling = float("inf")
        self._next = 0.0
        self._recent: deque[float] = deque(maxlen=512)

    async def gate(self) -> bool:
        """Wait until one more request may be sent; True says that it is the probe of an outage."""
        while True:
            now = self._clock()
            if self.state == "closed" and self._probing:
                await self._pause(None)
            elif now < self._not_before:
                await self._pause(self._not_before - now)
            elif self.state == "slowed" and now < self._next:
                await self._pause(self._next - now)
            else:
                break
        if self.state == "slowed":
            self._grow(now)
            self._next = max(self._next, now - 1 / self._rate) + 1 / self._rate
        self._probing = self.state == "closed"
        if self._probing:
            self._not_before = now + self._interval
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
            self.state = "slowed" if self._rate else "open"
            self._interval = FIRST_PROBE
            self._not_before = 0.0
            self._probing = False
            self._opened.set()

    def succeeded(self) -> None:
        """A request was answered."""
        self.last_success = self._clock()
        self._recent.append(self.last_success)

    def throttled(self, sent_at: float, wait: float | None, ceiling: float | None) -> None:
        """A request sent at `sent_at` was throttled; `wait` is the Retry-After in seconds, `ceiling` the requests a
        minute that the reply's headers name."""
        now = self._clock()
        self._not_before = max(self._not_before, now + (wait or 0.0))
        if ceiling:
            self._ceiling = ceiling / 60 * 0.98
        if sent_at < self._cut_at:
            return
        reached = self._reached(now)
        self._peak = min(self._rate, reached * 1.25) if self.state == "slowed" else reached
        self._rate = min(self._peak / 2, self._ceiling)
        self._cut_at = self._grown_at = now
        self.state = "slowed"

    def failed(self, *, probe: bool, answered: bool) -> None:
        """An outage-like failure: no connection, no answer in time, or (`answered`) the server's own error."""
        now = self._clock()
        self.answered = self.answered or answered
        if self.first_failure is None:
            self.first_failure = now
        self._failures += 1
        if self.state != "closed":
            # A host that has not answered yet is more likely misspelt than down: ask gently from the start.
            if self._failures >= OUTAGE or not self.answered:
                self.state = "closed"
                self._not_before = now + self._interval
        elif probe:
            self._probing = False
            self._interval = min(self._interval * 2, LAST_PROBE)
            self._not_before = now + self._interval
            self._opened.set()

    def _reached(self, now: float) -> float:
        """Answers a second over the last ten seconds, at least one a minute."""
        recent = [at for at in self._recent if at > now - 10]
        span = min(10.0, max(now - self._began, 0.1))
        if len(recent) == self._recent.maxlen:
            span = max(now - recent[0], 0.001)
        return max(len(recent) / span, 1 / 60)

    def _grow(self, now: float) -> None:
        """Back to 95 % of the rate that was throttled within seconds, from there on by half a per cent a second."""
        elapsed = min(now - self._grown_at, 5.0)
        self._grown_at = now
        if self._rate < 0.95 * self._peak or self._rate < self._ceiling < float("inf"):
            self._rate += 0.1 * max(self._peak, self._rate) * elapsed
        else:
            self._rate += max(0.005 * self._rate, 1 / 600) * elapsed
        self._rate = min(self._rate, self._ceiling)
