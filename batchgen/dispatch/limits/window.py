"""What holds calls back: requests, tokens, pictures, money and retries.

Whoever takes from these holds one turn meanwhile, so nothing overtakes and large requests do not starve. Limiters are about
a quarter of a second deep, so that calls are spread evenly, and count what was sent, so that no window of 60 s passes the
limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import ceil

from aiolimiter import AsyncLimiter

Clock = Callable[[], float]

# Seconds: the window of every limit, and how finely what was sent is remembered.
WINDOW = 60.0
SLOT = 0.05


class Limiter:
    """A ceiling of `limit` units in any 60 s window. `take` waits for room and `sent` counts; what the caller waits for in
    between only makes more room. More than `limit` at once goes alone."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._depth = max(1.0, limit / 240)
        self._bucket = AsyncLimiter(self._depth, self._depth * WINDOW / limit)
        self._debt = 0.0
        # [end of slot, units], oldest first.
        self._slots: deque[list[float]] = deque()
        self._in_window = 0.0

    async def take(self, amount: float) -> None:
        """Wait until `amount` units may be sent."""
        debt, self._debt = self._debt, 0.0
        await self._spread(amount + debt)
        while (seconds := self._full_for(amount)) > 0:  # noqa: ASYNC110 - time alone makes room
            await asyncio.sleep(seconds)

    def sent(self, amount: float, counted: float | None = None) -> float:
        """`amount` units that were taken are being sent now. Returns until when they may be and still count rightly.

        What is held up for longer (less than 60 s) is told again, with that time as `counted`, and then counts where it is
        sent instead.
        """
        now = asyncio.get_running_loop().time()
        if counted is not None:
            if now <= counted:
                return counted
            self._uncount(amount, counted)
        # The end of the slot, not the instant: what is remembered expires late rather than early.
        slot = ceil(now / SLOT) * SLOT
        if self._slots and self._slots[-1][0] >= slot:
            self._slots[-1][1] += amount
            slot = self._slots[-1][0]
        else:
            self._slots.append([slot, amount])
        self._in_window += amount
        return slot

    def owe(self, amount: float) -> None:
        """`amount` units were used beyond what was taken: they count now, and hold back the next."""
        self.sent(amount)
        self._debt += amount

    async def _spread(self, amount: float) -> None:
        """Take from the limiter, in chunks where it is not deep enough."""
        while amount > 0:
            chunk = min(amount, self._depth)
            await self._bucket.acquire(chunk)
            amount -= chunk

    def _uncount(self, amount: float, slot: float) -> None:
        for found in reversed(self._slots):
            if found[0] == slot:
                found[1] -= amount
                self._in_window -= amount
                return

    def _forget(self, now: float) -> None:
        """Drop what the window no longer holds."""
        while self._slots and self._slots[0][0] <= now - WINDOW:
            self._in_window -= self._slots.popleft()[1]
        if not self._slots:
            self._in_window = 0.0

    def _full_for(self, amount: float) -> float:
        """Seconds until the window next makes room when it has too little for `amount`, else 0."""
        now = asyncio.get_running_loop().time()
        self._forget(now)
        if not self._slots or self._in_window + amount <= self.limit:
            return 0.0
        return max(self._slots[0][0] + WINDOW - now, 0.001)
