"""Budgets of money and of retries."""

from __future__ import annotations

import asyncio

from batchgen.dispatch.limits.window import Clock
from batchgen.errors import LimitError

# Retries that each first attempt pays for, that each second pays for, that a run begins with, and
# the most that are saved up.
RETRIES_PER_REQUEST = 0.2
RETRIES_PER_SECOND = 1.0
INITIAL_RETRIES = 10.0
MAX_RETRIES = 100.0


# What is left is at least this many times what several calls in flight have set aside together.
HEADROOM = 2


class CostBudget:
    """Money in nano-dollars, up to `cap`.

    What is spent plus the money set aside for calls in flight never exceeds the cap, unless a call
    costs more than was set aside for it. For that, one call alone may take all that is left, and
    several together half of it: the other half stays for surprises among them.
    """

    def __init__(self, cap: int, *, name: str) -> None:
        self._left = cap
        self._reserved = 0
        self._name = name
        self._settled = asyncio.Event()

    @property
    def is_capped(self) -> bool:
        """Whether it limits what is spent."""
        return True

    @property
    def is_exceeded(self) -> bool:
        """Whether more is set aside than is left."""
        return self._reserved > self._left

    async def reserve(self, amount: int) -> None:
        """Set `amount` aside. If too little is left, wait until calls in flight have settled.

        Raises LimitError when there will never be enough.
        """
        while not (self._has_room(amount) or await self._extend(amount)):
            if not self._reserved:
                raise self._exhausted(amount)
            self._settled.clear()
            await self._settled.wait()
        self._reserved += amount

    def _has_room(self, amount: int) -> bool:
        return self._needed(amount) <= self._left

    def _needed(self, amount: int) -> int:
        """How much must be left so that `amount` can be set aside."""
        together = HEADROOM if self._reserved else 1
        return together * (self._reserved + amount)

    async def _extend(self, amount: int) -> bool:
        """Get more money for a call; returns whether it has room now."""
        return False

    def _exhausted(self, amount: int) -> LimitError:
        return LimitError(
            f"{self._name} is reached: the next call may cost up to ${amount / 1e9:.6f} and"
            f" ${self._left / 1e9:.6f} is left; raise it and run again"
        )

    def hold(self, more: int) -> None:
        """Set more aside for calls in flight, whether or not it is left."""
        self._reserved += more

    def settle(self, reserved: int, cost: int | None) -> None:
        """Note that a call cost `cost`; None (unknown) counts all of `reserved` as spent."""
        self._reserved -= reserved
        self._left -= reserved if cost is None else cost
        self._settled.set()


class RetryBudget:
    """A token bucket that pays for retries.

    Retries wait while it is empty; no row fails because of it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._level = INITIAL_RETRIES
        self._filled_at = clock()

    def first_attempt(self) -> None:
        """Note that a row was sent for the first time."""
        self._level = min(self._level + RETRIES_PER_REQUEST, MAX_RETRIES)

    def empty_for(self) -> float:
        """Seconds until one retry is paid for; 0 when one is."""
        now = self._clock()
        self._level = min(self._level + (now - self._filled_at) * RETRIES_PER_SECOND, MAX_RETRIES)
        self._filled_at = now
        return max(0.0, 1 - self._level) / RETRIES_PER_SECOND

    def take(self) -> None:
        """Note that a retry is sent."""
        self._level -= 1
