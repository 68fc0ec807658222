"""The online API: a fixed number of workers over one bounded stream of threads.

`retry(admission(call))`: a worker holds the one turn while it picks what to send and is admitted, then sends it and waits
until its outcome is durable. A retry queues again like anyone else and holds nothing while it waits.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import resource
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from batchgen.dispatch import Attempt, Failure, Ledger, Outcome, Progress, Received, Thread
from batchgen.dispatch.limits import Bucket, Clock, Governor, Purse, RetryBudget, TokenBucket
from batchgen.dispatch.retry import LONGEST_WAIT, Policy, classify, complaint
from batchgen.dispatch.transport import Client, Reply
from batchgen.errors import AccountError, BatchgenError, LimitError
from batchgen.kinds import Unreadable
from batchgen.pricing import Prices
from batchgen.requests import Request, RequestFault

# As many rows for each worker may wait for a retry before no new ones are begun.
WAITING_PER_WORKER = 4

# So many answers that are all the same refusal, and none that is not, mean that the job is wrong and not its rows.
SAME_REFUSALS = 20

# Seconds after which a host that never answered stops the job.
NEVER_ANSWERED = 30.0

# Files that a run needs open besides its connections.
OWN_FILES = 64

# Seconds that a timer may be late before the process is taken to have been stopped and continued.
STALLED = 2.0

# Replies from this size on (bytes) are parsed off the event loop.
LARGE_REPLY = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The numbers of a run: ceilings (None: none), seconds, and how many more rows may fail before the job stops.

    `own_model` and `own_tier` say that rows choose them (a template or an axis): a wrong one is then the row's fault, not
    the job's. `accept` are the finish reasons that count as success.
    """

    concurrency: int
    attempts: int
    max_wait: float
    timeout: float
    give_up: float
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    images_per_minute: float | None = None
    max_time: float | None = None
    failures_left: int | None = None
    own_model: bool = False
    own_tier: bool = False
    accept: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class _Work:
    """A request on its way: how often it was called, how many of the calls count, and when it became ready."""

    thread: Thread
    request: Request
    ready_at: float
    calls: int = 0
    spent: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ticket:
    """What admission took for one call."""

    money: int
    tokens: float
    probe: bool


@dataclass(slots=True)
class _Seen:
    """What the first answers were."""

    answers: int = 0
    refusals: set[tuple[int | None, str | None]] = field(default_factory=set)


