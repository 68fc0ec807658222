"""What the online backend does with each failure, and when it stops: in virtual time, the client's
answers scripted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from virtual import (
    Run,
    VirtualLoop,
    answer,
    failure,
    now,
    request,
    requests,
    simulate,
    throttled,
    virtually,
    work,
)

from batchgen.dispatch import Failure, Wait
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.online.backend import OnlineBackend
from batchgen.dispatch.online.work import WAITING_PER_WORKER
from batchgen.errors import (
    AccountError,
    BatchgenError,
    LimitError,
    OutputError,
    RunInterruptedError,
)
from batchgen.requests import Request

TIMEOUT = failure("timeout", "timeout", may_be_billed=True)
REFUSED = failure("network", "refused")
INVALID = failure("transient", "invalid_response", status=200, may_be_billed=True)


async def soon(request: Request, n: int) -> Reply | Failure:
    await asyncio.sleep(0.5)
    return answer()


def beside(poison: Failure, **parts: Any) -> Run:
    """One row that always fails like this, among fifty that are answered."""
    rows = requests(50)

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(1)
        return poison if request.id == "r9" else answer()

    return simulate(rows, answering, concurrency=2, **parts)


# -- attempts by class -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poison", "calls"),
    [
        (failure(), 6),
        (failure("network", "reset", may_be_billed=True), 6),
        (REFUSED, 6),
        (TIMEOUT, 2),
        (INVALID, 6),
        (failure("row", "bad_request"), 1),
        (failure("row", "policy"), 1),
        (failure("row", "invalid_response", status=200), 1),
    ],
)
def test_attempts_by_class(poison: Failure, calls: int) -> None:
    """P18 Transient failures spend the row's attempts, junk too, a time-out two, a refusal one; the
    others are answered."""
    run = beside(poison)
    assert run.why is None
    assert len(run.answered) == 49
    outcome = run.outcomes["r9"]
    assert (outcome.failure, outcome.attempts, len(run.attempts["r9"])) == (poison, calls, calls)


def test_every_attempt_is_told() -> None:
    """P46 One attempt a call, numbered, with its wait and its elapsed seconds."""
    run = simulate(
        requests(1),
        lambda request, n: answer() if n == 3 else failure(request_id=f"q{n}", code="c"),
    )
    attempts = run.attempts["r0"]
    assert [attempt.number for attempt in attempts] == [1, 2, 3]
    assert [(attempt.status, attempt.code, attempt.request_id) for attempt in attempts] == [
        (500, "c", "q1"),
        (500, "c", "q2"),
        (200, None, None),
    ]
    assert run.outcomes["r0"].attempts == 3


@pytest.mark.parametrize(
    "reason", ["key", "quota", "permission", "model", "redirect", "service_tier"]
)
def test_an_account_failure_stops_the_job(reason: str) -> None:
    """P23 A bad key or an exhausted quota stops the job within what is in flight; the rest stays
    pending; exit 4."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(1)
        return failure("account", reason, status=401)

    run = simulate(requests(100), answering, concurrency=8)
    assert isinstance(run.why, AccountError)
    assert "host.test" in str(run.why) or reason in ("quota", "redirect", "service_tier")
    assert len(run.calls) == 8
    assert (run.outcomes, run.unsent) == ({}, {})
    assert len(run.attempts) == 8


