"""Admission in virtual time: no window passes its limit, nothing starves, money and retries stay within what they may."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
import virtual
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import (
    Run,
    answer,
    failure,
    fullest,
    now,
    request,
    requests,
    simulate,
    taken,
    throttled,
    virtually,
)

from batchgen.dispatch import Failure
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.limits.budgets import CostBudget, RetryBudget
from batchgen.dispatch.limits.tokens import TokenEstimate
from batchgen.dispatch.limits.window import Limiter, LocalLimit
from batchgen.errors import LimitError
from batchgen.replies import Usage
from batchgen.requests import MAX_PICTURE_TOKENS, TYPICAL_PICTURE_TOKENS, Request
from batchgen.simulator.limits import Cost, Limits
from batchgen.simulator.refusals import RefusalError

LIMITS = (0.5, 1, 1.5, 2, 2.5, 7, 10, 60, 61.7, 500, 6000)


@pytest.mark.parametrize("limit", LIMITS)
def test_no_window_passes_the_limit(limit: float) -> None:
    """P26 Requests never pass their limit in any 60 s, the first included; large limits are used to 98 %."""
    sent = virtually(taken(Limiter(LocalLimit(limit)), [1.0] * int(max(6, limit * 2.5))))
    assert fullest(sent) <= max(1.0, limit)
    if limit >= 500:
        inside = sum(1 for at, _ in sent if at < sent[0][0] + 120)
        assert inside >= 0.98 * limit * 2


@settings(max_examples=60, deadline=None)
@given(
    limit=st.one_of(st.sampled_from(LIMITS), st.floats(1, 10_000)),
    shares=st.lists(
        st.one_of(st.floats(0.0005, 0.02), st.floats(0.0005, 1)), min_size=1, max_size=120
    ),
)
def test_no_window_passes_the_limit_with_unequal_sizes(limit: float, shares: list[float]) -> None:
    """P26 Tokens and pictures neither, however unequal the requests are."""
    amounts = [share * limit for share in shares] * 2
    assert fullest(virtually(taken(Limiter(LocalLimit(limit)), amounts))) <= limit * (1 + 1e-9)


def test_a_token_limit_is_used_well_by_unequal_prompts() -> None:
    """P26 Prompts of 50 to 4,000 tokens use 95 % of a limit of 200,000 a minute."""
    dice = random.Random(1)
    sent = virtually(
        taken(Limiter(LocalLimit(200_000)), [dice.uniform(50, 4000) for _ in range(400)])
    )
    assert fullest(sent) <= 200_000
    assert sum(amount for _, amount in sent) / (sent[-1][0] - sent[0][0]) * 60 >= 0.95 * 200_000


def test_tokens_beyond_the_estimate_hold_the_next_requests_back() -> None:
    """P26 What an answer used beyond its estimate counts in the window in which it was found out."""

    async def run() -> float:
        limiter = Limiter(LocalLimit(6000))
        began = now()
        await limiter.take(10)
        limiter.sent(10)
        limiter.owe(5990)
        await limiter.take(10)
        return now() - began

    assert virtually(run()) >= 59


def test_what_is_given_back_does_not_count() -> None:
    """P26 Units that were taken and not sent leave their room to the next request."""

    async def run() -> float:
        limiter = Limiter(LocalLimit(10))
        began = now()
        for _ in range(20):
            await limiter.take(1)
            limiter.give_back(1)
        return now() - began

    assert virtually(run()) < 1


def test_the_estimate_learns_from_usage() -> None:
    """P26 Tokens for each byte, and the mean answer, follow what the server counts; a picture counts as one usually does, not
    at its worst, and what it cost teaches nothing about texts."""
    estimate = TokenEstimate()
    shown = request("b", input_bound=100 + 3 * MAX_PICTURE_TOKENS, input_pictures=3)
    for _ in range(100):
        estimate.learn(request("a", input_bound=100), Usage(input_tokens=50, output_tokens=1000))
        estimate.learn(shown, Usage(input_tokens=9000, output_tokens=1000))
    assert estimate.of(request("a", answer_bound=None)) == pytest.approx(1050, rel=0.01)
    assert estimate.of(request("a", answer_bound=7)) == pytest.approx(57, rel=0.01)
    assert estimate.of(shown) == pytest.approx(50 + 3 * TYPICAL_PICTURE_TOKENS + 100, rel=0.01)


def test_the_estimate_tells_a_constant_from_a_slope() -> None:
    """P26 What every request carries besides its text, in tokens or in bytes alone, pulls neither large nor small prompts."""
    for constant in (-25, 0, 40, 140):
        estimate, dice = TokenEstimate(), random.Random(7)
        for _ in range(300):
            size = round(200 * 80 ** dice.random())
            estimate.learn(
                request("a", input_bound=size), Usage(input_tokens=round(constant + size / 4))
            )
        for size in (200, 1000, 16_000):
            told = estimate.of(request("a", input_bound=size, answer_bound=0))
            assert told == pytest.approx(constant + size / 4, rel=0.03, abs=3)


def test_the_first_answers_teach_the_estimate() -> None:
    """P26 One answer is worth more than what is thought at first, and requests of one size say nothing of a constant."""
    estimate = TokenEstimate()
    estimate.learn(request("a", input_bound=1000), Usage(input_tokens=500))
    assert estimate.of(request("a", input_bound=4000, answer_bound=0)) == pytest.approx(2000)
    for _ in range(1000):
        estimate.learn(request("a", input_bound=1000), Usage(input_tokens=500))
    assert estimate.of(request("a", input_bound=4000, answer_bound=0)) == pytest.approx(2000)
    for _ in range(200):
        estimate.learn(request("a", input_bound=1000), Usage(input_tokens=200))
    assert estimate.of(request("a", input_bound=1000, answer_bound=0)) == pytest.approx(
        200, rel=0.06
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**15)), max_size=30),
    st.integers(0, 10**7),
)
def test_any_usage_leaves_an_estimate(answers: list[tuple[int, int]], size: int) -> None:
    """P18 P26 Whatever a server counts, the next request is estimated, at 0 tokens or more and never far beyond its bytes."""
    estimate = TokenEstimate()
    for sent, tokens in answers:
        estimate.learn(request("a", input_bound=sent), Usage(input_tokens=tokens))
    largest = max([size, *(sent for sent, _ in answers)])
    assert 0 <= estimate.of(request("a", input_bound=size, answer_bound=0)) <= 1.1 * largest + 1


def test_an_estimate_is_never_above_the_bytes() -> None:
    """P26 Two answers of one and two bytes make no line that gives four bytes six tokens."""
    estimate = TokenEstimate()
    for size, tokens in ((1, 0), (2, 2)):
        estimate.learn(request("a", input_bound=size), Usage(input_tokens=tokens))
    assert estimate.of(request("a", input_bound=4, answer_bound=0)) <= 4 * 1.03


Counted = Callable[[random.Random, int], float]

# How a server counts the tokens of a request of so many bytes.
COUNTS: dict[str, Counted] = {
    "marks that cost bytes": lambda dice, size: (size - 126) / 4,
    "English": lambda dice, size: 7 + (size - 126) / dice.uniform(3.8, 4.6),
    "a system prompt": lambda dice, size: 150 + (size - 126) / dice.uniform(3.8, 4.6),
    "Chinese": lambda dice, size: 7 + (size - 126) / dice.uniform(2.9, 3.3),
    "Chinese among English": lambda dice, size: (size - 126) / dice.choice((3.2, 4.2)),
    "code among English": lambda dice, size: (size - 126) / dice.choice((2.6, 4.2, 4.2)),
}


@pytest.mark.parametrize("counted", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("sizes", ["unequal", "alike"])
def test_a_token_limit_is_used_and_nothing_is_refused(counted: Counted, sizes: str) -> None:
    """P26 A server that enforces 600,000 tokens a minute up front, over seconds, refuses none of the prompts of 50 to 4,000
    tokens, whose tokens only its answers tell; and 95 % of the limit are used."""
    dice = random.Random(3)
    lengths = [
        round(126 + 200 * (80 ** dice.random() if sizes == "unequal" else 8)) for _ in range(1200)
    ]
    tokens = {f"r{n}": max(1, round(counted(dice, size))) for n, size in enumerate(lengths)}
    rows = [request(f"r{n}", input_bound=size, answer_bound=100) for n, size in enumerate(lengths)]
    server = Limits(tpm=600_000, clock=now)
    refused, sent = [], []

    async def answering(request: Request, n: int) -> Reply | Failure:
        amount = tokens[request.id] + 100
        try:
            server.admit("key", Cost(model="m", tokens=amount))
        except RefusalError:
            refused.append(request.id)
            return throttled()
        sent.append((now(), amount))
        await asyncio.sleep(0.3)
        return answer(usage={"prompt_tokens": tokens[request.id], "completion_tokens": 20})

    run = simulate(rows, answering, tokens_per_minute=600_000, concurrency=64)
    assert len(run.answered) == len(rows)
    assert refused == []
    # What is sent at once in the beginning is nobody's pace.
    steady = [(at, amount) for at, amount in sent if at > sent[0][0] + 2]
    assert sum(amount for _, amount in steady) / (steady[-1][0] - steady[0][0]) >= 0.95 * 10_000


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
    """P26 Recorded at the moment of sending, retries included, no window passes a limit; concurrency neither."""
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
    """P26 A request that waited behind Retry-After counts from when it was sent, not from when it was let in."""

    def answering(request: Request, n: int) -> Reply | Failure:
        return throttled(retry_after=50.0) if request.id == "r0" and n == 1 else answer()

    run = simulate(requests(40), answering, requests_per_minute=10, concurrency=4)
    assert fullest([(at, 1) for at, _, _ in run.calls]) <= 10


def test_a_slow_disk_moves_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """P26 Calls whose reservation took long to become durable count where they were sent, beside those let in later."""

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
    """P26 A call that is held up before it is sent counts once, where it is sent: a limit is used to 95 % all the same."""

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
    """P27 It would wait for ever: the rest goes on, it stays pending, and the run ends with 5 and the limit's name."""
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
    """P27 With 30 % random faults and very unequal prompts every row ends."""
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
    """P21 P27 Independent faults in three of ten calls: with the usual six attempts nearly every row is answered, the others
    have failed in passing, and the next run answers them."""
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
    """P27 One row that is always throttled, whatever it waits for, costs the others little; it ends in passing, after ten
    times."""

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
    """P27 Limits are those of a model: one that throttles every call ends its own rows, and the other model's are answered
    as if it were alone."""
    rows = [request(f"r{n}", body={"model": "ab"[n % 2], "messages": []}) for n in range(400)]

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(1)
        return throttled(retry_after=5.0) if request.body["model"] == "b" else answer()

    run = simulate(rows, answering, concurrency=64)
    assert len(run.answered) == 200
    last = max(at for at, name, _ in run.calls if name in run.answered)
    assert last - run.began < 60


