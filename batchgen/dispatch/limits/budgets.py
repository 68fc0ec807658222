"""Budgets of money and of retries."""

from __future__ import annotations

import asyncio

from batchgen.dispatch.limits.window import Clock
from batchgen.errors import LimitError
from batchgen.requests import Request

# Retries that each first attempt pays for, that each second pays for, that a run begins with, and
# the most that are saved up.
RETRIES_PER_REQUEST = 0.2
RETRIES_PER_SECOND = 1.0
INITIAL_RETRIES = 10.0
MAX_RETRIES = 100.0


class CostBudget:
    """Money in nano-dollars, up to `cap`.

    What is spent plus the most that calls in flight may cost never exceeds the cap.
    """

    def __init__(self, cap: int, *, name: str) -> None:
        self._left = cap
        self._reserved = 0
        self._name = name
        self._settled = asyncio.Event()

    async def reserve(self, amount: int) -> None:
        """Set `amount` aside. If too little is left, wait until calls in flight have settled.

        Raises LimitError when there will never be enough.
        """
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
        """Note that a call cost `cost`; None (unknown) counts all of `reserved` as spent."""
        self._reserved -= reserved
        self._left -= reserved if cost is None else cost
        self._settled.set()


class ObservedCosts:
    """What calls cost beyond their bounds.

    Some servers charge for more than a request asks for, such as reasoning beyond the cap on the
    answer. So the first call of a run with a cap on money goes alone, and what one call cost beyond
    its bound is set aside for each of the later ones.

    Attributes:
        surcharge: the most that a call cost beyond its bound, in nano-dollars.
    """

    def __init__(self) -> None:
        self.surcharge = 0
        self._models: set[str] = set()
        self._seen = asyncio.Event()
        self._seen.set()

    async def first(self, request: Request) -> None:
        """Wait for the first call to each model before this one to end."""
        await self._seen.wait()
        model = str(request.body.get("model"))
        if model not in self._models:
            self._models.add(model)
            self._seen.clear()

    def learn(self, bound: int, cost: int) -> None:
        """Note that a call that was to cost at most `bound` nano-dollars cost `cost`."""
        self.surcharge = max(self.surcharge, cost - bound)

    def seen(self) -> None:
        """Note that a call has ended, or was not sent."""
        self._seen.set()


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
