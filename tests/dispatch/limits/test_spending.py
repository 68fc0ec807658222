"""What a cap on money promises when servers charge more than requests allow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import Run, answer, failure, request, requests, simulate

from batchgen.dispatch import Failure
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.limits.spending import Overrun
from batchgen.errors import LimitError
from batchgen.requests import Request

COST = 200_000  # nano-dollars that one of `requests` may cost: 100 + 100 tokens at $1 a million


@dataclass
class Bank:
    """A server with bills of its own, which remembers what was set aside and spent.

    bills: by request id: seconds until the answer, and the bill as a multiple of COST; None for an
        answer that never comes whole and may be billed.
    spent: nano-dollars, by the server's books.
    flying: what was set aside for each call in flight when it was sent.
    exposed: at each sending, the set of calls in flight.
    """

    bills: dict[str, tuple[float, Fraction | None]]
    run: Run = field(default_factory=Run)
    spent: int = 0
    charged: dict[str, int] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)
    flying: set[str] = field(default_factory=set)
    last_sent: frozenset[str] = frozenset()

    async def answer(self, request: Request, n: int) -> Reply | Failure:
        self.flying.add(request.id)
        self.set_aside[request.id] = self.run.reserved[-1]
        self.last_sent = frozenset(self.flying)
        seconds, multiple = self.bills[request.id]
        try:
            await asyncio.sleep(seconds)
        finally:
            self.flying.discard(request.id)
        if multiple is None:
            self.charged[request.id] = self.set_aside[request.id]
            self.spent += self.set_aside[request.id]
            return failure("row", "odd", may_be_billed=True)
        cost = int(COST * multiple)
        self.charged[request.id] = cost
        self.spent += cost
        return answer(usage={"prompt_tokens": 1, "completion_tokens": 1, "cost": cost / 10**9})

    def excess(self, calls: frozenset[str]) -> int:
        """What these calls cost beyond what was set aside for them when they were sent."""
        return sum(max(0, self.charged[each] - self.set_aside[each]) for each in calls)


MULTIPLES = st.one_of(
    st.fractions(0, 1, max_denominator=7),
    st.just(Fraction(1)),
    st.none(),
    st.sampled_from([Fraction(3, 2), Fraction(2), Fraction(5), Fraction(50)]),
)


@given(
    st.lists(st.tuples(st.floats(0.01, 9), MULTIPLES), min_size=1, max_size=60),
    st.integers(1, 400),
    st.sampled_from([1, 2, 8, 64]),
)
@settings(deadline=None, max_examples=200)
def test_the_cap_is_passed_by_surprises_in_flight_alone(
    bills: list[tuple[float, Fraction | None]], cap: int, concurrency: int
) -> None:
    """P25 Whatever servers charge: spending passes the cap at most by what the calls that were in
    flight with the last one cost beyond the money set aside for them. Without a call beyond its
    reservation the cap holds exactly.
    """
    bank = Bank({f"r{n}": bill for n, bill in enumerate(bills)})
    simulate(
        requests(len(bills)), bank.answer, run=bank.run, caps=[cap * COST], concurrency=concurrency
    )
    assert bank.run.why is None or isinstance(bank.run.why, LimitError)
    excess = bank.excess(bank.last_sent)
    assert bank.spent <= cap * COST + excess
    surprises = [each for each in bank.charged if bank.excess(frozenset({each}))]
    if len(surprises) <= 1:
        # A single surprise passes it by no more than itself.
        assert bank.spent <= cap * COST + bank.excess(frozenset(surprises))
    # Unless every call went out, nothing more fits.
    if len(bank.charged) < len(bills):
        assert isinstance(bank.run.why, LimitError)


@pytest.mark.parametrize("cap", [64, 100, 140])
def test_a_surprise_among_many(cap: int) -> None:
    """P25 The 50th call costs 50 times its bound while others are in flight: half of what was left
    was not set aside, so the cap holds where that half is enough, and is passed by less than that
    one call elsewhere. Later calls set 50 times as much aside.
    """
    bills: dict[str, tuple[float, Fraction | None]] = {
        f"r{n}": (1.0, Fraction(50 if n == 49 else 1, 1 if n == 49 else 4)) for n in range(400)
    }
    bank = Bank(bills)
    simulate(requests(400), bank.answer, run=bank.run, caps=[cap * COST], concurrency=64)
    assert isinstance(bank.run.why, LimitError)
    assert bank.spent <= (cap if cap > 64 else cap + 49) * COST
    late = [amount for amount in bank.run.reserved if amount != COST]
    assert set(late) <= {50 * COST}


def test_all_at_once() -> None:
    """P25 Where every call after the first costs 50 times its bound, what is in flight together
    passes the cap once, and nothing is sent after that.
    """
    bills: dict[str, tuple[float, Fraction | None]] = {
        f"r{n}": (1.0, Fraction(50 if n else 1)) for n in range(400)
    }
    bank = Bank(bills)
    simulate(requests(400), bank.answer, run=bank.run, caps=[300 * COST], concurrency=64)
    assert len(bank.charged) == 65
    assert isinstance(bank.run.why, LimitError)


def test_calls_in_flight_set_aside_half_of_what_is_left() -> None:
    """P25 Several calls in flight never set aside more than half of what is left; one may take
    all.
    """
    bank = Bank({f"r{n}": (1.0, Fraction(1)) for n in range(40)})
    most: list[tuple[int, int]] = []

    async def answering(request: Request, n: int) -> Reply | Failure:
        most.append((bank.run.in_flight, 30 * COST - bank.spent))
        return await bank.answer(request, n)

    simulate(requests(40), answering, run=bank.run, caps=[30 * COST], concurrency=64)
    assert bank.spent == 30 * COST
    assert all(calls == 1 or 2 * calls * COST <= left for calls, left in most)
    assert max(calls for calls, _ in most) == 14


def test_the_first_call_to_each_model_goes_alone_until_one_is_answered() -> None:
    """P25 Nothing is sent beside a model's first call, and one that failed has shown nothing."""
    bodies = [{"model": "m", "messages": [{"n": n}]} for n in range(8)]
    sent: list[tuple[str, int]] = []

    async def answering(request: Request, n: int) -> Reply | Failure:
        sent.append((request.id, run.in_flight))
        await asyncio.sleep(1)
        if request.id in ("r0", "r1"):
            return failure("row", "bad")
        return answer(usage={"prompt_tokens": 1, "completion_tokens": 1})

    run = Run()
    rows = [request(f"r{n}", body=body) for n, body in enumerate(bodies)]
    simulate(rows, answering, run=run, caps=[100 * COST])
    assert sent[:4] == [("r0", 1), ("r1", 1), ("r2", 1), ("r3", 1)]
    assert max(calls for _, calls in sent) == 5


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 10**6)), max_size=9))
def test_what_was_seen_is_covered(calls: list[tuple[int, int]]) -> None:
    """P25 After any bills, each of these calls would have had its cost set aside."""
    overrun = Overrun()
    for bound, cost in calls:
        overrun = overrun.after(bound, cost)
    assert all(overrun.most(bound) >= max(bound, cost) for bound, cost in calls)


def test_the_words_of_the_wait() -> None:
    """A run that waits for money says so, and for what."""
    shown: set[str] = set()

    async def watch(backend: Any) -> None:
        while True:
            await asyncio.sleep(0.1)
            if (wait := backend._admission.wait("h")) is not None:
                shown.add(wait.reason)

    bank = Bank({f"r{n}": (1.0, Fraction(1)) for n in range(9)})
    simulate(requests(9), bank.answer, run=bank.run, caps=[9 * COST], during=watch)
    assert {
        "waiting for the first answer, which shows what a call costs",
        "waiting for money reserved by calls in flight",
    } <= shown
