"""Caps on what a key may spend in a day and a month, over all jobs of the machine."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual import Run, answer, failure, now, requests, virtually, work

from batchgen.dispatch import Failure
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.limits.key_spending import (
    NAME,
    Cap,
    Owner,
    Period,
    Refusal,
    SpendingStore,
    used,
)
from batchgen.dispatch.limits.shared_budget import SharedBudget
from batchgen.dispatch.limits.spending import Spending
from batchgen.errors import LimitError, OutputError
from batchgen.requests import Request

COST = 200_000  # nano-dollars that one of `requests` may cost: 100 + 100 tokens at $1 a million
DAY = "2026-01-31"
BEGIN = datetime(2026, 1, 31, 23, 0, tzinfo=UTC).timestamp()


def store(folder: Path) -> SpendingStore:
    return SpendingStore(folder / NAME, list)


def cap(amount: int, period: Period = "day") -> Cap:
    return Cap(name=f"limits.max_cost_per_{period}", amount=amount, period=period)


def owner(job: str) -> Owner:
    return Owner(key="k", folder=f"/{job}", job=job)


def budget(
    folder: Path, job: str, *caps: Cap, clock: Callable[[], float] = lambda: BEGIN
) -> SharedBudget:
    return SharedBudget(store(folder), owner(job), caps, warn=pytest.fail, clock=clock)


def lines(folder: Path) -> list[tuple[str, str, int, int]]:
    """Of each job and day what is spent and leased."""
    with closing(sqlite3.connect(folder / NAME)) as connection:
        return connection.execute(
            "SELECT job, day, spent, leased FROM spending ORDER BY job, day"
        ).fetchall()


@pytest.fixture(autouse=True)
def _lines_of_any_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchgen.dispatch.limits.key_spending.KEPT_DAYS", 365_000)


def test_runs_that_race_never_pass_the_cap_together(tmp_path: Path) -> None:
    """P25 What two runs have spent and what their calls in flight may cost stays below the cap of
    the day, and what is left in the end is less than one more call.
    """
    dice, limit = random.Random(7), 40 * COST
    runs = {name: Run() for name in ("one", "two")}
    spent = most = 0

    async def answering(request: Request, n: int) -> Reply | Failure:
        nonlocal spent, most
        most = max(most, spent + sum(run.in_flight for run in runs.values()) * COST)
        await asyncio.sleep(dice.uniform(0.1, 5))
        if dice.random() < 0.1:
            spent += COST
            return failure("network", "reset", may_be_billed=True)
        spent += 50_000
        return answer(usage={"prompt_tokens": 0, "completion_tokens": 50})

    async def race() -> None:
        await asyncio.gather(
            *(
                work(
                    requests(200),
                    answering,
                    run=run,
                    spending=Spending([budget(tmp_path, name, cap(limit))]),
                    concurrency=8,
                )
                for name, run in runs.items()
            )
        )

    virtually(race())
    assert all(isinstance(run.why, LimitError) for run in runs.values())
    assert spent <= most <= limit
    assert limit - spent < 2 * COST


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["one", "two"]), st.booleans(), st.integers(1, 400)), max_size=40
    ),
    limit=st.integers(0, 3000),
)
def test_what_is_spent_and_set_aside_is_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[str, bool, int]], limit: int
) -> None:
    """P25 Whatever runs set aside, spend and give back: the file never counts less than all of it
    together, and never more than the cap.
    """
    folder = tmp_path_factory.mktemp("state")

    async def walk() -> None:
        budgets = {name: budget(folder, name, cap(limit)) for name in ("one", "two")}
        flying: dict[str, list[int]] = {"one": [], "two": []}
        spent = 0
        for name, begins, amount in steps:
            if begins:
                try:
                    await asyncio.wait_for(budgets[name].reserve(amount), 1)
                except (LimitError, TimeoutError):
                    continue
                flying[name].append(amount)
            elif flying[name]:
                reserved = flying[name].pop()
                cost = min(amount, reserved)
                budgets[name].settle(reserved, cost)
                spent += cost
            else:
                await budgets[name].publish()
            counted = used(folder / NAME, "k", "day", DAY) or 0
            assert spent + sum(map(sum, flying.values())) <= counted <= limit

    virtually(walk())


def test_few_calls_need_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run far from its cap leases money for many calls at once."""
    transactions = []
    transact = SpendingStore.transact

    def counting(self: SpendingStore, work: Callable[[sqlite3.Connection], object]) -> object:
        transactions.append(work)
        return transact(self, work)

    monkeypatch.setattr(SpendingStore, "transact", counting)

    async def spend() -> None:
        shared = budget(tmp_path, "one", cap(10_000 * COST))
        for _ in range(1000):
            await shared.reserve(COST)
            shared.settle(COST, COST)

    virtually(spend())
    assert 0 < len(transactions) < 10


