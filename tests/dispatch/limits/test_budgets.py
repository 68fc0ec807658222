"""Budgets of money and of retries are never exceeded."""

from __future__ import annotations

import asyncio
import random

from virtual import (
    Run,
    answer,
    failure,
    now,
    request,
    requests,
    simulate,
    virtually,
)

from batchgen.dispatch import Failure
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.limits.budgets import RetryBudget
from batchgen.errors import LimitError
from batchgen.requests import Request

COST = 200_000  # nano-dollars that one of `requests` may cost: 100 + 100 tokens at $1 a million


def test_money_in_flight_never_passes_the_cap() -> None:
    """P25 Spent money plus reservations at their worst never exceed the cap."""
    dice = random.Random(5)
    spent = most = 0

    async def answering(request: Request, n: int) -> Reply | Failure:
        nonlocal spent, most
        most = max(most, spent + run.in_flight * COST)
        await asyncio.sleep(dice.uniform(0.1, 5))
        kind = dice.random()
        if kind < 0.2:
            spent += COST
            return failure("network", "reset", may_be_billed=True)
        if kind < 0.3:
            return failure("row", "bad_request")
        spent += 150_000
        return answer(usage={"prompt_tokens": 50, "completion_tokens": 100})

    run = Run()
    simulate(requests(200), answering, run=run, caps=[20 * COST, 40 * COST], concurrency=64)
    assert isinstance(run.why, LimitError)
    assert "limits.max_cost" in str(run.why)
    assert spent <= most <= 20 * COST
    # No more is left than what one more call could cost.
    assert 20 * COST - spent < COST


def test_a_call_that_nobody_can_bound_is_not_sent() -> None:
    """P25 Under a cap, a request without a price or a bound stops the job.

    It does so even if the bound was known when the row was staged.
    """
    rows = [*requests(3), request("r3", body={"model": "unknown", "messages": []})]
    run = simulate(rows, lambda request, n: answer(), caps=[10**12], concurrency=1)
    assert [name for _, name, _ in run.calls] == ["r0", "r1", "r2"]
    assert isinstance(run.why, LimitError)
    assert "pricing.unknown" in str(run.why)


def test_the_last_cent_is_spent() -> None:
    """P25 A cap that is exactly enough is enough."""
    run = simulate(requests(20), lambda request, n: answer(), caps=[20 * COST])
    assert (run.why, len(run.answered)) == (None, 20)
    assert run.reserved == [COST] * 20


def test_the_retries_saved_up_are_bounded() -> None:
    """P21 Hours without failures do not permit thousands of retries at once."""
    time = 0.0
    budget = RetryBudget(lambda: time)
    for _ in range(100_000):
        budget.first_attempt()
    time = 7200.0
    taken = 0
    while not budget.empty_for():
        budget.take()
        taken += 1
    assert taken <= 100


def test_retries_are_paid_from_a_rate() -> None:
    """P21 In a storm, retries are at most 20 % of the rows + 10 + one a second.

    First attempts do not wait for them.
    """
    dice = random.Random(6)

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(0.2)
        return failure() if dice.random() < 0.5 else answer()

    run = simulate(requests(500), answering, concurrency=16, attempts=100)
    assert run.why is None
    retried = 0
    firsts = 0
    for at, _, number in run.calls:
        retried += number > 1
        firsts += number == 1
        assert retried <= 10 + 0.2 * firsts + (at - run.began) + 1e-3


def test_an_empty_budget_delays_and_fills() -> None:
    """There are ten retries at once, then one a second and 0.2 for each first attempt."""

    async def run() -> None:
        budget = RetryBudget(now)
        for _ in range(10):
            assert budget.empty_for() == 0
            budget.take()
        assert 0.9 < budget.empty_for() <= 1
        for _ in range(5):
            budget.first_attempt()
        assert budget.empty_for() < 0.01

    virtually(run())
