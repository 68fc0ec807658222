"""Nano-dollars, and what a batch costs."""

from __future__ import annotations

from typing import overload

NANO = 1_000_000_000


def dollars(nano: int | None) -> float | None:
    """Nano-dollars as dollars."""
    return None if nano is None else nano / NANO


@overload
def batch_cost(nano: int) -> int: ...
@overload
def batch_cost(nano: int | None) -> int | None: ...
def batch_cost(nano: int | None) -> int | None:
    """What a call of `nano` nano-dollars costs in a batch: half, rounded up.

    OpenAI, Azure, Groq and others all have this discount:
        https://platform.openai.com/docs/guides/batch
    """
    return None if nano is None else -(-nano // 2)
