"""The phrases that plan, run and status share."""

from __future__ import annotations

from batchgen.journal import RowCounts
from batchgen.report.totals import RunTotals


def pluralize(number: int, word: str) -> str:
    """`1 call`, `2,000 calls`."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def describe_batches(requests: int, batches: int) -> str:
    """`1,000 requests in 1 batch`."""
    return f"{pluralize(requests, 'request')} in {batches:,} batch{'es' * (batches != 1)}"


def describe_stale_requests(requests: int) -> str:
    """A sentence: this many requests in batches will be paid for nothing."""
    return (
        f"{pluralize(requests, 'stale request')} in batches, of rows that have changed since; "
        "each costs all the same"
    )


def describe_cost(totals: RunTotals) -> str:
    """A cost with as many digits as it needs; says so where a part of it is unknown."""
    cost = totals.cost
    if cost is None:
        return "cost unknown"
    digits = f"{cost:.2f}" if cost >= 1 else f"{cost:.6f}".rstrip("0").rstrip(".")
    return (
        f"${digits} and {totals.unpriced:,} calls of unknown cost"
        if totals.unpriced
        else f"${digits}"
    )


def rerun_reasons(counts: RowCounts) -> dict[str, int]:
    """Why answered rows run again, as plan and run say it: how many for each reason."""
    reasons = {
        "of a change in the job or in an earlier turn": counts.changed_job,
        "of changed cells": counts.changed_rows,
        "their pictures are missing or were changed": counts.lost,
    }
    return {why: count for why, count in reasons.items() if count}
