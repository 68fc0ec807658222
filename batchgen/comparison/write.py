"""The pairs as a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from batchgen.comparison.pairs import Comparison, Pair, Side
from batchgen.comparison.words import Part, changed_words
from batchgen.disk import atomic_write
from batchgen.inspection import axes_text
from batchgen.page import MOST_TEXT, render_comparison, thumbnail
from batchgen.report import in_dollars, pluralize

# Rows on a page, and the bytes of texts and small pictures; the rest is left out, and it says so.
MOST_PAIRS = 1000
MOST_BYTES = 12_000_000


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the changed answers, and those that only one side has, as a page.

    A comparison can be written once. Raises OutputError, DamagedError.
    """
    shown: list[dict[str, Any]] = []
    size = left_out = 0
    for pair in comparison.pairs:
        if not pair.is_changed and pair.before is not None and pair.after is not None:
            continue
        if comparison.names == ("before", "after") and pair.before is None:
            continue
        if left_out or len(shown) >= MOST_PAIRS:
            left_out += 1
            continue
        fields = _fields(pair, comparison.workspace.folder)
        size += len(json.dumps(fields))
        if size > MOST_BYTES:
            left_out += 1
            continue
        shown.append(fields)
    page = render_comparison(
        {
            "name": comparison.workspace.job.name,
            "simulated": comparison.workspace.simulate,
            "names": comparison.names,
            "tiles": list(describe_comparison(comparison).items()),
            "note": f"This page shows the first {len(shown):,} rows; {left_out:,} are left out."
            if left_out
            else "",
            "pairs": shown,
        }
    )
    with atomic_write(path) as file:
        file.write(page)


def describe_comparison(comparison: Comparison) -> dict[str, str]:
    """The counts of a comparison in words, by what they are about."""
    one, other = comparison.names
    only = (
        f"{pluralize(comparison.only[1], 'row')} with one answer"
        if comparison.names == ("before", "after")
        else f"{comparison.only[0]:,} only in {one}, {comparison.only[1]:,} only in {other}"
    )
    costs = ["unknown" if cost is None else in_dollars(cost) for cost in comparison.cost]
    return {
        "compared": pluralize(comparison.equal + comparison.changed, "row"),
        "equal": f"{comparison.equal:,}",
        "changed": f"{comparison.changed:,}",
        "other": only,
        "cost": f"{costs[0]} {one}, {costs[1]} {other}",
        "tokens": f"{comparison.tokens[0]:,} {one}, {comparison.tokens[1]:,} {other}",
    }


def describe_side(side: Side) -> str:
    """What one answer took: its run, model, tokens and cost."""
    cost = "cost unknown" if side.cost is None else in_dollars(side.cost)
    parts = [f"run {side.run}", side.model or "", f"{side.tokens:,} tokens", cost]
    return ", ".join(part for part in parts if part)


def _fields(pair: Pair, folder: Path) -> dict[str, Any]:
    sides = (pair.before, pair.after)
    texts = [side.text[:MOST_TEXT] if side else "" for side in sides]
    parts = changed_words(*texts) if all(sides) else ([Part(text, False)] for text in texts)
    turn = f"turn {pair.row.turn}" if pair.row.turn else ""
    return {
        "id": pair.row.id,
        "about": ", ".join(filter(None, [turn, axes_text(pair.row.axes)])),
        "sides": [
            None if side is None else _side(side, own, folder)
            for side, own in zip(sides, parts, strict=True)
        ],
    }


def _side(side: Side, parts: Iterable[Part], folder: Path) -> Mapping[str, Any]:
    more = len(side.text) - MOST_TEXT
    thumbnails = [thumbnail(folder / path) for path in side.pictures]
    return {
        "about": describe_side(side),
        "parts": [
            *(part._asdict() for part in parts),
            *([Part(f"… ({more:,} more characters)", False)._asdict()] if more > 0 else []),
        ],
        "thumbnails": [small for small in thumbnails if small],
    }
