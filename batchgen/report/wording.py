"""The phrases that plan, run and status share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from batchgen.journal import RowCounts
from batchgen.report.totals import RunTotals

# Columns with empty cells that are told one by one.
SHOWN = 5


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
    """A cost with as many digits as it needs; says so where a part of it is unknown or missing."""
    parts = [] if totals.cost is None else [in_dollars(totals.cost)]
    if totals.unpriced:
        unpriced = f"{pluralize(totals.unpriced, 'call')} of unknown cost"
        parts.append(unpriced if parts else "cost unknown")
    if totals.uncertain:
        parts.append(describe_uncertain(totals.uncertain, totals.uncertain_cost))
    tools = ", ".join(totals.fees_not_included)
    return " and ".join(parts) + (f", without the fees of {tools}" if tools else "")


def describe_uncertain(calls: int, cost: float) -> str:
    """Calls that count at their highest cost, in USD, because nobody knows how they ended."""
    which = f"{pluralize(calls, 'call')} of unknown outcome"
    return f"up to {in_dollars(cost)} for {which}, counted as spent"


def describe_dollars(cost: float) -> str:
    """An expected or highest cost, in USD: rounded up to three digits that count, or to cents."""
    if not cost:
        return "$0"
    digits = max(2, 2 - math.floor(math.log10(cost)))
    step = 10**-digits
    # What binary fractions add is no reason to round up.
    whole, _, part = f"{math.ceil(cost / step - 1e-6) * step:,.{digits}f}".partition(".")
    return f"${whole}.{part.rstrip('0').ljust(2, '0')}"


def in_dollars(cost: float) -> str:
    """An amount in USD, with as many digits as it needs."""
    digits = f"{cost:.2f}" if cost >= 1 else f"{cost:.6f}".rstrip("0").rstrip(".")
    return f"${digits}"


# How the summary tells what answers had beside their text, by what `Report.noted` counts.
_NOTED = {
    "unwrapped": "text around the JSON taken off {} (column unwrapped)",
    "pictures": "pictures came with {}: they are in images/",
    "sound": "sound came with {}: it stays in the journal (batchgen show), the output is its words",
}


def describe_answers(noted: Mapping[str, int]) -> list[str]:
    """What some answers had beside their text, as `Report.noted` counts it."""
    return [
        sentence.format(pluralize(noted[name], "answer"))
        for name, sentence in _NOTED.items()
        if noted.get(name)
    ]


def describe_empty_cells(columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of each column with empty cells: `column a: 2 of 9 cells empty: null (1), ...`.

    Many columns are empty for one reason, an answer that is no JSON: the first few are told.
    """
    sentences = [
        f"column {name}: {each['empty']:,} of {each['cells']:,} cells empty: "
        + ", ".join(f"{why} ({count:,})" for why, count in each["reasons"].items())
        for name, each in columns.items()
    ]
    more = pluralize(len(sentences) - SHOWN, "more column")
    rest = [f"{more} with empty cells (see report.json)"] if len(sentences) > SHOWN else []
    return sentences[:SHOWN] + rest


def left_out_reasons(left_out: Mapping[str, int]) -> list[str]:
    """How many rows of the file are left out, a phrase for each key of the job that does it."""
    return [
        f"{pluralize(count, 'row')} not answered yet by the job in prompts.job"
        if key == "prompts.job"
        else f"{pluralize(count, 'row')} left out by {key}"
        for key, count in left_out.items()
    ]


def describe_empty_prompts(count: int) -> str:
    """A phrase: this many rows are sent although their prompt is empty."""
    return f"{pluralize(count, 'row')} with an empty prompt, sent by prompts.empty: send"


def describe_unclaimed(count: int) -> str:
    """A sentence about answers that no row has as it is now, in a job without ids."""
    return (
        f"{pluralize(count, 'recorded answer')} of rows that were changed or removed: kept, and "
        "back at no cost if you undo that; with prompts.id the tables show them until the new ones "
        "come"
    )


def rerun_reasons(counts: RowCounts) -> dict[str, int]:
    """Why answered rows run again, as plan and run say it: how many for each reason."""
    reasons = {
        "of a change in the job or in an earlier turn": counts.changed_job,
        "of changed cells": counts.changed_rows,
        "their pictures are missing or were changed": counts.lost,
    }
    return {why: count for why, count in reasons.items() if count}