def test_days_and_months_end_in_utc(tmp_path: Path) -> None:
    """P25 A cap that is reached says until when, and there is money again after midnight in UTC;
    the cap of a month begins anew with the month, and counts days of it together.
    """
    at = BEGIN

    async def live() -> None:
        nonlocal at
        shared = budget(tmp_path, "one", cap(2 * COST), cap(3 * COST, "month"), clock=lambda: at)

        async def spend() -> None:
            await shared.reserve(COST)
            shared.settle(COST, COST)

        await spend()
        await spend()
        with pytest.raises(LimitError, match=r"per_day is reached.* 2026-02-01 00:00 UTC"):
            await spend()
        at += 3600
        await spend()
        await spend()
        at += 24 * 3600
        await spend()
        with pytest.raises(LimitError, match=r"per_month is reached.*month.* 2026-03-01 00:00 UTC"):
            await spend()

    virtually(live())
    days = ((DAY, 2), ("2026-02-01", 2), ("2026-02-02", 1))
    assert lines(tmp_path) == [("one", day, calls * COST, 0) for day, calls in days]


def test_a_call_counts_on_the_day_on_which_it_leaves(tmp_path: Path) -> None:
    """P25 A call in flight at midnight counts on the day that is over, and the new day begins when
    it has ended; one that still waits for its turn counts on the new day.
    """
    at = BEGIN

    async def live() -> None:
        nonlocal at
        spending = Spending([budget(tmp_path, "one", cap(10 * COST), clock=lambda: at)])
        first = await spending.reserve("m", COST)
        spending.settle(first, COST, answered=True)
        flying, waiting = [await spending.reserve("m", COST) for _ in range(2)]
        at += 3600
        renewal = asyncio.create_task(spending.renew(waiting))
        await asyncio.sleep(5)
        assert not renewal.done()
        spending.settle(flying, COST, answered=True)
        await renewal
        spending.settle(waiting, COST, answered=True)

    virtually(live())
    (_, *old), (_, day, _, leased) = lines(tmp_path)
    assert old == [DAY, 2 * COST, 0]
    assert day == "2026-02-01"
    assert leased >= COST


def test_what_is_not_used_is_given_back(tmp_path: Path) -> None:
    """A run that spends nothing for a while leaves its lease to others."""

    async def live() -> None:
        shared = budget(tmp_path, "one", cap(1000 * COST))
        await shared.reserve(COST)
        shared.settle(COST, 5)
        for _ in range(2):
            await shared.publish()
            await asyncio.sleep(1)
        assert now() > 0

    virtually(live())
    assert lines(tmp_path) == [("one", DAY, 5, 0)]


def test_the_dearest_jobs_are_named(tmp_path: Path) -> None:
    """The sentence of a cap that is reached names who spent most, and says when to raise it."""
    with closing(store(tmp_path)) as file:
        for number in range(1, 6):
            file.replace(owner(f"job{number}"), {DAY: number * COST})
        refusal = file.lease(owner("x"), DAY, [cap(COST)], spent=0, leased=0, more=COST)
    assert isinstance(refusal, Refusal)
    assert [job for job, _ in refusal.dearest] == ["job5", "job4", "job3"]

    async def reach() -> None:
        await budget(tmp_path, "x", cap(COST)).reserve(2 * COST)

    with pytest.raises(LimitError, match=r"job5 \$0\.0010, .*; raise it and run again$"):
        virtually(reach())


def test_a_cap_is_not_passed_without_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P25 Under a cap a full disk ends the run; without one, the run says so and goes on."""
    messages: list[str] = []

    async def live() -> None:
        capped = budget(tmp_path, "one", cap(COST))
        free = SharedBudget(store(tmp_path), owner("two"), (), warn=messages.append)
        monkeypatch.setattr(SpendingStore, "_transact", full)
        with pytest.raises(OutputError, match="is full"):
            await capped.reserve(COST)
        for _ in range(3):
            await free.reserve(COST)
            free.settle(COST, COST)
            await free.publish()

    def full(*args: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    virtually(live())
    assert len(messages) == 1