class OnlineBackend:
    """Sends requests one by one, as fast as the limits and the server allow."""

    def __init__(
        self,
        *,
        client: Client,
        ledger: Ledger,
        rules: Rules,
        prices: Prices,
        purses: Sequence[Purse],
        progress: Progress,
        host: str,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client, self._ledger, self._rules, self._prices = client, ledger, rules, prices
        self._purses, self._progress, self._host, self._clock = purses, progress, host, clock
        self._governor = Governor(clock)
        self._budget = RetryBudget(clock)
        self._policy = Policy(attempts=rules.attempts, max_wait=rules.max_wait)
        self._requests = Bucket(rules.requests_per_minute) if rules.requests_per_minute else None
        self._pictures = Bucket(rules.images_per_minute) if rules.images_per_minute else None
        self._tokens = TokenBucket(rules.tokens_per_minute) if rules.tokens_per_minute else None
        self._turn = asyncio.Lock()
        self._waiting: list[tuple[float, int, _Work]] = []
        self._order = itertools.count()
        self._ready: deque[_Work] = deque()
        self._ended = False
        self._queue = ""
        self._changed = asyncio.Event()
        self._idle: set[asyncio.Task[None]] = set()
        self._workers: list[asyncio.Task[None]] = []
        self._deadlines: set[asyncio.Timeout] = set()
        self._why: BatchgenError | None = None
        self._seen = _Seen()
        self._began = clock()

    async def run(self, threads: AsyncIterator[Thread]) -> BatchgenError | None:
        """Work until the threads end or something stops the job; returns what stopped it. Raises OutputError."""
        self._threads = threads
        names = (f"worker {n}" for n in range(self._rules.concurrency))
        self._workers = [asyncio.create_task(self._work(), name=name) for name in names]
        watch = asyncio.create_task(self._watch())
        try:
            await _all(self._workers)
        finally:
            watch.cancel()
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(watch, *self._workers, return_exceptions=True)
        return self._why

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

    async def _send(self, work: _Work, ticket: _Ticket) -> None:
        try:
            await self._call(work, ticket)
        finally:
            self._progress.in_flight -= 1
            self._changed.set()

    async def _pick(self) -> _Work | None:
        """What to send next: due retries, then begun conversations, then new threads; None when all has ended."""
        while True:
            now = self._clock()
            if self._waiting and self._waiting[0][0] <= now:
                return heapq.heappop(self._waiting)[2]
            if self._ready:
                return self._ready.popleft()
            if not self._ended and len(self._waiting) < WAITING_PER_WORKER * self._rules.concurrency:
                work = await self._begin()
                if work is not None:
                    return work
                continue
            if not self._waiting and not self._progress.in_flight:
                return None
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._waiting[0][0] - now if self._waiting else None):
                    await self._changed.wait()

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

    async def _admit(self, work: _Work) -> _Ticket | None:
        """Wait for everything that this call needs; None when it can never be sent and has failed."""
        request, tokens = work.request, 0.0
        if self._tokens:
            tokens = self._tokens.estimate(request.input_bound, request.answer_bound)
            if tokens > self._tokens.limit:
                await self._unsendable(work, f"needs about {tokens:.0f} tokens, more than tokens_per_minute")
                return None
        if work.calls:
            self._queue = "the retry budget"
            await self._budget.take()
        if self._requests:
            self._queue = "requests_per_minute"
            await self._requests.take(1)
        if self._pictures and request.pictures:
            self._queue = "images_per_minute"
            await self._pictures.take(request.pictures)
        if self._tokens:
            self._queue = "tokens_per_minute"
            await self._tokens.take(tokens)
        self._queue = ""
        probe = await self._governor.gate()
        money = 0
        if self._purses:
            money = self._prices.bound(request) or 0
            try:
                await self._set_aside(money)
            except LimitError as limit:
                self.stop(limit)
                return None
        if not work.calls:
            self._budget.first_attempt()
        return _Ticket(money=money, tokens=tokens, probe=probe)

    async def _set_aside(self, money: int) -> None:
        """Reserve in every purse, or in none."""
        with ExitStack() as undo:
            for purse in self._purses:
                await purse.reserve(money)
                undo.callback(purse.settle, money, 0)
            undo.pop_all()

    async def _unsendable(self, work: _Work, message: str, reason: str = "too_long") -> None:
        failure = Failure(meaning="row", reason=reason, message=message)
        await self._ledger.unsent(self._outcome(work, 0.0, failure=failure))
        self._count_failure(failure)

    async def _call(self, work: _Work, ticket: _Ticket) -> None:
        work.calls += 1
        if self._purses:
            await self._ledger.reserve(work.request, work.calls, time.time(), ticket.money)
        started_at, started = time.time(), self._clock()
        self._progress.calls += 1
        try:
            reply = await self._post(work.request)
            result = await self._read(work.request, reply) if isinstance(reply, Reply) else reply
        except RequestFault as fault:
            self._settle(ticket, 0)
            await self._unsendable(work, fault.message, "input")
            return
        elapsed = self._clock() - started
        cost = self._cost(work.request, result, ticket)
        attempt = Attempt(
            number=work.calls,
            started_at=started_at,
            wait=max(0.0, started - work.ready_at),
            elapsed=elapsed,
            cost=cost,
            **_audit(result, reply),
        )
        self._settle(ticket, cost)
        self._learn(work.request, result, ticket, started)
        if isinstance(result, Failure):
            await self._failed(work, result, attempt)
        else:
            await self._answered(work, result, attempt)

    async def _post(self, request: Request) -> Reply | Failure:
        try:
            with self._deadline() as deadline:
                async with deadline:
                    return await self._client.post(request)
        except TimeoutError:
            message = f"no whole answer within {self._rules.timeout:g} s (retry.timeout)"
            return Failure(meaning="timeout", reason="timeout", message=message, unknown=True)

    @contextmanager
    def _deadline(self) -> Iterator[asyncio.Timeout]:
        deadline = asyncio.timeout(self._rules.timeout)
        self._deadlines.add(deadline)
        try:
            yield deadline
        finally:
            self._deadlines.discard(deadline)

    async def _read(self, request: Request, reply: Reply) -> Received | Failure:
        try:
            body = await _parse(reply.body)
            if complaint(body) is not None:
                return self._client.clean(classify(200, reply.body, reply.headers))
            if not isinstance(body, Mapping):
                raise Unreadable(f"the reply is {type(body).__name__}, not an object")
            return await self._ledger.receive(request, body, reply.body)
        except (Unreadable, ValueError, RecursionError) as error:
            final = isinstance(error, Unreadable) and error.final
            told = str(error) if isinstance(error, Unreadable) else "the reply is not JSON"
            return self._client.clean(
                Failure(
                    meaning="row" if final else "transient",
                    reason="invalid_response",
                    message=f"{told}: {reply.body[:300].decode('utf-8', 'replace')}",
                    status=200,
                    request_id=reply.headers.get("x-request-id"),
                    unknown=True,
                )
            )

    def _cost(self, request: Request, result: Received | Failure, ticket: _Ticket) -> int | None:
        if isinstance(result, Failure):
            return (ticket.money if self._purses else None) if result.unknown else 0
        answer = result.answer
        model = answer.model or str(request.body.get("model", ""))
        asked = str(request.body.get("model", ""))
        cost: int | None = None
        for name in dict.fromkeys((asked, model)):
            cost = self._prices.cost(
                name, answer.usage, pictures=len(answer.choices) if request.pictures else 0, tier=answer.service_tier
            )
            if cost is not None:
                break
        return ticket.money if cost is None and self._purses else cost

    def _settle(self, ticket: _Ticket, cost: int | None) -> None:
        for purse in self._purses:
            purse.settle(ticket.money, cost)
        self._progress.cost += cost or 0

    def _learn(self, request: Request, result: Received | Failure, ticket: _Ticket, started: float) -> None:
        """Tell the governor and the token bucket what came back."""
        if isinstance(result, Failure):
            if result.reason == "server" or result.meaning in ("network", "timeout"):
                self._governor.failed(probe=ticket.probe, answered=result.status is not None)
                return
            self._governor.spoke()
            if result.meaning == "throttled":
                self._governor.throttled(started, result.retry_after, result.ceiling)
            return
        self._governor.spoke()
        self._governor.succeeded()
        usage = result.answer.usage
        self._progress.tokens += (usage.input_tokens or 0) + (usage.output_tokens or 0)
        if self._tokens:
            self._tokens.settle(ticket.tokens, request.input_bound, usage.input_tokens, usage.output_tokens)

    async def _answered(self, work: _Work, received: Received, attempt: Attempt) -> None:
        self._seen.answers = SAME_REFUSALS
        outcome = self._outcome(work, attempt.elapsed, received=received, attempt=attempt)
        await self._ledger.outcome(outcome, attempt)
        ended = received.answer.ended or received.answer.finish_reason in self._rules.accept
        self._progress.done += ended
        self._progress.incomplete += not ended
        self._check_failures()
        if self._why is None:
            following = await self._next_of(work.thread)
            if following is not None:
                self._ready.append(following)
                self._changed.set()

    async def _failed(self, work: _Work, failure: Failure, attempt: Attempt) -> None:
        self._progress.reasons[failure.reason] = self._progress.reasons.get(failure.reason, 0) + 1
        failure = self._own(failure)
        if failure.meaning == "account":
            await self._ledger.attempt(work.request, attempt)
            self.stop(AccountError(_account(failure, self._host, work.request)))
            return
        if (failure.retry_after or 0) > LONGEST_WAIT:
            await self._ledger.attempt(work.request, attempt)
            self.stop(LimitError(f"{self._host} asks to wait {failure.retry_after:.0f} s; run again later"))
            return
        if failure.meaning != "throttled" and self._governor.state != "closed":
            work.spent += 1
        if self._why is not None and failure.meaning != "row":
            await self._ledger.attempt(work.request, attempt)
        elif self._policy.again(failure, work.spent):
            await self._ledger.attempt(work.request, attempt)
            self._wait(work, failure)
        else:
            await self._ledger.outcome(self._outcome(work, attempt.elapsed, failure=failure), attempt)
            self._count_failure(failure)

    def _own(self, failure: Failure) -> Failure:
        """A wrong model or tier that the row itself chose is the row's failure."""
        own = {"model": self._rules.own_model, "service_tier": self._rules.own_tier}
        return replace(failure, meaning="row") if own.get(failure.reason) else failure

    def _wait(self, work: _Work, failure: Failure) -> None:
        work.ready_at = self._clock() + self._policy.wait(failure, work.spent)
        work.failure = failure
        self._progress.retries += 1
        heapq.heappush(self._waiting, (work.ready_at, next(self._order), work))
        self._changed.set()

    def _count_failure(self, failure: Failure) -> None:
        self._progress.failed += 1
        self._check_failures()
        self._seen.answers += 1
        self._seen.refusals.add((failure.status, failure.code))
        if self._seen.answers == SAME_REFUSALS and len(self._seen.refusals) == 1 and failure.meaning == "row":
            told = f"HTTP {failure.status}" if failure.status else failure.reason
            self.stop(
                AccountError(
                    f"the first {SAME_REFUSALS} answers of {self._host} were all the same refusal ({told}:"
                    f" {failure.message}); mend the job's request or provider and run again"
                )
            )

    def _check_failures(self) -> None:
        left = self._rules.failures_left
        if left is not None and self._progress.failed + self._progress.incomplete > left:
            self.stop(LimitError("more rows failed than max_failures allows; see errors.csv, mend, and run again"))

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

    async def _watch(self) -> None:
        """Once a second: is it time to stop, and was the whole process stopped for a while?"""
        due = self._clock()
        while True:
            due += 1.0
            await asyncio.sleep(max(0.0, due - self._clock()))
            now = self._clock()
            if now - due > STALLED:
                self._forgive(now - due)
                due = now
            self._check_time(now)

    def _forgive(self, seconds: float) -> None:
        """The process was stopped and continued: its deadlines move by as much."""
        self._governor.last_success += seconds
        for deadline in self._deadlines:
            when = deadline.when()
            if when is not None:
                deadline.reschedule(when + seconds)

    def _check_time(self, now: float) -> None:
        rules, governor = self._rules, self._governor
        self._progress.waiting_for = self._hindrance()
        if self._why is not None:
            return
        if rules.max_time is not None and now - self._began > rules.max_time:
            self.stop(LimitError(f"limits.max_time ({rules.max_time:g} s) is over; run again to go on"))
        elif governor.first_failure is None:
            return
        elif not governor.answered and now - governor.first_failure > NEVER_ANSWERED:
            told = self._last_failure()
            self.stop(AccountError(f"{self._host} never answered ({told}); check provider.base_url and the network"))
        elif now - governor.last_success > rules.give_up and self._waiting:
            told = self._last_failure()
            self.stop(
                LimitError(f"nothing got through for {rules.give_up:g} s (retry.give_up; {told}); run again later")
            )

    def _last_failure(self) -> str:
        failures = [work.failure.message for _, _, work in self._waiting if work.failure]
        return failures[-1] if failures else "no connection"

    def _hindrance(self) -> str:
        if self._why is not None:
            return "in-flight calls to end"
        if self._governor.state == "closed":
            return "the server (outage)"
        return "the server's rate limit" if self._governor.state == "slowed" else self._queue


