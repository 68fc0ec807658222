"""The online API: a fixed number of workers take from one bounded stream of threads.

One worker at a time picks a request and waits for its admission. Then it lets the next worker pick,
sends the request, and waits until the outcome is durable. A retry waits in the queue, not in a
worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from batchgen.dispatch import Attempt, Failure, Progress, Received, Recorder, Thread
from batchgen.dispatch.api.errors import account_error
from batchgen.dispatch.api.replies import Transport
from batchgen.dispatch.failure_limit import FailureLimit
from batchgen.dispatch.limits.admission import (
    Admission,
    LimiterFactory,
    NeverFitsError,
    Permit,
    own_limiter,
)
from batchgen.dispatch.limits.budgets import RetryBudget
from batchgen.dispatch.limits.spending import Spending
from batchgen.dispatch.limits.waits import SteadyWait, concurrency_wait
from batchgen.dispatch.limits.window import Clock
from batchgen.dispatch.online.attempts import AttemptRunner
from batchgen.dispatch.online.blame import Blame
from batchgen.dispatch.online.refusals import RefusalStreak
from batchgen.dispatch.online.watchdog import GaveUpError, Watchdog
from batchgen.dispatch.online.work import Work, WorkQueue
from batchgen.dispatch.retry import LONGEST_WAIT, Policy
from batchgen.errors import BatchgenError, LimitError
from batchgen.job import Job
from batchgen.pricing import Prices
from batchgen.replies import accepted, is_accepted


class OnlineBackend:
    """Sends requests one by one, as fast as the limits and the server allow.

    transport: sends one request, once.
    recorder: makes attempts and outcomes durable.
    job: its limits, its retries, the finish reasons it accepts, and what its rows choose.
    concurrency: the most calls in flight; not more than the open files that the system allows.
    failures_left: how many more rows may fail before the run stops; None for any number.
    prices: what requests and answers cost.
    spending: each call must fit into what it has left.
    progress: updated in place.
    host: the server's name in messages.
    limiters: makes the limiter of a limit per minute; by default one for this run alone.
    clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        recorder: Recorder,
        job: Job,
        concurrency: int,
        failures_left: int | None,
        prices: Prices,
        spending: Spending,
        progress: Progress,
        host: str,
        limiters: LimiterFactory = own_limiter,
        clock: Clock = time.monotonic,
    ) -> None:
        self._recorder, self._job, self._concurrency = recorder, job, concurrency
        self._transport = transport
        self._progress, self._host, self._clock = progress, host, clock
        limits, retry, self._accept = job.limits, job.retry, accepted(job.output.accept)
        self._admission = Admission(
            requests=limits.requests_per_minute,
            tokens=limits.tokens_per_minute,
            pictures=limits.images_per_minute,
            spending=spending,
            prices=prices,
            clock=clock,
            limiters=limiters,
        )
        self._adaptive = self._admission.adaptive
        self._retry_budget = RetryBudget(clock)
        self._policy = Policy(attempts=retry.attempts, max_wait=retry.max_wait)
        self._blame = Blame(job, self._adaptive, lambda: progress.in_flight)
        self._failure_limit = FailureLimit(failures_left, host)
        self._streak = RefusalStreak(host)
        self._watchdog = Watchdog(
            timeout=job.timeout,
            give_up=retry.give_up,
            max_time=limits.max_time,
            limiter=self._adaptive,
            host=host,
            in_flight=lambda: progress.in_flight,
            stop=self.stop,
            show=self._show,
            clock=clock,
        )
        self._attempts = AttemptRunner(
            transport=transport,
            recorder=recorder,
            prices=prices,
            admission=self._admission,
            watchdog=self._watchdog,
            clock=clock,
        )
        self._picking = asyncio.Lock()
        # Workers that have no call in flight, and may be cancelled at once.
        self._idle: set[asyncio.Task[None]] = set()
        self._workers: list[asyncio.Task[None]] = []
        self._stopped_by: BatchgenError | None = None
        # The error of a run that only has rows left that never fit into a limit.
        self._never_fits: BatchgenError | None = None

    async def run(self, threads: AsyncIterator[Thread]) -> BatchgenError | None:
        """Work until the threads end or something stops the run; returns what stopped it.

        Raises OutputError when something cannot be recorded.
        """
        if limit_error := self._failure_limit.exceeded():
            return limit_error
        self._steady = SteadyWait()
        self._queue = WorkQueue(
            threads,
            workers=self._concurrency,
            budget=self._retry_budget,
            progress=self._progress,
            clock=self._clock,
        )
        names = (f"worker {n}" for n in range(self._concurrency))
        self._workers = [asyncio.create_task(self._work(), name=name) for name in names]
        try:
            async with self._watchdog:
                await _first_error(self._workers)
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
            self._progress.learned = self._admission.learned
        if isinstance(self._stopped_by, GaveUpError):
            await self._fail_waiting()
        for request in self._streak.requests:
            await self._recorder.withdraw(request)
            self._progress.failed -= 1
        return self._stopped_by or self._never_fits

    def stop(self, why: BatchgenError, *, drain: float | None = None) -> None:
        """Begin nothing new; calls in flight have `drain` seconds (None: their own deadlines).

        The first reason is kept.
        """
        if self._stopped_by is None:
            self._stopped_by = why
            self._progress.stopping, self._progress.wait = True, None
            for worker in self._idle:
                worker.cancel()
        if drain is not None:
            asyncio.get_running_loop().call_later(drain, self._cancel_workers)

    def _cancel_workers(self) -> None:
        for worker in self._workers:
            worker.cancel()

    async def _fail_waiting(self) -> None:
        """Record the failure of rows that wait for a retry after an error of the server itself.

        After three such runs a row is not retried any more. The other rows stay pending.
        """
        for work in self._queue.waiting():
            failure = work.failure
            if failure and failure.status is not None and failure.meaning != "throttled":
                await self._recorder.unsent(work.failed(failure, None))
                self._progress.failed += 1

    async def _work(self) -> None:
        """One worker: pick, be admitted, send, until nothing is left or the run stops."""
        worker = asyncio.current_task()
        assert worker is not None
        with suppress(asyncio.CancelledError):
            while self._stopped_by is None:
                self._idle.add(worker)
                try:
                    async with self._picking:
                        work = await self._queue.pick()
                        permit = await self._admit(work) if work else None
                        self._progress.in_flight += permit is not None
                finally:
                    self._idle.discard(worker)
                if work is None:
                    return
                if permit is not None:
                    await self._send(work, permit)
        # `stop` cancels idle workers, which then end quietly. Other cancellations are passed on.
        if self._stopped_by is None:
            raise asyncio.CancelledError

    async def _admit(self, work: Work) -> Permit | None:
        """Wait for everything that a call needs; None when it must not be sent."""
        try:
            permit = await self._admission.admit(work.request)
        except NeverFitsError as error:
            # The row stays pending: it is sent once its limit is raised.
            self._never_fits = self._never_fits or LimitError(
                f"{work.request.id}: {error}; raise it and run again"
            )
            return None
        except LimitError as error:
            self.stop(error)
            return None
        except asyncio.CancelledError:
            self._queue.put(work)
            raise
        if not work.calls:
            self._retry_budget.first_attempt()
        return permit

    async def _send(self, work: Work, permit: Permit) -> None:
        try:
            await self._call(work, permit)
        finally:
            self._transport.release()
            self._progress.in_flight -= 1
            self._streak.record_end(work.serial)
            self._queue.notify()

    async def _call(self, work: Work, permit: Permit) -> None:
        work.calls += 1
        work.serial = self._streak.record_sent()
        attempt, result, sent_at = await self._attempts.run(
            work.request, permit, number=work.calls, ready_at=work.ready_at
        )
        self._progress.cost += attempt.cost or 0
        if isinstance(result, Failure):
            own = self._blame.is_own_fault(work, result)
            self._admission.record_failure(result, permit, sent_at, own=own)
            await self._handle_failure(work, result, attempt)
        else:
            self._admission.record_answer(work.request, permit, result.answer.usage, sent_at)
            await self._handle_answer(work, result, attempt)

    async def _handle_answer(self, work: Work, received: Received, attempt: Attempt) -> None:
        self._blame.record_answer(work)
        self._streak.record_answer(work.serial)
        again = await self._recorder.outcome(work.succeeded(received, attempt), attempt)
        answer = received.answer
        complete = answer.ended or is_accepted(answer.finish_reason, self._accept)
        if not again:
            self._progress.done += complete
            self._progress.incomplete += not complete
        self._stop_for(self._failure_limit.record(complete=complete or again))
        if self._stopped_by is None:
            await self._queue.follow(work, again=again)

    async def _handle_failure(self, work: Work, failure: Failure, attempt: Attempt) -> None:
        failure = work.failure = self._blame.assign(work, failure)
        work.failed_at = self._clock()
        work.spent.attempts += self._blame.uses_attempt(work, failure)
        work.spent.timeouts += failure.meaning == "timeout"
        if failure.meaning == "account":
            await self._recorder.attempt(work.request, attempt)
            self.stop(account_error(failure, self._host, work.request.body.get("model")))
        elif failure.is_passing and (failure.retry_after or 0) > LONGEST_WAIT:
            await self._recorder.attempt(work.request, attempt)
            wait = f"{self._host} asks to wait {failure.retry_after:.0f} s"
            self.stop(LimitError(f"{wait}; run again later"))
        elif failure.is_passing and (
            self._stopped_by is not None or self._policy.should_retry(failure, work.spent)
        ):
            await self._recorder.attempt(work.request, attempt)
            work.ready_at = work.failed_at + self._policy.delay(failure, work.spent)
            self._queue.put(work)
        else:
            await self._recorder.outcome(work.failed(failure, attempt), attempt)
            self._progress.failed += 1
            self._stop_for(self._streak.record_failure(work.serial, work.request, failure))
            self._stop_for(self._failure_limit.record(complete=False))

    def _stop_for(self, why: BatchgenError | None) -> None:
        if why is not None:
            self.stop(why)

    def _show(self) -> None:
        if self._progress.stopping:
            return
        wait = self._admission.wait(self._host) or self._queue.wait()
        if wait is None and self._progress.in_flight >= self._concurrency:
            wait = concurrency_wait(self._concurrency, self._job.limits.concurrency)
        self._progress.wait = self._steady.after(wait, self._clock())


async def _first_error(workers: list[asyncio.Task[None]]) -> None:
    """Wait for every worker, or until one fails; raises what it raised."""
    done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    for worker in done:
        if not worker.cancelled():
            worker.result()
