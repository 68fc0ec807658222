"""Virtual time: an event loop whose clock jumps to the next timer, and backend runs on it."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any, TypeVar

from batchgen.dispatch import Attempt, Failure, Outcome, Progress, Received
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.api.redaction import Redaction
from batchgen.dispatch.limits.admission import LimiterFactory, own_limiter
from batchgen.dispatch.limits.budgets import CostBudget
from batchgen.dispatch.limits.spending import Spending
from batchgen.dispatch.limits.window import Limiter
from batchgen.dispatch.online.backend import OnlineBackend
from batchgen.errors import BatchgenError
from batchgen.job import Job, Limits, Price
from batchgen.kinds import KINDS
from batchgen.pricing import Prices
from batchgen.requests import Request

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: when nothing is ready, its clock jumps to the next timer."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("deadlock: nothing will ever happen again")
            self._loop.now += timeout
        # Every turn takes a little, as on real clocks: else a limiter that waits for a rounding
        # error would wait for ever.
        self._loop.now += 1e-6
        return events


def virtually(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine run in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


def request(name: str, **parts: Any) -> Request:
    """A chat request."""
    defaults: dict[str, Any] = {
        "fingerprint": name.encode(),
        "endpoint": "/chat/completions",
        "body": {"model": "m", "messages": []},
        "input_bound": 100,
        "answer_bound": 100,
        "pictures": 0,
    }
    return Request(id=name, outcome_id=name, **{**defaults, **parts})


def answer(text: str = "yes", **parts: Any) -> Reply:
    """A real answer."""
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], **parts}
    return Reply(headers={}, body=json.dumps(body).encode())


def failure(meaning: Any = "transient", reason: str = "server", **parts: Any) -> Failure:
    """A failure, by default the server's own error."""
    status = {"transient": 500, "throttled": 429, "row": 400, "account": 401}.get(meaning)
    return Failure(
        **{"meaning": meaning, "reason": reason, "message": reason, "status": status, **parts}
    )


def throttled(**parts: Any) -> Failure:
    """A 429."""
    return failure("throttled", "throttled", **parts)


Answering = Callable[[Request, int], Awaitable[Reply | Failure] | Reply | Failure]


@dataclass
class Run:
    """What a run left.

    calls: (time, id, number of that row's call from 1), in the order of sending.
    attempts, outcomes, unsent: by id.
    reserved: nano-dollars of each call.
    why: what stopped the run.
    most, in_flight: calls in flight at most, and now.
    """

    calls: list[tuple[float, str, int]] = field(default_factory=list)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    unsent: dict[str, Outcome] = field(default_factory=dict)
    reserved: list[int] = field(default_factory=list)
    why: BatchgenError | None = None
    most: int = 0
    in_flight: int = 0
    began: float = 0.0
    ended: float = 0.0
    backend: Any = None

    @property
    def answered(self) -> set[str]:
        return {name for name, outcome in self.outcomes.items() if outcome.answer}

    @property
    def failed(self) -> set[str]:
        return {
            name for name, outcome in {**self.unsent, **self.outcomes}.items() if outcome.failure
        }


class Scripted:
    """A transport that answers with what a function returns."""

    def __init__(self, run: Run, answering: Answering) -> None:
        self._run, self._answering = run, answering
        self._counts: dict[str, int] = {}

    async def post(self, request: Request) -> Reply | Failure:
        self._counts[request.id] = count = self._counts.get(request.id, 0) + 1
        run = self._run
        run.calls.append((now(), request.id, count))
        run.in_flight += 1
        run.most = max(run.most, run.in_flight)
        try:
            result = self._answering(request, count)
            reply = await result if isinstance(result, Awaitable) else result
            return Redaction(None).reply(reply) if isinstance(reply, Reply) else reply
        finally:
            run.in_flight -= 1

    def redact_failure(self, failure: Failure) -> Failure:
        return failure

    def release(self) -> None:
        pass


