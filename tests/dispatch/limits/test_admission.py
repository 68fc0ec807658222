"""Admission in virtual time: limits hold where calls are sent, and nothing starves."""

from __future__ import annotations

import asyncio
import random

import pytest
import virtual
from virtual import (
    PRICES,
    answer,
    failure,
    fullest,
    now,
    request,
    requests,
    simulate,
    throttled,
    virtually,
)

from batchgen.dispatch import Failure
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.limits.admission import Admission
from batchgen.dispatch.limits.budgets import CostBudget
from batchgen.dispatch.limits.spending import Spending
from batchgen.errors import LimitError
from batchgen.requests import Request


async def slowly(request: Request, n: int) -> Reply:
    await asyncio.sleep(2 + len(request.id) % 3)
    return answer()


@pytest.mark.parametrize(
    ("limits", "units"),
    [
        ({"requests_per_minute": 30}, lambda request: 1),
        ({"images_per_minute": 20}, lambda request: request.pictures),
        (
            {"tokens_per_minute": 5000},
            lambda request: request.input_bound * 0.25 + request.answer_bound,
        ),
    ],
)
def test_the_whole_backend_keeps_its_limits(limits: dict[str, float], units: object) -> None:
    """P26 No window exceeds a limit, retries included, nor does concurrency.

    Calls are recorded at the moment of sending.
    """
    dice = random.Random(2)
    rows = [
        request(f"r{n}", answer_bound=dice.randint(1, 2000), pictures=dice.randint(1, 10))
        for n in range(80)
    ]
    by_id = {row.id: row for row in rows}

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(dice.uniform(0.1, 20))
        return failure() if n == 1 and dice.random() < 0.3 else answer()

    run = simulate(rows, answering, concurrency=16, **limits)
    assert run.why is None
    assert len(run.answered) == 80
    sent = [(at, units(by_id[name])) for at, name, _ in run.calls]  # type: ignore[operator]
    assert fullest(sent) <= next(iter(limits.values())) * (1 + 1e-9)
    assert run.most <= 16


def test_a_gate_between_taking_and_sending_moves_no_window() -> None:
    """P26 A request delayed by Retry-After counts from when it was sent, not from its admission."""

    def answering(request: Request, n: int) -> Reply | Failure:
        return throttled(retry_after=50.0) if request.id == "r0" and n == 1 else answer()

    run = simulate(requests(40), answering, requests_per_minute=10, concurrency=4)
    assert fullest([(at, 1) for at, _, _ in run.calls]) <= 10


def test_a_slow_disk_moves_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """P26 Calls whose reservation was slow to become durable count where they were sent.

    Later calls take them into account.
    """

    class Slow(virtual.Memory):
        async def reserve(self, request: Request, number: int, at: float, cost: int) -> None:
            await asyncio.sleep(max(0.0, 1020 - now()))

    async def answering(request: Request, n: int) -> Reply:
        await asyncio.sleep(0.2)
        return answer()

    monkeypatch.setattr(virtual, "Memory", Slow)
    run = simulate(
        requests(300), answering, caps=[10**15], concurrency=300, requests_per_minute=120
    )
    assert len(run.answered) == 300
    assert fullest([(at, 1) for at, _, _ in run.calls]) <= 120


def test_a_slow_disk_costs_no_part_of_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """P26 A call that is delayed before it is sent counts once, where it is sent.

    A limit is used to 95 % all the same.
    """

    class Slow(virtual.Memory):
        async def reserve(self, request: Request, number: int, at: float, cost: int) -> None:
            await asyncio.sleep(0.2)

    monkeypatch.setattr(virtual, "Memory", Slow)
    run = simulate(
        requests(1800), lambda request, n: answer(), caps=[10**15], requests_per_minute=600
    )
    assert fullest([(at, 1) for at, _, _ in run.calls]) <= 600
    assert run.ended - run.began <= 180 / 0.95


def test_a_request_larger_than_a_minute_is_left_out() -> None:
    """P27 A request that would wait for ever stays pending, and the others are sent.

    The run ends with exit code 5 and the limit's name.
    """
    rows = [request("big", answer_bound=10_000, pictures=9), *requests(3)]
    for limits in ({"tokens_per_minute": 5000}, {"images_per_minute": 8}):
        run = simulate(rows, slowly, **limits)
        assert isinstance(run.why, LimitError)
        assert f"limits.{next(iter(limits))}" in str(run.why)
        assert (len(run.answered), run.failed) == (3, set())


