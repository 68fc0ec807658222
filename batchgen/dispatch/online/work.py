"""A request in progress, and the queue that decides which one is sent next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from batchgen.dispatch import Attempt, Failure, Outcome, Progress, Received, Thread, Wait
from batchgen.dispatch.limits.budgets import RetryBudget
from batchgen.dispatch.limits.waits import retry_wait
from batchgen.dispatch.limits.window import Clock
from batchgen.dispatch.retry import Spent
from batchgen.requests import Request

# Rows that may wait for a retry, per worker, before no new rows are begun: memory stays flat.
WAITING_PER_WORKER = 4


@dataclass(slots=True, kw_only=True)
class Work:
    """A request in progress.

    ready_at, failed_at: by the run's clock, in seconds; 0 if it has not failed.
    calls: how often it was sent in this run.
    serial: the run's number of its last call.
    own_fault: it failed again while the server answered others, so the row itself is the cause.
    """

    thread: Thread
    request: Request
    ready_at: float
    calls: int = 0
    serial: int = 0
    spent: Spent = field(default_factory=Spent)
    failure: Failure | None = None
    failed_at: float = 0.0
    own_fault: bool = False

    @property
    def model(self) -> str:
        """The model that the request names."""
        return str(self.request.body.get("model"))

    def succeeded(self, received: Received, attempt: Attempt) -> Outcome:
        """The outcome when its last attempt was answered."""
        return Outcome(
            request=self.request,
            attempts=self.calls,
            elapsed=attempt.elapsed,
            answered_at=time.time(),
            answer=received.answer,
            reply=received.reply,
            files=received.files,
            request_id=attempt.request_id,
            cost=attempt.cost,
        )

    def failed(self, failure: Failure, attempt: Attempt | None) -> Outcome:
        """The outcome when it failed: in its last `attempt`, or (None) while it waited to retry."""
        return Outcome(
            request=self.request,
            attempts=self.calls,
            elapsed=attempt.elapsed if attempt else 0.0,
            answered_at=time.time(),
            failure=failure,
            request_id=failure.request_id,
            cost=attempt.cost if attempt else None,
        )


class WorkQueue:
    """What is sent next: due retries, then begun conversations, then new threads."""

    def __init__(
        self,
        threads: AsyncIterator[Thread],
        *,
        workers: int,
        budget: RetryBudget,
        progress: Progress,
        clock: Clock,
    ) -> None:
        """Prepare the queue.

        threads: what is to be sent; read only as far as there is room.
        workers: how many take from the queue; only one of them at a time may call `pick`.
        budget: pays for each retry.
        progress: tells how many calls are in flight.
        clock: the run's clock, in seconds.
        """
        self._threads, self._budget, self._progress = threads, budget, progress
        self._clock = clock
        self._room = WAITING_PER_WORKER * workers
        # A heap by due time; the counter keeps equal times in order.
        self._retries: list[tuple[float, int, Work]] = []
        self._counter = itertools.count()
        self._next_turns: deque[Work] = deque()
        self._exhausted = False
        self._changed = asyncio.Event()
        # When `pick` goes on by itself, on the run's clock; None while it does not wait for a time.
        self._resumes_at: float | None = None

    def __len__(self) -> int:
        """How many rows wait for a retry."""
        return len(self._retries)

    def waiting(self) -> Iterator[Work]:
        """The rows that wait for a retry."""
        return (work for _, _, work in self._retries)

    def wait(self) -> Wait | None:
        """Whether nothing can be sent before a retry is due."""
        if self._resumes_at is None or not self._retries:
            return None
        return retry_wait(len(self._retries), self._resumes_at - self._clock())

    async def pick(self) -> Work | None:
        """Wait for the next request to send; None when all have ended."""
        while True:
            retry_in = self._retry_in()
            if retry_in is not None and retry_in <= 0:
                self._budget.take()
                return heapq.heappop(self._retries)[2]
            if self._next_turns:
                return self._next_turns.popleft()
            if not self._exhausted and len(self._retries) < self._room:
                work = await self._begin()
                if work is not None:
                    return work
                continue
            if not self._retries and not self._progress.in_flight:
                return None
            self._changed.clear()
            self._resumes_at = None if retry_in is None else self._clock() + retry_in
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(retry_in):
                        await self._changed.wait()
            finally:
                self._resumes_at = None

    def put(self, work: Work) -> None:
        """Let a request wait until its `ready_at`."""
        heapq.heappush(self._retries, (work.ready_at, next(self._counter), work))

    async def follow(self, work: Work, *, again: bool) -> None:
        """Add what follows an answered request in its thread: its correction, or the next turn.

        With `again` it is a correction: another call for the same request.
        """
        following = await self._next_of(work.thread)
        if following is not None:
            following.calls = work.calls if again else 0
            self._next_turns.append(following)

    def notify(self) -> None:
        """Wake `pick` after a call has ended: there may be something to pick, or nothing left."""
        self._changed.set()

    def _retry_in(self) -> float | None:
        """Seconds until the first retry is due and paid for; None when no row waits for one."""
        if not self._retries:
            return None
        due_in = self._retries[0][0] - self._clock()
        return due_in if due_in > 0 else self._budget.empty_for()

    async def _begin(self) -> Work | None:
        try:
            thread = await anext(self._threads)
        except StopAsyncIteration:
            self._exhausted = True
            return None
        return await self._next_of(thread)

    async def _next_of(self, thread: Thread) -> Work | None:
        request = await thread.next()
        return Work(thread=thread, request=request, ready_at=self._clock()) if request else None
