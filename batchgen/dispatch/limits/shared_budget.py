"""The budget that all jobs of a key share: their caps on a day and on a month, in UTC.

A run leases money from the file of all jobs (limits.key_spending) and spends it without the file,
so that few calls need a transaction. All leases and all that is spent stay below the caps together.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from batchgen.dispatch.limits.budgets import CostBudget
from batchgen.dispatch.limits.key_spending import (
    Cap,
    Owner,
    Refusal,
    SpendingStore,
    day_of,
    end_of,
    used,
)
from batchgen.dispatch.limits.state_file import StoreBusyError
from batchgen.dispatch.limits.window import MAX_BUSY, MAX_PAUSE, Clock
from batchgen.errors import LimitError, OutputError

T = TypeVar("T")


class SharedBudget(CostBudget):
    """What one run has of the money of its key.

    Without caps it only counts what the run spends, for the caps of other jobs.
    """

    def __init__(
        self,
        store: SpendingStore,
        owner: Owner,
        caps: Sequence[Cap],
        *,
        warn: Callable[[str], None],
        clock: Clock = time.time,
    ) -> None:
        """Args:
        store: the file of all jobs.
        owner: the job and its key.
        caps: those of this job.
        warn: called once with the reason if the file fails and there are no caps. With caps,
            OutputError is raised.
        clock: seconds since 1970.
        """
        super().__init__(0, name="the budget of the key")
        self._store: SpendingStore | None = store
        self._owner, self._caps, self._warn, self._clock = owner, caps, warn, clock
        self._day = day_of(clock())
        # Spent since the last transaction; what that wrote as leased; and whether nothing was spent
        # since the last `publish`.
        self._spent = self._leased = 0
        self._is_idle = False
        self._refusal: Refusal | None = None

    @property
    def is_capped(self) -> bool:
        """Whether it limits what is spent."""
        return bool(self._caps)

    def caps(self) -> list[tuple[int, int]]:
        """Each cap and what all jobs have of it, in nano-dollars."""
        if self._store is None:
            return []
        path, key = self._store.path, self._owner.key
        return [(cap.amount, used(path, key, cap.period, self._day) or 0) for cap in self._caps]

    @property
    def is_exceeded(self) -> bool:
        """Whether the calls in flight must be looked at again: see CostBudget, or a new day began.

        A call that waited over midnight counts on the day on which it leaves.
        """
        return super().is_exceeded or self._is_over

    @property
    def _is_over(self) -> bool:
        """Whether the day is over on which money was leased."""
        return day_of(self._clock()) != self._day

    def settle(self, reserved: int, cost: int | None) -> None:
        """See CostBudget.settle."""
        super().settle(reserved, cost)
        self._spent += reserved if cost is None else cost
        self._is_idle = False

    async def publish(self) -> None:
        """Write what was spent since the last transaction; give back a lease that is not used."""
        if self._is_over and not self._reserved:
            await self._begin_day()
        if self._is_idle and not self._reserved:
            self._left = min(self._left, 0)
        leased = max(self._left, self._reserved, 0)
        if self._spent or leased != self._leased:
            await self._write(leased)
        self._is_idle = True

    async def _begin_day(self) -> None:
        await self._write(0)
        self._left, self._day = 0, day_of(self._clock())

    def _has_room(self, amount: int) -> bool:
        return not self._is_over and super()._has_room(amount)

    async def _extend(self, amount: int) -> bool:
        """Lease money for a call; returns whether it has room now."""
        if self._is_over:
            if self._reserved:
                # Calls in flight count on the day that is over; a new one begins without them.
                return False
            await self._begin_day()
        left = max(0, self._left)
        more = self._needed(amount) - left

        def lease(store: SpendingStore, spent: int) -> int | Refusal:
            return store.lease(
                self._owner, self._day, self._caps, spent=spent, leased=left, more=more
            )

        granted: int | Refusal = await self._transact(lease, more)
        if isinstance(granted, Refusal):
            self._refusal = granted
            return False
        self._leased, self._left = left + granted, max(0, self._left) + granted
        return super()._has_room(amount)

    async def _write(self, leased: int) -> None:
        def write(store: SpendingStore, spent: int) -> None:
            store.update(self._owner, self._day, spent=spent, leased=leased)

        await self._transact(write, None)
        self._leased = leased

    async def _transact(self, work: Callable[[SpendingStore, int], T], without: T) -> T:
        """Do `work` with the file and what was spent; `without` when there is no file any more."""
        give_up_at = time.monotonic() + MAX_BUSY
        while self._store is not None:
            spent = self._spent
            try:
                result = work(self._store, spent)
            except StoreBusyError:
                if time.monotonic() < give_up_at:
                    await asyncio.sleep(random.uniform(0, MAX_PAUSE))
                    continue
                self._fail(OutputError(f"{self._store.path}: another process keeps it locked"))
            except OutputError as error:
                self._fail(error)
            else:
                self._spent -= spent
                return result
        return without

    def _fail(self, error: OutputError) -> None:
        """Raise the error under a cap, which cannot be kept now; else count no more."""
        if self._caps:
            raise error
        self._store = None
        self._warn(str(error))

    def _exhausted(self, amount: int) -> LimitError:
        refusal = self._refusal
        assert refusal is not None
        return refused(refusal, amount, self._day)


def refused(refusal: Refusal, amount: int, day: str) -> LimitError:
    """The error of a call that may cost `amount` nano-dollars and does not fit any more."""
    cap = refusal.cap
    jobs = ", ".join(f"{job} ${spent / 1e9:,.4f}" for job, spent in refusal.dearest)
    when = "today" if cap.period == "day" else "this month"
    then = (
        "raise it and run again"
        if amount > cap.amount
        else f"the same command goes on when the {cap.period} ends,"
        f" at {end_of(cap.period, day):%Y-%m-%d %H:%M} UTC"
    )
    return LimitError(
        f"{cap.name} is reached: the next call may cost up to ${amount / 1e9:.6f} and"
        f" ${refusal.left / 1e9:.6f} is left of ${cap.amount / 1e9:,.4f}; jobs with this key spent"
        f" or set aside ${refusal.used / 1e9:,.4f} {when}{f' ({jobs})' if jobs else ''}; {then}"
    )
