"""Budgets of money and of retries."""

from __future__ import annotations

import asyncio

from batchgen.dispatch.limits.window import Clock
from batchgen.errors import LimitError

# Retries are paid from this: so many a first attempt, so many a second, what there is to begin with and at the most.
RETRIES_PER_REQUEST = 0.2


RETRIES_PER_SECOND = 1.0


RETRIES_AT_FIRST = 10.0


RETRIES_AT_MOST = 100.0


class CostBudget:
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
        self._level = min(self._level + RETRIES_PER_REQUEST, RETRIES_AT_MOST)

    def empty_for(self) -> float:
        """Seconds until one retry is paid for; 0 when one is."""
        self._refill()
        return max(0.0, 1 - self._level) / RETRIES_PER_SECOND

    def take(self) -> None:
        """One retry is sent."""
        self._level -= 1

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self._level + (now - self._at) * RETRIES_PER_SECOND, RETRIES_AT_MOST)
        self._at = now
