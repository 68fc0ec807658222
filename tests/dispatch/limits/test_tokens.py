"""The estimate of tokens: it learns from answers and keeps a limit on tokens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import (
    answer,
    now,
    request,
    simulate,
    throttled,
)

from batchgen.dispatch import Failure
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.limits.tokens import TokenEstimate
from batchgen.replies import Usage
from batchgen.requests import MAX_PICTURE_TOKENS, TYPICAL_PICTURE_TOKENS, Request
from batchgen.simulator.limits import Cost, Limits
from batchgen.simulator.refusals import RefusalError


def test_the_estimate_learns_from_usage() -> None:
    """P26 Tokens for each byte and the mean answer follow the server's count.

    A picture counts as one usually does, not at its worst. Its cost teaches nothing about texts.
    """
    estimate = TokenEstimate()
    shown = request("b", input_bound=100 + 3 * MAX_PICTURE_TOKENS, input_pictures=3)
    for _ in range(100):
        estimate.learn(request("a", input_bound=100), Usage(input_tokens=50, output_tokens=1000))
        estimate.learn(shown, Usage(input_tokens=9000, output_tokens=1000))
    assert estimate.of(request("a", answer_bound=None)) == pytest.approx(1050, rel=0.01)
    assert estimate.of(request("a", answer_bound=7)) == pytest.approx(57, rel=0.01)
    assert estimate.of(shown) == pytest.approx(50 + 3 * TYPICAL_PICTURE_TOKENS + 100, rel=0.01)


def test_the_estimate_tells_a_constant_from_a_slope() -> None:
    """P26 A constant part of every request biases neither large nor small prompts.

    It may be in tokens, or in bytes that cost none.
    """
    for constant in (-25, 0, 40, 140):
        estimate, dice = TokenEstimate(), random.Random(7)
        for _ in range(300):
            size = round(200 * 80 ** dice.random())
            estimate.learn(
                request("a", input_bound=size), Usage(input_tokens=round(constant + size / 4))
            )
        for size in (200, 1000, 16_000):
            tokens = estimate.of(request("a", input_bound=size, answer_bound=0))
            assert tokens == pytest.approx(constant + size / 4, rel=0.03, abs=3)


def test_the_first_answers_teach_the_estimate() -> None:
    """P26 One answer outweighs the initial guess.

    Requests of one size teach nothing about a constant part.
    """
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
    """P18 P26 Whatever a server counts, the next request has an estimate.

    It is 0 tokens or more, and never far beyond the request's bytes.
    """
    estimate = TokenEstimate()
    for sent, tokens in answers:
        estimate.learn(request("a", input_bound=sent), Usage(input_tokens=tokens))
    largest = max([size, *(sent for sent, _ in answers)])
    assert 0 <= estimate.of(request("a", input_bound=size, answer_bound=0)) <= 1.1 * largest + 1


def test_an_estimate_is_never_above_the_bytes() -> None:
    """P26 Answers of one and two bytes do not make four bytes six tokens."""
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
    """P26 A server that enforces 600,000 tokens a minute up front, over seconds, refuses nothing.

    The prompts have 50 to 4,000 tokens, which only the answers tell; 95 % of the limit is used.
    """
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
    # What is sent at once in the beginning says nothing of the pace.
    steady = [(at, amount) for at, amount in sent if at > sent[0][0] + 2]
    assert sum(amount for _, amount in steady) / (steady[-1][0] - steady[0][0]) >= 0.95 * 10_000
