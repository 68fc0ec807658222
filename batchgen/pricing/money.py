"""Nano-dollars."""

from __future__ import annotations

NANO = 1_000_000_000


def dollars(nano: int | None) -> float | None:
    """Nano-dollars as dollars."""
    return None if nano is None else nano / NANO