# -- money --------------------------------------------------------------------------------------------------------------

COST = 200_000  # nano-dollars that one of `requests` may cost: 100 + 100 tokens at $1 a million


def test_money_in_flight_never_passes_the_cap() -> None:
    """P25 With everything in flight, what is spent plus what is reserved at its worst never passes the cap."""
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
    """P25 Under a cap a request without a price or a bound stops the job, whatever was known when it was staged."""
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


def test_two_purses_reserve_together_or_not_at_all() -> None:
    """P25 When the second budget refuses, the first keeps nothing back."""
    rich, poor = CostBudget(10 * COST, name="rich"), CostBudget(COST, name="poor")
    from batchgen.dispatch.limits.admission import Admission

    async def run() -> None:
        from virtual import PRICES

        admission = Admission(
            requests=None,
            tokens=None,
            pictures=None,
            budgets=[rich, poor],
            prices=PRICES,
            clock=now,
        )
        ticket = await admission.admit(request("a"))
        admission.settle(ticket, None)
        with pytest.raises(LimitError, match="poor"):
            await admission.admit(request("b"))
        await rich.reserve(9 * COST)

    virtually(run())


def test_an_admission_that_is_cancelled_gives_its_money_back() -> None:
    """P25 Reserved and never sent is not spent."""
    from virtual import PRICES

    from batchgen.dispatch.limits.admission import Admission

    async def run() -> None:
        budget = CostBudget(3 * COST, name="budget")
        admission = Admission(
            requests=1, tokens=None, pictures=None, budgets=[budget], prices=PRICES, clock=now
        )
        admission.settle(await admission.admit(request("a")), 0)
        waiting = asyncio.create_task(admission.admit(request("b")))
        await asyncio.sleep(5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await budget.reserve(3 * COST)

    virtually(run())


# -- retries ------------------------------------------------------------------------------------------------------------


def test_the_retries_saved_up_are_bounded() -> None:
    """P21 Hours of calm are no licence for thousands of retries at once."""
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
    """P21 Over a storm retries are at most 20 % of the rows + 10 + one a second; fresh rows do not wait for them."""
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
    """Ten retries at once, then one a second, and a fifth for each first attempt."""

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