async def _all(workers: list[asyncio.Task[None]]) -> None:
    """Wait for every worker; the first that raises ends the wait."""
    done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    for worker in done:
        if not worker.cancelled():
            worker.result()


async def _parse(body: bytes) -> Any:
    if len(body) > LARGE_REPLY:
        return await asyncio.to_thread(json.loads, body)
    return json.loads(body)


def _audit(result: Received | Failure, reply: Reply | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {
            "status": result.status,
            "code": result.code,
            "reason": result.reason,
            "request_id": result.request_id,
        }
    assert isinstance(reply, Reply)
    usage = result.answer.usage
    return {
        "status": 200,
        "request_id": reply.headers.get("x-request-id"),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }


def affordable(concurrency: int) -> int:
    """The workers that the file-descriptor limit allows, after raising it as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = concurrency + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return max(1, min(concurrency, soft - OWN_FILES))
    return concurrency


_ACCOUNT = {
    "key": "{host} refused the key: {message}; check the variable that provider.api_key_env names",
    "quota": "the account's quota or budget is used up: {message}; top it up or raise it",
    "permission": "{host} does not permit this: {message}; check the key's project, region and permissions",
    "model": "the model {model!r} does not exist at {host} or is not for this key: {message}; mend request.model",
    "redirect": "{host} redirects elsewhere, and batchgen sends prompts nowhere else; set provider.base_url",
    "service_tier": "{host} refused request.service_tier: {message}",
}


def _account(failure: Failure, host: str, request: Request) -> str:
    text = _ACCOUNT[failure.reason].format(host=host, message=failure.message, model=request.body.get("model"))
    return f"{text}, then run again"
