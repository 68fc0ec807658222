"""report.html: the whole page of a job in one file, from its journal alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write
from batchgen.job import Job
from batchgen.journal import Journal
from batchgen.kinds import KINDS
from batchgen.page.activity import last_activity
from batchgen.page.assets import asset, template
from batchgen.page.cards import Card, Cards, cut
from batchgen.page.selection import Selection, select, threads
from batchgen.page.thumbnails import thumbnail
from batchgen.report import JobTotals, describe_cost, describe_reason, pluralize
from batchgen.requests import Renderer

# Bytes that cards and small pictures may take. With charts, style and script a page stays below
# 20 MB. What does not fit is left out, and the page says so.
MOST_CARD_BYTES = 8_000_000
MOST_PICTURE_BYTES = 8_000_000

# The file's name.
PAGE = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """What a page says about its job as a whole.

    Attributes:
        job: the job.
        folder: its output folder.
        host: its server, as messages name it.
        simulated: whether no model was asked.
        totals: how the job stands.
        run: the last run's part of report.json; None when none has ended.
    """

    job: Job
    folder: Path
    host: str
    simulated: bool
    totals: JobTotals
    run: Mapping[str, Any] | None

    @property
    def draws(self) -> bool:
        """Whether the answers are pictures."""
        return self.job.kind is not None and KINDS[self.job.kind].makes_images


def write_page(facts: PageFacts, journal: Journal, renderer: Renderer) -> None:
    """Write report.html into the output folder, unless the job writes one file alone.

    Raises OutputError, DamagedError.
    """
    if facts.job.output_file is not None:
        return
    selection = select(journal)
    cards = _embedded(_cards(facts, journal, renderer, selection), facts.folder)
    page = render_page(
        facts,
        charts_of(journal),
        {
            "cards": cards,
            "axes": dict(facts.job.matrix),
            "note": _note(selection, len(cards)),
            "draws": facts.draws,
        },
    )
    with atomic_write(facts.folder / PAGE) as file:
        file.write(page)


def render_page(facts: PageFacts, drawn: Sequence[str], data: Mapping[str, Any]) -> str:
    """The page's HTML.

    Args:
        facts: about the job.
        drawn: its charts, as SVG.
        data: what the page's script shows: `cards`, or `api`, where it asks for them; the `axes`
            and their values; a `note` on what is left out; and whether the job `draws`.
    """
    totals, run = facts.totals, facts.run or {}
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text: str = template("page.html").render(
        facts=facts,
        style=asset("page.css"),
        script=script,
        script_hash=f"sha256-{digest}",
        counts=dict(totals.rows),
        failures=[
            (reason, describe_reason(reason), count) for reason, count in totals.failures.items()
        ],
        cost=describe_cost(totals.totals).removeprefix("cost "),
        tokens=totals.totals.input_tokens + totals.totals.output_tokens,
        calls=pluralize(totals.totals.calls, "call"),
        run=run,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        charts=drawn,
        # `<` would end the script element that holds the data.
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )
    return text


def charts_of(journal: Journal) -> list[str]:
    """The charts of the last run, as SVG; none without a run that sent something online."""
    from batchgen.page.charts import charts

    activity = last_activity(journal)
    return charts(activity) if activity is not None else []


def _cards(
    facts: PageFacts, journal: Journal, renderer: Renderer, selection: Selection
) -> Iterator[Card]:
    makes = Cards(facts.job, journal, renderer)
    return (cut(makes.card(turns)) for turns in threads(journal, selection.heads))


def _embedded(cards: Iterator[Card], folder: Path) -> list[Card]:
    """As many cards as fit, with small pictures in them as far as those fit."""
    kept: list[Card] = []
    size = pictures = 0
    for card in cards:
        size += len(json.dumps(card))
        if size > MOST_CARD_BYTES:
            break
        for turn in card.get("turns", ()):
            # The pictures that a request edits are the user's; their place is nobody else's matter.
            path = turn.pop("source", None) or turn.get("picture")
            if path is not None and pictures < MOST_PICTURE_BYTES:
                small = thumbnail(folder / path)
                if small is not None:
                    turn["thumbnail"] = small
                    pictures += len(small)
        kept.append(card)
    return kept


def _note(selection: Selection, shown: int) -> str:
    """What the page leaves out; empty when it has all."""
    if shown == selection.threads:
        return ""
    failed = (
        f"all {selection.failed:,} that failed or are incomplete"
        if selection.shown_failed == selection.failed
        else f"{selection.shown_failed:,} of {selection.failed:,} that failed or are incomplete"
    )
    return (
        f"This page shows {shown:,} of {selection.threads:,}: {failed}, and a sample of the others."
    )