def test_admission_is_first_in_first_out() -> None:
    """P27 Small requests do not overtake a large one that waits."""
    dice = random.Random(3)
    rows = [request(f"r{n}", answer_bound=dice.choice((10, 4000))) for n in range(60)]
    run = simulate(rows, slowly, tokens_per_minute=20_000, concurrency=32)
    assert [name for _, name, _ in run.calls] == [row.id for row in rows]


def test_nothing_starves_under_faults() -> None:
    """P27 With 30 % random faults and very unequal prompts, every row ends."""
    dice = random.Random(4)
    rows = [request(f"r{n}", answer_bound=dice.choice((10, 20_000))) for n in range(300)]
    faults = (
        failure(),
        throttled(retry_after=0.5),
        failure("network", "reset", may_be_billed=True),
    )

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(dice.uniform(0.1, 3))
        return dice.choice(faults) if dice.random() < 0.3 else answer()

    run = simulate(rows, answering, tokens_per_minute=400_000, concurrency=32, attempts=20)
    assert run.why is None
    assert len(run.answered) == 300


def test_three_faults_in_ten_calls_leave_no_row_unanswered() -> None:
    """P21 P27 With faults in three of ten calls and six attempts, nearly every row is answered.

    The others have failed in passing, and the next run answers them.
    """
    dice = random.Random(6)
    junk = failure(reason="invalid_response", status=200, may_be_billed=True)
    faults = (failure(), throttled(), failure("network", "reset", may_be_billed=True), junk)

    def answering(request: Request, n: int) -> Reply | Failure:
        return dice.choice(faults) if dice.random() < 0.3 else answer()

    left, runs = requests(2000), []
    while left:
        run = simulate(left, answering, concurrency=32)
        assert run.why is None
        assert all(
            outcome.answer or (outcome.failure and outcome.failure.is_passing)
            for outcome in run.outcomes.values()
        )
        left = [row for row in left if row.id not in run.answered]
        runs.append(len(left))
    assert runs[0] < 10
    assert len(runs) <= 2


@pytest.mark.parametrize("wait", [None, 1.0, 20.0])
def test_a_row_that_alone_is_throttled_does_not_hold_up_the_others(wait: float | None) -> None:
    """P27 One row that is always throttled costs the others little, whatever its Retry-After.

    It ends as a passing failure after ten attempts.
    """

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(1)
        return throttled(retry_after=wait) if request.id == "r5" else answer()

    run = simulate(requests(2000), answering, concurrency=64)
    last = max(at for at, name, _ in run.calls if name != "r5")
    assert run.why is None
    assert len(run.answered) == 1999
    assert last - run.began < 150
    assert len(run.attempts["r5"]) <= 12
    assert run.outcomes["r5"].failure is not None
    assert run.outcomes["r5"].failure.is_passing


def test_a_model_without_quota_does_not_hold_up_the_others() -> None:
    """P27 A model that throttles every call fails its own rows only.

    The other model's rows are answered as if they were alone.
    """
    rows = [request(f"r{n}", body={"model": "ab"[n % 2], "messages": []}) for n in range(400)]

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(1)
        return throttled(retry_after=5.0) if request.body["model"] == "b" else answer()

    run = simulate(rows, answering, concurrency=64)
    assert len(run.answered) == 200
    last = max(at for at, name, _ in run.calls if name in run.answered)
    assert last - run.began < 60


COST = 200_000  # nano-dollars that one of `requests` may cost: 100 + 100 tokens at $1 a million


def test_two_budgets_reserve_together_or_not_at_all() -> None:
    """P25 When the second budget refuses, the first gives its reservation back."""
    rich, poor = CostBudget(10 * COST, name="rich"), CostBudget(COST, name="poor")

    async def run() -> None:
        admission = Admission(
            requests=None,
            tokens=None,
            pictures=None,
            spending=Spending([rich, poor]),
            prices=PRICES,
            clock=now,
        )
        permit = await admission.admit(request("a"))
        admission.settle(permit, None)
        with pytest.raises(LimitError, match="poor"):
            await admission.admit(request("b"))
        await rich.reserve(9 * COST)

    virtually(run())


def test_an_admission_that_is_cancelled_gives_its_money_back() -> None:
    """P25 Money that was reserved and never sent is not spent."""

    async def run() -> None:
        budget = CostBudget(3 * COST, name="budget")
        admission = Admission(
            requests=1,
            tokens=None,
            pictures=None,
            spending=Spending([budget]),
            prices=PRICES,
            clock=now,
        )
        admission.settle(await admission.admit(request("a")), 0, answered=True)
        waiting = asyncio.create_task(admission.admit(request("b")))
        await asyncio.sleep(5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await budget.reserve(3 * COST)

    virtually(run())