class Memory:
    """A recorder in memory."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def reserve(self, request: Request, number: int, at: float, cost: int) -> None:
        self._run.reserved.append(cost)

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        return Received(answer=KINDS["chat"].read(body, request.body), reply=reply)

    async def attempt(self, request: Request, attempt: Attempt) -> None:
        self._run.attempts.setdefault(request.id, []).append(attempt)

    def abandoned(self, request: Request, attempt: Attempt) -> None:
        self._run.attempts.setdefault(request.id, []).append(attempt)

    async def outcome(self, outcome: Outcome, attempt: Attempt) -> bool:
        assert outcome.request.id not in self._run.outcomes
        await self.attempt(outcome.request, attempt)
        self._run.outcomes[outcome.request.id] = outcome
        return False

    async def withdraw(self, request: Request) -> None:
        del self._run.outcomes[request.id]

    async def unsent(self, outcome: Outcome) -> None:
        assert outcome.request.id not in self._run.unsent
        self._run.unsent[outcome.request.id] = outcome


class Turns:
    """A thread: each request follows when the one before was answered."""

    def __init__(self, run: Run, requests: Sequence[Request]) -> None:
        self._run, self._left = run, list(requests)
        self._last: Request | None = None

    async def next(self) -> Request | None:
        if self._last is not None and self._last.id not in self._run.answered:
            return None
        self._last = self._left.pop(0) if self._left else None
        return self._last


PRICES = Prices({"m": Price(input=1, output=1)}, "http://localhost/v1")


def job(*, request: Mapping[str, Any] | None = None, **options: Any) -> Job:
    """A job with these options of its sections `limits` and `retry`."""
    limits = {name: value for name, value in options.items() if name in Limits.model_fields}
    retry = {name: value for name, value in options.items() if name not in limits}
    return Job.model_validate(
        {
            "name": "job",
            "kind": "chat",
            "prompts": {"path": "p.csv"},
            "request": {"model": "m", **(request or {})},
            "limits": {"concurrency": 8, **limits},
            "retry": retry,
        }
    )


async def work(
    threads: Iterable[Request | Sequence[Request]],
    answering: Answering,
    *,
    run: Run | None = None,
    caps: Sequence[int] = (),
    spending: Spending | None = None,
    during: Callable[[OnlineBackend], Coroutine[Any, Any, None]] | None = None,
    limiters: LimiterFactory = own_limiter,
    failures_left: int | None = None,
    **options: Any,
) -> Run:
    """Run the backend over requests (a sequence is a conversation).

    caps: nano-dollars that may be spent.
    spending: in place of `caps`.
    during: runs beside the backend.
    options: of the job: see `job`.
    """
    run = Run() if run is None else run
    settings = job(**options)
    backend = OnlineBackend(
        transport=Scripted(run, answering),
        recorder=Memory(run),
        job=settings,
        concurrency=settings.limits.concurrency,
        failures_left=failures_left,
        prices=PRICES,
        spending=spending or Spending([CostBudget(cap, name="limits.max_cost") for cap in caps]),
        progress=Progress(),
        host="host.test",
        limiters=limiters,
        clock=now,
    )
    run.backend = backend

    async def stream() -> AsyncIterator[Turns]:
        for item in threads:
            yield Turns(run, [item] if isinstance(item, Request) else item)

    run.began = now()
    beside = asyncio.ensure_future(during(backend)) if during else None
    try:
        run.why = await backend.run(stream())
    finally:
        run.ended = now()
        if beside:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
    return run


def simulate(
    threads: Iterable[Request | Sequence[Request]], answering: Answering, **parts: Any
) -> Run:
    """`work` in virtual time."""
    run: Run = virtually(work(threads, answering, **parts))
    return run


def requests(count: int, **parts: Any) -> list[Request]:
    """Chat requests r0, r1, ..."""
    return [request(f"r{n}", **parts) for n in range(count)]


def fullest(sent: Sequence[tuple[float, float]]) -> float:
    """The most units in any half-open window of 60 s."""
    most = total = 0.0
    first = 0
    for at, units in sent:
        total += units
        while sent[first][0] <= at - 60:
            total -= sent[first][1]
            first += 1
        most = max(most, total)
    return most


async def taken(limiter: Limiter, amounts: Sequence[float]) -> list[tuple[float, float]]:
    """When each amount was sent by callers that take turns."""
    sent = []
    for amount in amounts:
        await limiter.take(amount)
        limiter.sent(amount)
        sent.append((now(), amount))
    return sent
