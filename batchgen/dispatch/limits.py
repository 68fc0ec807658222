"""What holds calls back: requests, tokens, pictures, money and retries.

Whoever takes from these holds one turn meanwhile, so nothing overtakes and large requests do not starve. Buckets are about
a quarter of a second deep, so that calls are spread evenly, and count what was sent, so that no window of 60 s passes the
limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import ceil

from aiolimiter import AsyncLimiter

from batchgen.errors import LimitError
from batchgen.kinds import Usage
from batchgen.requests import USUAL_PICTURE, Request

Clock = Callable[[], float]

# Seconds: the window of every limit, and how finely what was sent is remembered.
WINDOW = 60.0
SLOT = 0.05

# Tokens for each byte of a request until answers tell; how much of what was learnt each answer replaces; the most that is
# added to an estimate for what it may miss, as a share; and how unequal sizes must be to tell a constant from a slope.
FIRST_PER_BYTE = 0.3
FORGETTING = 0.02
MOST_MARGIN = 0.03
ALIKE = 0.02

# Retries are paid from this: so many a first attempt, so many a second, what there is to begin with and at the most.
RETRIES_PER_REQUEST = 0.2
RETRIES_PER_SECOND = 1.0
RETRIES_AT_FIRST = 10.0
RETRIES_AT_MOST = 100.0


class Bucket:
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
        """Take from the bucket, in chunks where it is not deep enough."""
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


class TokenEstimate:
    """Tokens as the server charges them: the input plus the answer's cap, up front.

    It learns from the usage that comes back. The input of a text without pictures is a line: tokens for each byte, and a
    constant, below 0 where the body's own marks (names, roles) cost bytes and no tokens. It is fitted by least squares, each
    request weighted by 1/size, for what texts miss it by grows with their size: so the misses of large and of small prompts
    even out among themselves. The mean answer stands for requests without a cap.
    """

    def __init__(self) -> None:
        self._per_byte = FIRST_PER_BYTE
        self._constant = 0.0
        # Means over the last answers: bytes, 1 / bytes, tokens, tokens / bytes, and what share the line missed by.
        self._bytes = self._inverse = self._tokens = self._ratio = self._missed = 0.0
        self._learnt = 0
        self._mean_answer = 256.0

    def of(self, request: Request) -> float:
        """The tokens that a request will be charged, rather too many than too few: the limit is the server's, too."""
        answer = self._mean_answer if request.answer_bound is None else request.answer_bound
        line = self._line(request.text_bytes)
        # No token is less than a byte, wherever few answers may make the line point.
        text = line if request.brings_in else min(line, request.text_bytes)
        return text * (1 + min(self._missed, MOST_MARGIN)) + request.shown * USUAL_PICTURE + answer

    def learn(self, request: Request, usage: Usage) -> None:
        """Learn from an answer's usage."""
        if usage.input_tokens is not None and request.text_bytes and not request.shown:
            # Whatever a server counts; unless it read more than it was sent.
            most = usage.input_tokens if request.brings_in else request.text_bytes
            self._fit(request.text_bytes, min(usage.input_tokens, most))
        if usage.output_tokens is not None:
            self._mean_answer += 0.1 * (usage.output_tokens - self._mean_answer)

    def _line(self, size: float) -> float:
        return max(0.0, self._constant + self._per_byte * size)

    def _fit(self, size: int, tokens: int) -> None:
        self._learnt += 1
        new = max(FORGETTING, 1 / self._learnt)
        if self._learnt > 1:
            line = self._line(size)
            self._missed += new * (abs(tokens - line) / max(1.0, line) - self._missed)
        self._bytes += new * (size - self._bytes)
        self._inverse += new * (1 / size - self._inverse)
        self._tokens += new * (tokens - self._tokens)
        self._ratio += new * (tokens / size - self._ratio)
        # How unequal sizes are: 0 when all are alike, and then they say nothing of a constant.
        unequal = self._bytes * self._inverse - 1 + ALIKE
        self._constant = min((self._ratio * self._bytes - self._tokens) / unequal, self._tokens)
        self._per_byte = (self._tokens - self._constant) / self._bytes


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
