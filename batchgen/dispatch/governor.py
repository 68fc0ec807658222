"""How fast the server lets the job go, and whether it is there at all: learned from its answers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from batchgen.dispatch.limits import Clock

# Consecutive outage-like failures that close the circuit, and the probes' intervals in seconds.
OUTAGE = 8
FIRST_PROBE = 1.0
LAST_PROBE = 30.0

# A rate a second is known from so many answers, well or at all.
ENOUGH = 20
FEWEST = 3

# However often it is throttled, a job asks once a minute.
SLOWEST = 1 / 60

# How long the rate takes to grow back after it was halved: seconds, or requests where they are few; and a rate a second
# that is no hindrance.
BACK_SECONDS = 10.0
BACK_REQUESTS = 20.0
UNHINDERED = 300.0


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
        self._before: Literal["open", "slowed"] = "open"
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
        self._rate = 0.0
        self._low = 0.0
        self._peak = 0.0
        self._age = 0.0
        self._grown_at = 0.0
        self._cut_at = float("-inf")
        self._ceiling = float("inf")
        self._next = 0.0
        self._recent: deque[float] = deque(maxlen=512)
        self._sent: deque[float] = deque(maxlen=512)

    async def gate(self) -> bool:
        """Wait until one more request may be sent; True says that it is the probe of an outage."""
        while True:
            now = self._clock()
            if self._probing:
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
        self._sent.append(now)
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

    def succeeded(self) -> None:
        """A request was answered."""
        self.last_success = self._clock()
        self._recent.append(self.last_success)
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
        self._not_before = max(self._not_before, now + (wait or 0.0))
        if ceiling:
            self._ceiling = ceiling / 60 * 0.98
        if sent_at < self._cut_at:
            return
        reached = self._reached(now)
        if reached is None:
            # Too early to tell what goes through: half of what was asked, unless the reply names a rate.
            self._peak = 0.0 if self._ceiling == float("inf") else self._ceiling
            self._low = (self._rate if self.state == "slowed" else self._peak or self._asked(now)) / 2
        else:
            self._peak = min(self._rate, reached * 1.25) if self.state == "slowed" else reached
            self._low = self._peak / 2
        self._low = max(self._low, SLOWEST)
        self._rate = max(min(self._low, self._ceiling), SLOWEST)
        self._age = 0.0
        self._cut_at = self._grown_at = now
        self.state = "slowed"

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
        """Requests a second of late."""
        return sum(at > now - 1 for at in self._sent) / min(1.0, max(now - self._began, 0.25))

    def _reached(self, now: float) -> float | None:
        """Answers a second of late, over the shortest time that shows enough of them; None where there are too few."""
        for span in (1, 2, 4, 8, 16, 32, 64):
            count = sum(at > now - span for at in self._recent)
            if count >= ENOUGH:
                break
        return count / min(span, max(now - self._began, 0.25)) if count >= FEWEST else None

    def _grow(self, now: float) -> None:
        """A cubic curve: quickly back to just below the rate that was throttled, long about there, then ever faster beyond.
        Where no such rate is known, double. Either in seconds or in requests, whichever is longer."""
        self._age += min(now - self._grown_at, max(1.0, 2 / self._rate))
        self._grown_at = now
        if self._peak:
            back = max(BACK_SECONDS, BACK_REQUESTS / self._peak)
            self._rate = self._peak * (1 + 0.5 * (self._age / back - 1) ** 3)
        else:
            self._rate = self._low * 2 ** (self._age / max(2.0, 4 / self._low))
        self._rate = min(self._rate, self._ceiling)
        if self._rate > 3 * (self._peak or UNHINDERED):
            self.state = "open"
