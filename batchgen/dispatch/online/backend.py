"""The online API: a fixed number of workers over one bounded stream of threads.

`retry(admission(call))`: a worker holds the one turn while it picks what to send and is admitted, then sends it and waits
until its outcome is durable. A retry queues again like anyone else and holds nothing while it waits.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from batchgen.dispatch import Attempt, Failure, Outcome, Progress, Received, Recorder, Thread
from batchgen.dispatch.api.errors import account_error
from batchgen.dispatch.api.replies import Transport
from batchgen.dispatch.failure_limit import AllRefusedError, FailureLimit
from batchgen.dispatch.limits.admission import (
    Admission,
    LimiterFactory,
    NeverFitsError,
    Permit,
    own_limiter,
)
from batchgen.dispatch.limits.budgets import CostBudget, RetryBudget
from batchgen.dispatch.limits.window import Clock
from batchgen.dispatch.online.attempts import AttemptRunner
from batchgen.dispatch.online.watchdog import GaveUpError, Watchdog
from batchgen.dispatch.retry import FEW_THROTTLES, LONGEST_WAIT, Policy, Spent
from batchgen.errors import BatchgenError, LimitError
from batchgen.job import Job
from batchgen.pricing import Prices
from batchgen.requests import Request

# As many rows for each worker may wait for a retry before no new ones are begun.
WAITING_PER_WORKER = 4


@dataclass(slots=True, kw_only=True)
class _Work:
    """A request on its way: how often it was called, what it has used up, when it became ready, its last failure.

    `own` says that the server failed it again while it answered others: the fault follows the row.
    """

    thread: Thread
    request: Request
    ready_at: float
    calls: int = 0
    spent: Spent = field(default_factory=Spent)
    failure: Failure | None = None
    failed_at: float = 0.0
    own: bool = False


class OnlineBackend:
    """Sends requests one by one, as fast as the limits and the server allow."""

    def __init__(
        self,
        *,
        client: Transport,
        ledger: Recorder,
        job: Job,
        concurrency: int,
        failures_left: int | None,
        prices: Prices,
        budgets: Sequence[CostBudget],
        progress: Progress,
        host: str,
        limiters: LimiterFactory = own_limiter,
        clock: Clock = time.monotonic,
    ) -> None:
        self._ledger, self._job, self._concurrency = ledger, job, concurrency
        self._progress, self._host, self._clock = progress, host, clock
        limits, retry = job.limits, job.retry
        self._admission = Admission(
            requests=limits.requests_per_minute,
            tokens=limits.tokens_per_minute,
            pictures=limits.images_per_minute,
            budgets=budgets,
            prices=prices,
            clock=clock,
            limiters=limiters,
        )
        self._limiter = self._admission.adaptive
        self._budget = RetryBudget(clock)
        self._policy = Policy(attempts=retry.attempts, max_wait=retry.max_wait)
        self._watch = Watchdog(
            timeout=job.timeout,
            give_up=retry.give_up,
            max_time=limits.max_time,
            limiter=self._limiter,
            host=host,
            in_flight=lambda: progress.in_flight,
            stop=self.stop,
            show=self._show,
            clock=clock,
        )
        self._calls = AttemptRunner(
            client=client,
            ledger=ledger,
            prices=prices,
            admission=self._admission,
            watch=self._watch,
            clock=clock,
        )
        self._turn = asyncio.Lock()
        self._waiting: list[tuple[float, int, _Work]] = []
        self._order = itertools.count()
        self._ready: deque[_Work] = deque()
        self._ended = False
        self._changed = asyncio.Event()
        self._idle: set[asyncio.Task[None]] = set()
        self._workers: list[asyncio.Task[None]] = []
        self._why: BatchgenError | None = None
        # What ends a run that has done all the rest: a row that no limit lets through.
        self._unfit: BatchgenError | None = None
        self._tolerance = FailureLimit(failures_left, host)
        self._models: set[str] = set()
        # What failed while the first answers may be all the same refusal.
        self._refused: list[Request] = []

    async def run(self, threads: AsyncIterator[Thread]) -> BatchgenError | None:
        """Work until the threads end or something stops the job; returns what stopped it. Raises OutputError."""
        self._threads = threads
        if why := self._tolerance.exceeded():
            return why
        names = (f"worker {n}" for n in range(self._concurrency))
        self._workers = [asyncio.create_task(self._work(), name=name) for name in names]
        try:
            async with self._watch:
                await _all(self._workers)
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
            self._progress.learned = self._admission.learned
        if isinstance(self._why, GaveUpError):
            await self._give_up()
        elif isinstance(self._why, AllRefusedError):
            for request in self._refused:
                await self._ledger.withdraw(request)
                self._progress.failed -= 1
        return self._why or self._unfit

    def stop(self, why: BatchgenError, *, drain: float | None = None) -> None:
        """No new work; what is in flight has `drain` seconds (None: its own deadlines) to end. The first reason stays."""
        if self._why is None:
            self._why = why
            for worker in self._idle:
                worker.cancel()
        if drain is not None:
            asyncio.get_running_loop().call_later(drain, self._abandon)

    def _abandon(self) -> None:
        for worker in self._workers:
            worker.cancel()

    async def _give_up(self) -> None:
        """Rows that the server itself failed have failed in this run: three such runs end them. The others stay pending."""
        for _, _, work in self._waiting:
            if (
                work.failure
                and work.failure.status is not None
                and work.failure.meaning != "throttled"
            ):
                await self._ledger.unsent(self._outcome(work, 0.0, failure=work.failure))
                self._progress.failed += 1

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        with suppress(asyncio.CancelledError):
            while self._why is None:
                self._idle.add(worker)
                try:
                    async with self._turn:
                        work = await self._pick()
                        ticket = await self._admit(work) if work else None
                        self._progress.in_flight += ticket is not None
                finally:
                    self._idle.discard(worker)
                if work is None:
                    return
                if ticket is not None:
                    await self._send(work, ticket)
        if self._why is None:
            raise asyncio.CancelledError

    async def _send(self, work: _Work, ticket: Permit) -> None:
        try:
            await self._call(work, ticket)
        finally:
            self._progress.in_flight -= 1
            self._changed.set()

    async def _pick(self) -> _Work | None:
        """What to send next: due retries that are paid for, then begun conversations, then new threads; None when all has
        ended."""
        while True:
            retry_in = self._retry_in()
            if retry_in is not None and retry_in <= 0:
                self._budget.take()
                return heapq.heappop(self._waiting)[2]
            if self._ready:
                return self._ready.popleft()
            if not self._ended and len(self._waiting) < WAITING_PER_WORKER * self._concurrency:
                work = await self._begin()
                if work is not None:
                    return work
                continue
            if not self._waiting and not self._progress.in_flight:
                return None
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_in):
                    await self._changed.wait()

    def _retry_in(self) -> float | None:
        """Seconds until the first waiting row is due and its retry is paid for; None when none waits."""
        if not self._waiting:
            return None
        due = self._waiting[0][0] - self._clock()
        return due if due > 0 else self._budget.empty_for()

    async def _begin(self) -> _Work | None:
        try:
            thread = await anext(self._threads)
        except StopAsyncIteration:
            self._ended = True
            return None
        return await self._next_of(thread)

    async def _next_of(self, thread: Thread) -> _Work | None:
        request = await thread.next()
        return _Work(thread=thread, request=request, ready_at=self._clock()) if request else None

    async def _admit(self, work: _Work) -> Permit | None:
        """Wait for everything that this call needs; None when it is not to be sent."""
        try:
            ticket = await self._admission.admit(work.request)
        except NeverFitsError as never:
            # It stays pending: another limit, and it is sent.
            self._unfit = self._unfit or LimitError(
                f"{work.request.id}: {never}; raise it and run again"
            )
            return None
        except LimitError as limit:
            self.stop(limit)
            return None
        except asyncio.CancelledError:
            self._keep(work)
            raise
        if not work.calls:
            self._budget.first_attempt()
        return ticket

    async def _call(self, work: _Work, ticket: Permit) -> None:
        work.calls += 1
        called = await self._calls.make(
            work.request, ticket, number=work.calls, ready_at=work.ready_at
        )
        self._progress.cost += called.attempt.cost or 0
        result = called.result
        if isinstance(result, Failure):
            self._admission.record_failure(
                result, ticket, called.sent_at, own=self._is_own(work, result)
            )
            await self._failed(work, result, called.attempt)
        else:
            self._admission.record_answer(work.request, ticket, result.answer.usage, called.sent_at)
            await self._answered(work, result, called.attempt)

    async def _answered(self, work: _Work, received: Received, attempt: Attempt) -> None:
        self._models.add(str(work.request.body.get("model")))
        outcome = self._outcome(work, attempt.elapsed, received=received, attempt=attempt)
        await self._ledger.outcome(outcome, attempt)
        ended = received.answer.ended or received.answer.finish_reason in self._job.output.accept
        self._progress.done += ended
        self._progress.incomplete += not ended
        self._stop_for(self._tolerance.answered(ended=ended))
        if self._why is None:
            following = await self._next_of(work.thread)
            if following is not None:
                self._ready.append(following)

    async def _failed(self, work: _Work, failure: Failure, attempt: Attempt) -> None:
        work.failure, work.failed_at = self._own(failure), self._clock()
        failure = work.failure
        work.spent.attempts += self._spends(work, failure)
        work.spent.timeouts += failure.meaning == "timeout"
        if failure.meaning == "account":
            await self._ledger.attempt(work.request, attempt)
            self.stop(account_error(failure, self._host, work.request.body.get("model")))
        elif failure.is_passing and (failure.retry_after or 0) > LONGEST_WAIT:
            await self._ledger.attempt(work.request, attempt)
            self.stop(
                LimitError(
                    f"{self._host} asks to wait {failure.retry_after:.0f} s; run again later"
                )
            )
        elif failure.is_passing and (
            self._why is not None or self._policy.should_retry(failure, work.spent)
        ):
            await self._ledger.attempt(work.request, attempt)
            work.ready_at = work.failed_at + self._policy.delay(failure, work.spent)
            self._keep(work)
        else:
            await self._ledger.outcome(
                self._outcome(work, attempt.elapsed, failure=failure), attempt
            )
            if self._tolerance.undecided or isinstance(self._why, AllRefusedError):
                self._refused.append(work.request)
            self._count(failure)

    def _is_own(self, work: _Work, failure: Failure) -> bool:
        """Whether a failure is the row's own, whatever the others'."""
        between = failure.status is not None and 0 < work.failed_at < self._limiter.last_success
        work.own = work.own or between
        if failure.meaning != "throttled":
            return work.own
        work.spent.throttles += between or work.spent.throttles > 0
        # Limits are those of a model; one that answers nobody is no reason to slow the others.
        strange = bool(self._models) and str(work.request.body.get("model")) not in self._models
        return strange or work.spent.throttles >= FEW_THROTTLES

    def _spends(self, work: _Work, failure: Failure) -> bool:
        """Whether a failure counts against the row: not throttling, not an outage; a time-out may have been billed."""
        if failure.meaning == "throttled":
            return False
        return work.own or failure.meaning == "timeout" or self._limiter.state != "tripped"

    def _own(self, failure: Failure) -> Failure:
        """A wrong model or tier that the row itself chose is the row's failure."""
        own = failure.reason in ("model", "service_tier") and self._job.rows_choose(failure.reason)
        return replace(failure, meaning="row") if own else failure

    def _keep(self, work: _Work) -> None:
        """Among those that wait to be sent again."""
        heapq.heappush(self._waiting, (work.ready_at, next(self._order), work))

    def _count(self, failure: Failure) -> None:
        self._progress.failed += 1
        self._stop_for(self._tolerance.failed(failure))

    def _stop_for(self, why: BatchgenError | None) -> None:
        if why is not None:
            self.stop(why)

    def _outcome(
        self,
        work: _Work,
        elapsed: float,
        *,
        received: Received | None = None,
        attempt: Attempt | None = None,
        failure: Failure | None = None,
    ) -> Outcome:
        return Outcome(
            request=work.request,
            attempts=work.calls,
            elapsed=elapsed,
            answered_at=time.time(),
            answer=received.answer if received else None,
            reply=received.reply if received else b"",
            files=received.files if received else (),
            failure=failure,
            request_id=failure.request_id if failure else attempt.request_id if attempt else None,
            cost=attempt.cost if attempt else None,
        )

    def _show(self) -> None:
        stopping = self._why is not None
        self._progress.waiting_for = (
            "in-flight calls to end" if stopping else self._admission.hindrance()
        )


async def _all(workers: list[asyncio.Task[None]]) -> None:
    """Wait for every worker; the first that raises ends the wait."""
    done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    for worker in done:
        if not worker.cancelled():
            worker.result()