def test_a_quota_that_ends_midway_keeps_what_was_answered() -> None:
    """P23 Calls in flight end, and their answers are recorded."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(1 + int(request.id[1:]) % 4)
        return failure("account", "quota", status=429) if request.id == "r20" else answer()

    run = simulate(requests(100), answering, concurrency=8)
    assert isinstance(run.why, AccountError)
    assert len(run.answered) == len(run.calls) - 1
    assert not run.failed


@pytest.mark.parametrize("name", ["model", "service_tier"])
def test_a_model_that_the_row_chose_fails_the_row(name: str) -> None:
    """P23 A wrong model or tier out of a template is the row's fault, not the job's."""
    chosen = {name: "{{ column }}"}
    run = beside(failure("account", name, status=404), request=chosen)
    assert run.why is None
    assert run.failed == {"r9"}
    assert len(run.calls) == 50


def test_retries_wait_longer_each_time_and_obey_the_server() -> None:
    """P22 A Retry-After is the least that a row waits."""
    run = simulate(
        requests(1), lambda request, n: answer() if n == 3 else failure(retry_after=90.0)
    )
    times = [at for at, _, _ in run.calls]
    assert times[1] - times[0] >= 90
    assert times[2] - times[1] >= 90


# -- what stops a job ------------------------------------------------------------------------------


def test_the_first_answers_all_the_same_refusal() -> None:
    """P23 Twenty refusals, all alike and nothing else, mean that the job is wrong: 4, and its rows
    wait for it to be mended, those that were in flight meanwhile too."""

    async def refusing(request: Request, n: int) -> Failure:
        await asyncio.sleep(1)
        return failure("row", "not_found", status=404)

    for concurrency in (1, 64):
        run = simulate(requests(500), refusing, concurrency=concurrency)
        assert isinstance(run.why, AccountError)
        assert "20 requests in a row" in str(run.why)
        assert 20 <= len(run.calls) < 20 + 2 * concurrency
        assert not run.failed


def test_a_login_page_stops_the_job() -> None:
    """P18 A proxy that answers everything with a page is a refusal, too."""
    run = simulate(requests(500), lambda request, n: INVALID, concurrency=1, max_wait=1.0)
    assert isinstance(run.why, AccountError)
    assert len({name for _, name, _ in run.calls}) <= 24
    assert not run.failed


def test_unlike_refusals_do_not_stop_the_job() -> None:
    """P23 Rows may be refused for reasons of their own."""

    def unlike(request: Request, n: int) -> Reply | Failure:
        return failure("row", "bad_request", code="a" if request.id in ("r9", "r29") else "b")

    assert simulate(requests(48), unlike, concurrency=1).why is None


def test_rows_that_were_never_sent_are_no_refusals() -> None:
    """P23 Rows that are too large for the job's own limit wait for another; the host is not
    blamed."""
    run = simulate(
        [request(f"r{n}", answer_bound=9999) for n in range(30)], soon, tokens_per_minute=1000
    )
    assert isinstance(run.why, LimitError)
    assert not run.calls
    assert not run.failed


@pytest.mark.parametrize("left", [0, 3])
def test_max_failures(left: int) -> None:
    """P17 One more failed or incomplete row than allowed stops the job with 5; exactly as many do
    not."""
    cut = Reply(
        headers={}, body=b'{"choices": [{"message": {"content": "ye"}, "finish_reason": "length"}]}'
    )

    def answering(request: Request, n: int) -> Reply | Failure:
        bad = int(request.id[1:]) % 10
        return failure("row", "policy") if bad == 3 else cut if bad == 5 else answer()

    run = simulate(requests(100), answering, concurrency=1, failures_left=left)
    assert isinstance(run.why, LimitError)
    assert "max_failures" in str(run.why)
    assert (
        sum(1 for outcome in run.outcomes.values() if not (outcome.answer and outcome.answer.ended))
        == left + 1
    )
    assert simulate(requests(100), answering, concurrency=1, failures_left=20).why is None
    again = simulate(requests(100), answering, concurrency=4, failures_left=-1)
    assert isinstance(again.why, LimitError)
    assert not again.calls


def test_max_time() -> None:
    """P17 When its time is over the job drains and stops with 5."""
    run = simulate(requests(1000), soon, concurrency=2, max_time=60.0)
    assert isinstance(run.why, LimitError)
    assert "max_time" in str(run.why)
    assert 60 <= run.ended - run.began <= 63
    assert len(run.answered) == len(run.calls)


@pytest.mark.parametrize("meaning", ["throttled", "transient"])
def test_a_server_that_asks_for_too_long_a_wait(meaning: str) -> None:
    """P22 Above ten minutes the job stops with 5, the row pending; a refusal's Retry-After means
    nothing."""
    run = simulate(requests(10), lambda request, n: failure(meaning, "x", retry_after=1e9))
    assert isinstance(run.why, LimitError)
    assert not run.failed
    refused = simulate(requests(10), lambda request, n: failure("row", "policy", retry_after=1e9))
    assert (refused.why, len(refused.failed)) == (None, 10)


@pytest.mark.parametrize("wait", [1.0, None, 300.0])
def test_throttled_for_ever_gives_up(wait: float | None) -> None:
    """P24 Nothing but 429s for give_up: 5, whatever the server says of waiting."""
    run = simulate(requests(50), lambda request, n: throttled(retry_after=wait))
    assert isinstance(run.why, LimitError)
    assert "give_up" in str(run.why)
    assert 900 <= run.ended - run.began <= 920
    assert len(run.calls) <= 60
    # Throttling says nothing of a row: it is pending, and no run of three is counted against it.
    assert not run.failed


def test_slow_limits_and_slow_answers_are_no_trouble() -> None:
    """P24 Give_up counts from a failure on, not from the last answer."""

    async def slowly(request: Request, n: int) -> Reply:
        await asyncio.sleep(500)
        return answer()

    run = simulate(requests(6), slowly, requests_per_minute=0.1, give_up=60.0)
    assert (run.why, len(run.answered)) == (None, 6)


# -- outages ---------------------------------------------------------------------------------------


class Outage:
    """A server that is down from `start` to `end` (seconds of the run)."""

    def __init__(self, how: Failure, start: float, end: float) -> None:
        self._how, self._start, self._end = how, start, end

    async def __call__(self, request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(0.3)
        return self._how if self._start <= now() - 1000 < self._end else answer()


@pytest.mark.parametrize(
    "how", [failure(), REFUSED, failure("network", "reset", may_be_billed=True)]
)
def test_an_outage_is_probed_and_passes(how: Failure) -> None:
    """P24 At most one probe per interval, the intervals growing to 30 s, no attempts spent, and the
    job goes on by itself."""
    run = simulate(requests(400), Outage(how, 10, 310), concurrency=8, attempts=3)
    assert (run.why, len(run.answered)) == (None, 400)
    probes = [at - 1000 for at, _, _ in run.calls if 13 < at - 1000 < 310]
    gaps = [later - earlier for earlier, later in pairwise(probes)]
    assert all(later >= earlier for earlier, later in pairwise(gaps) if earlier < 29)
    assert len(probes) <= 16
    assert 30 <= max(gaps) <= 32


def test_calls_sent_before_an_outage_are_no_probes() -> None:
    """P24 Failures of calls that were on their way do not lengthen the interval."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        number = int(request.id[1:])
        await asyncio.sleep(0.5 + number / 10)
        return answer() if n > 1 or number == 0 else failure()

    run = simulate(requests(40), answering, concurrency=40)
    assert (run.why, len(run.answered)) == (None, 40)
    # All first calls fail within four seconds. Were each a probe, the interval would then be 30 s.
    second = min(at for at, _, number in run.calls if number == 2)
    assert second - run.began < 10


