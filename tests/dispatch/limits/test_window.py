"""The limiter in virtual time: no window exceeds its limit, and the limit is used."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import (
    fullest,
    now,
    taken,
    virtually,
)

from batchgen.dispatch.limits.window import Limiter, LocalLimit

LIMITS = (0.5, 1, 1.5, 2, 2.5, 7, 10, 60, 61.7, 500, 6000)


@pytest.mark.parametrize("limit", LIMITS)
def test_no_window_passes_the_limit(limit: float) -> None:
    """P26 Requests never exceed their limit in any 60 s, the first included.

    Large limits are used to 98 %.
    """
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
    """P26 Neither do tokens and pictures, however unequal the requests are."""
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
    """P26 Tokens used beyond the estimate count in the window in which they became known."""

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
