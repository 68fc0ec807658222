"""The limiter of one limit: it spaces requests evenly, and keeps the limit in every 60 s.

It leases units for the next quarter of a second (limits.gcra) and hands them out by itself. The
state that it leases them from is in memory for a job alone (`LocalLimit`), and in a file for jobs
that share a limit (`limits.shared.SharedLimit`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from batchgen.dispatch.limits.gcra import (
    SLOT,
    SPAN,
    WINDOW,
    Corrections,
    GcraLimit,
    Lease,
    correct,
    lease,
    slot_end,
)

T = TypeVar("T")

# Seconds on a clock that never goes back.
Clock = Callable[[], float]

# Seconds: the longest pause before a busy file is tried again, and how long it may be busy before
# the limit is no longer shared.
MAX_PAUSE = 0.005
MAX_BUSY = 10.0

# Seconds: after a longer wait, the states are read again. Calls that left later than planned in the
# meantime stay in the window for longer.
REREAD = 1.0


class LocalLimit:
    """A limit of this job alone, in memory."""

    is_shared = False

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._state = GcraLimit(limit=limit)

    def update(self, work: Callable[[Sequence[GcraLimit], float], T]) -> T | None:
        """Run `work` on the limit's states (see gcra.lease) and the time.

        Returns None while another process has the states locked.
        """
        now = asyncio.get_running_loop().time()
        self._state.forget(now)
        return work([self._state], now)

    def stop_sharing(self, reason: str) -> None:
        """Go on alone, in memory."""


class Limiter:
    """Keeps one limit in every window of 60 s.

    Call `take` before a request and `sent` when it leaves; it is safe to wait for something else in
    between. A request larger than the limit goes alone, when the window is empty.

    Only one caller at a time may be between `take` and its `sent`. So no request overtakes another,
    and large requests do not starve.
    """

    def __init__(self, source: LocalLimit) -> None:
        self.limit = source.limit
        self._source = source
        state = GcraLimit(limit=source.limit)
        self._interval = state.emission_interval
        # Seconds by which units may go before their theoretical arrival time.
        self._tolerance = state.burst * state.emission_interval
        never = float("-inf")
        self._lease = Lease(units=0.0, tat=0.0, opens_at=0.0, take_by=never, send_by=never)
        # What is left of the lease, and the theoretical arrival time of its next unit.
        self._left = self._tat = 0.0
        self._corrections = Corrections()
        self._publishing: asyncio.TimerHandle | None = None
        # When the units that are being taken may be sent, on the loop's clock.
        self.opens_at = 0.0

    async def take(self, amount: float) -> None:
        """Wait until `amount` units may be sent."""
        loop = asyncio.get_running_loop()
        while True:
            if amount > self._left or loop.time() > self._lease.take_by:
                await self._renew(amount)
            self._left -= amount
            self._tat += amount * self._interval
            seconds = max(self._lease.opens_at, self._tat - self._tolerance) - loop.time()
            if seconds > 0:
                self.opens_at = loop.time() + seconds
                await self._wait(seconds, amount)
            # If this process was stopped meanwhile, the lease is too old: take units again.
            if loop.time() <= self._lease.send_by + WINDOW / 2:
                return

    def sent(self, amount: float, counted_until: float | None = None) -> float:
        """Note that `amount` units, which were taken, are sent now.

        Returns the time until which they may leave and are counted right. If a call leaves later
        (by less than 59 s), call this again with that time as `counted_until`: the units then count
        where the call leaves.
        """
        now = asyncio.get_running_loop().time()
        until = self._lease.send_by if counted_until is None else counted_until
        # For a shared limit, a count that is a little late costs less than its correction. In
        # memory a correction is cheap, and 99.8 % of the limit is used instead of 99.3 %.
        if now <= until and (self._source.is_shared or until - now < SLOT):
            return until
        end = slot_end(now)
        self._corrections.add(until, -amount)
        self._corrections.add(end, amount)
        self._publish_at(now + SPAN)
        return end

    def owe(self, amount: float) -> None:
        """Note that `amount` units were used besides those taken; they delay the next ones."""
        now = asyncio.get_running_loop().time()
        self._corrections.add(slot_end(now), amount, paced=amount)
        self._publish_at(now + SPAN)

    def give_back(self, amount: float) -> None:
        """Note that the `amount` units taken last will not be sent."""
        self._corrections.add(self._lease.send_by, -amount, paced=-amount)
        self._publish_at(asyncio.get_running_loop().time() + SPAN)

    def close(self) -> None:
        """Give back what is left, unless another process has the limit locked."""
        if self._publishing is not None:
            self._publishing.cancel()
        self._return_rest()
        if self._corrections:
            self._transact(_nothing)

    async def _renew(self, amount: float) -> None:
        """Lease at least `amount` units."""
        loop = asyncio.get_running_loop()
        self._return_rest()
        # Lease twice as many if the last lease was used up in time. Units that are left over only
        # make other jobs wait.
        wanted = self._lease.units * (2 if loop.time() <= self._lease.take_by else 1)
        give_up_at = loop.time() + MAX_BUSY
        while (
            leased := self._transact(lambda limits, now: lease(limits, amount, wanted, now))
        ) is None:
            if loop.time() > give_up_at:
                self._source.stop_sharing("another process keeps it locked")
            else:
                await asyncio.sleep(random.uniform(0, MAX_PAUSE))
        self._lease, self._left, self._tat = leased, leased.units, leased.tat
        if leased.units > amount:
            self._publish_at(leased.take_by)

    async def _wait(self, seconds: float, amount: float) -> None:
        """Wait until `amount` units of the lease may go; put them back when that is cancelled."""
        try:
            while seconds > 0:
                await asyncio.sleep(seconds)
                seconds = self._remaining() if seconds > REREAD else 0.0
        except asyncio.CancelledError:
            self._left += amount
            self._tat -= amount * self._interval
            raise

    def _remaining(self) -> float:
        """Seconds that the lease must still wait, as earlier calls left later than planned."""
        send_by = self._lease.send_by
        reopens_at = self._transact(
            lambda limits, now: max(limit.reopens_at(send_by, now) for limit in limits)
        )
        return 0.0 if reopens_at is None else reopens_at - asyncio.get_running_loop().time()

    def _return_rest(self) -> None:
        """Give back what is left of the lease, as a correction of the count."""
        if self._left > 0:
            self._corrections.add(self._lease.send_by, -self._left, paced=-self._left)
            self._lease = replace(self._lease, units=self._lease.units - self._left)
            self._left = 0.0

    def _transact(self, work: Callable[[Sequence[GcraLimit], float], T]) -> T | None:
        """Apply the corrections and run `work` in one transaction; None: see LocalLimit.update."""

        def corrected(limits: Sequence[GcraLimit], now: float) -> T:
            if self._corrections:
                correct(limits, self._corrections, now)
            return work(limits, now)

        result = self._source.update(corrected)
        if result is not None:
            self._corrections = Corrections()
        return result

    def _publish_at(self, at: float) -> None:
        """Publish the corrections to other jobs at `at`, if no transaction does so earlier."""
        if self._publishing is None and self._source.is_shared:
            self._publishing = asyncio.get_running_loop().call_at(at, self._publish)

    def _publish(self) -> None:
        self._publishing = None
        now = asyncio.get_running_loop().time()
        # What is left of a lease that still runs is kept.
        if self._left > 0 and now < self._lease.take_by:
            self._publish_at(self._lease.take_by)
            return
        self._return_rest()
        if self._corrections and self._transact(_nothing) is None:
            self._publish_at(now + SPAN)


def _nothing(limits: Sequence[GcraLimit], now: float) -> bool:
    """The work of a transaction that only applies corrections."""
    return True