def test_a_host_that_never_answered() -> None:
    """P24 4 after 30 s, named."""
    run = simulate(requests(50), lambda request, n: failure("network", "dns"), concurrency=8)
    assert isinstance(run.why, AccountError)
    assert "host.test never answered (dns)" in str(run.why)
    assert 30 <= run.ended - run.began <= 35
    assert not run.failed


def test_a_slow_first_answer_is_waited_for() -> None:
    """P24 One lost call says nothing of a host whose other calls still wait for their answers."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        if request.id == "r0" and n == 1:
            return failure("network", "reset", may_be_billed=True)
        await asyncio.sleep(120)
        return answer()

    run = simulate(requests(20), answering, concurrency=4)
    assert (run.why, len(run.answered)) == (None, 20)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (REFUSED, "cannot reach host.test (connection refused)"),
        (
            failure("network", "unreachable", message="network is unreachable"),
            "cannot reach host.test (network is unreachable)",
        ),
        (
            failure("network", "dns"),
            "cannot reach host.test (its name cannot be resolved)",
        ),
        (failure("network", "reset"), "host.test fails (reset)"),
        (failure(), "host.test fails (server)"),
    ],
)
def test_an_outage_says_whose_it_is(how: Failure, words: str) -> None:
    """P24 The progress line tells an outage of one's own network from one of the server."""
    shown: list[Wait | None] = []

    async def during(backend: OnlineBackend) -> None:
        await asyncio.sleep(60)
        shown.append(backend._progress.wait)

    simulate(requests(400), Outage(how, 10, 120), concurrency=8, during=during)
    (wait,) = shown
    assert wait is not None
    assert (wait.reason, wait.cause in ("no connection", "outage")) == (words, True)
    assert wait.until is not None
    assert wait.until > time.time()


def test_an_outage_without_end_gives_up() -> None:
    """P24 After give_up without any success the job stops with 5; what the network failed stays
    pending."""
    run = simulate(requests(400), Outage(REFUSED, 10, 1e9), concurrency=8)
    assert isinstance(run.why, LimitError)
    assert "give_up" in str(run.why)
    assert 905 <= run.ended - run.began <= 945
    assert not run.failed


def test_a_poison_row_fails_after_its_attempts() -> None:
    """P11 A row that the server always fails ends, although as many of its like as make an outage
    are left at the end."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(0.3)
        return failure() if int(request.id[1:]) % 10 == 0 else answer()

    run = simulate(requests(400), answering, concurrency=16)
    assert run.why is None
    assert (len(run.answered), len(run.failed)) == (360, 40)
    assert {run.outcomes[name].attempts for name in run.failed} <= set(range(6, 9))


def test_poison_rows_alone_end_after_runs_that_gave_up() -> None:
    """P11 With nothing else to send, a run gives up with 5, and the rows that the server failed
    have failed in it."""
    # How many rows are tried depends on the random part of each back-off.
    random.seed(1)
    run = simulate(requests(20), lambda request, n: failure(), concurrency=4)
    assert isinstance(run.why, LimitError)
    tried = {name for _, name, _ in run.calls}
    assert len(tried) >= 8
    assert set(run.unsent) | set(run.outcomes) == tried
    assert not set(run.unsent) & set(run.outcomes)


def test_faults_and_an_outage_together() -> None:
    """P24 Thirty per cent of random faults and an outage in the middle: every row ends, most of
    them answered."""
    dice = random.Random(3)
    outage = Outage(REFUSED, 20, 200)

    async def answering(request: Request, n: int) -> Reply | Failure:
        result = await outage(request, n)
        return failure() if isinstance(result, Reply) and dice.random() < 0.3 else result

    run = simulate(requests(600), answering, concurrency=16, attempts=10)
    assert run.why is None
    assert len(run.answered) >= 595
    assert len(run.answered) + len(run.failed) == 600


# -- the stream, stopping --------------------------------------------------------------------------


def test_few_rows_wait_for_a_retry() -> None:
    """P31 At most 4 x concurrency rows wait; fresh ones are not begun before."""
    begun = 0

    def rows() -> Any:
        nonlocal begun
        for row in requests(500):
            begun += 1
            yield row

    async def peek(backend: OnlineBackend) -> None:
        while True:
            await asyncio.sleep(0.1)
            assert len(backend._queue) <= WAITING_PER_WORKER * 4 + 4
            assert begun - len(run.outcomes) <= WAITING_PER_WORKER * 4 + 8

    dice = random.Random(1)

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(0.1)
        return failure("network", "reset") if dice.random() < 0.6 else answer()

    run = Run()
    simulate(rows(), answering, run=run, during=peek, concurrency=4, attempts=100)
    assert (run.why, len(run.answered)) == (None, 500)


def test_stop_drains_what_is_in_flight() -> None:
    """P14 No new call after stop; what is in flight ends and is recorded; a retry is not begun."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(5)
        return failure() if request.id == "r1" else answer()

    async def stop(backend: OnlineBackend) -> None:
        await asyncio.sleep(2)
        backend.stop(RunInterruptedError(2))

    run = simulate(requests(100), answering, during=stop, concurrency=4)
    assert isinstance(run.why, RunInterruptedError)
    assert run.answered == {"r0", "r2", "r3"}
    assert (len(run.calls), len(run.attempts["r1"]), run.failed) == (4, 1, set())


def test_stop_with_a_drain_abandons_what_hangs() -> None:
    """P14 P46 After 25 s what has not ended is left, and is on record; a second stop leaves it at
    once."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(10 if request.id == "r0" else 500)
        return answer()

    async def twice(backend: OnlineBackend) -> None:
        await asyncio.sleep(2)
        backend.stop(RunInterruptedError(15), drain=25.0)

    run = simulate(requests(100), answering, during=twice, concurrency=4)
    assert run.answered == {"r0"}
    assert 27 <= run.ended - run.began <= 28
    assert [attempt.reason for name in ("r1", "r2", "r3") for attempt in run.attempts[name]] == [
        "abandoned"
    ] * 3

    async def at_once(backend: OnlineBackend) -> None:
        await asyncio.sleep(2)
        backend.stop(RunInterruptedError(2))
        await asyncio.sleep(1)
        backend.stop(RunInterruptedError(2), drain=0.0)

    run = simulate(requests(100), answering, during=at_once, concurrency=4)
    assert run.answered == set()
    assert 3 <= run.ended - run.began <= 4


@pytest.mark.parametrize("moment", [0.0, 0.3, 1.0, 4.0, 30.0, 100.0])
@pytest.mark.parametrize(
    "kind",
    [{"requests_per_minute": 6.0}, {"tokens_per_minute": 500.0}, {"caps": [3_000_000]}, {}],
    ids=str,
)
def test_stop_at_any_moment_ends_the_run(moment: float, kind: dict[str, Any]) -> None:
    """P14 Whatever the job waits for: a limit, money, a probe, a retry."""
    dice = random.Random(7)

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(dice.uniform(0.1, 2))
        results: list[Reply | Failure] = [
            failure(),
            throttled(retry_after=3.0),
            REFUSED,
            answer(),
        ]
        return dice.choice(results)

    async def stop(backend: OnlineBackend) -> None:
        await asyncio.sleep(moment)
        backend.stop(RunInterruptedError(2))

    run = simulate(requests(2000), answering, during=stop, concurrency=6, **kind)
    assert isinstance(run.why, BatchgenError)
    assert run.ended - run.began <= moment + 5


def test_a_full_disk_ends_the_run() -> None:
    """P03 What the ledger raises comes out, and no worker is left."""

    async def run() -> None:
        record = Run()

        async def full(*_: object) -> None:
            raise OutputError("no room")

        task = asyncio.create_task(work(requests(50), soon, run=record))
        await asyncio.sleep(0)
        record.backend._recorder.outcome = full
        record.backend._attempts._recorder.outcome = full
        with pytest.raises(OutputError, match="no room"):
            await task
        assert len(asyncio.all_tasks()) == 1

    virtually(run())


def test_conversations_keep_their_order() -> None:
    """P13 A turn is sent when the turn before it was recorded; threads run side by side, begun ones
    first."""
    dice = random.Random(2)
    threads = [[request(f"c{c}t{t}") for t in range(4)] for c in range(12)]

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(dice.uniform(0.1, 3))
        if request.id == "c5t1":
            return failure("row", "policy")
        return failure() if dice.random() < 0.3 else answer()

    run = simulate(threads, answering, concurrency=3, attempts=20)
    assert run.why is None
    assert len(run.answered) == 12 * 4 - 3
    for number in range(12):
        order = [name for _, name, _ in run.calls if name.startswith(f"c{number}t")]
        assert order == sorted(order)
    assert not any(name in ("c5t2", "c5t3") for _, name, _ in run.calls)


def test_a_conversation_goes_on_while_many_wait() -> None:
    """P13 P27 The next turn needs no new row's place."""
    talk = [request(f"t{n}") for n in range(5)]

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(0.1)
        return (
            answer() if request.id.startswith("t") or n > 2 else replace(INVALID, retry_after=100.0)
        )

    run = simulate([talk, *requests(20)], answering, concurrency=2)
    assert run.why is None
    assert len(run.answered) == 25
    assert max(at for at, name, _ in run.calls if name.startswith("t")) - run.began < 30


def test_a_probe_that_cannot_be_sent_is_no_dead_end() -> None:
    """P24 When the probing row's file has changed, another row probes."""

    def answering(request: Request, n: int) -> Reply | Failure:
        since = now() - 1000
        if since < 5:
            return REFUSED if since > 0.5 else answer()
        return (
            failure("row", "input", status=None)
            if n > 1 and request.id in ("r1", "r2", "r3")
            else answer()
        )

    async def later(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(0.4)
        return answering(request, n)

    run = simulate(requests(60), later, concurrency=8, give_up=300.0)
    assert run.why is None
    assert len(run.answered) + len(run.failed) == 60


# -- stopped and continued -------------------------------------------------------------------------


def _stopped_for(seconds: float) -> None:
    """As SIGSTOP and SIGCONT: the clock went on, the process did not."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now += seconds


def test_a_stopped_process_blames_nobody() -> None:
    """P16 Calls whose deadline ran out while the process was stopped get that time back."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        if n > 1:
            return failure("row", "bad_request")
        # The kernel had the answer long ago; the process reads it soon after it goes on.
        await asyncio.sleep(20 if request.id == "r1" else 9)
        for _ in range(5):
            await asyncio.sleep(0)
        return answer()

    async def stop(backend: OnlineBackend) -> None:
        await asyncio.sleep(5)
        _stopped_for(3600)

    run = simulate(requests(4), answering, during=stop, concurrency=4, timeout=60.0)
    assert (run.why, len(run.answered), len(run.calls)) == (None, 4, 4)


def test_a_stopped_process_does_not_give_up() -> None:
    """P16 Time that the process was stopped counts neither for give_up nor for a host that has not
    answered yet."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(0.1)
        return REFUSED if now() - 1000 < 3620 else answer()

    async def stop(backend: OnlineBackend) -> None:
        await asyncio.sleep(10)
        _stopped_for(3600)

    run = simulate(requests(20), answering, during=stop)
    assert (run.why, len(run.answered)) == (None, 20)


def test_a_stopped_process_does_not_burst() -> None:
    """P16 P26 What was not sent while it was stopped is not made up for."""

    async def stop(backend: OnlineBackend) -> None:
        await asyncio.sleep(30)
        _stopped_for(300)

    run = simulate(requests(200), soon, during=stop, requests_per_minute=60)
    after = [at for at, _, _ in run.calls if at - run.began > 320]
    assert after[10] - after[0] >= 9


def test_a_deadline_ends_a_call_that_hangs() -> None:
    """P19 By the wall clock, and the row has two of them."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(1e6 if request.id == "r3" else 1)
        return answer()

    run = simulate(requests(20), answering, timeout=30.0)
    failed = run.outcomes["r3"].failure
    assert failed is not None
    assert (failed.meaning, failed.may_be_billed, len(run.attempts["r3"])) == ("timeout", True, 2)
    assert all(29 <= attempt.elapsed <= 31 for attempt in run.attempts["r3"])


def test_a_broken_stream_of_rows_is_no_silence() -> None:
    """P03 What the stream raises comes out of the run."""

    def broken() -> Iterator[Request]:
        yield from requests(3)
        raise OutputError("damaged")

    with pytest.raises(OutputError, match="damaged"):
        simulate(broken(), soon)


@pytest.mark.parametrize("last", [failure(retry_after=3600.0), throttled(retry_after=3600.0)])
def test_the_attempt_that_stops_the_job_is_told(last: Failure) -> None:
    """P46 An attempt whose Retry-After means "come back later" is on record like any other; its row
    stays pending."""
    run = simulate(requests(1), lambda request, n: last)
    assert isinstance(run.why, LimitError)
    assert [attempt.number for attempt in run.attempts["r0"]] == [1]
    assert (run.outcomes, run.unsent) == ({}, {})


def test_an_answer_of_unknown_cost_counts_at_its_worst() -> None:
    """P25 Under a cap an answer that does not say what it took is on record with all that was
    reserved for it."""
    run = simulate(requests(1), lambda request, n: answer(), caps=[10**9])
    assert [attempt.cost for attempt in run.attempts["r0"]] == run.reserved
    assert run.reserved[0] > 0
    assert run.outcomes["r0"].cost == run.reserved[0]
