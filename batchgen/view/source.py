"""What the server shows, read from the job's journal anew for each request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from batchgen.job import Job
from batchgen.journal import (
    Journal,
    Wanted,
    count_rows,
    find_threads,
    last_report,
    thread_with_outcomes,
)
from batchgen.journal.files import file_at
from batchgen.page import Card, Cards, charts_of, cut, has_words, render_page, thumbnail
from batchgen.report import JobTotals, describe_cost, job_totals
from batchgen.workspace import Workspace


class Source:
    """A job's cards, counts and pictures. Each method reads one state of the journal.

    They block, and raise InputError for a job that has not been run, OutputError and DamagedError.
    """

    def __init__(self, job: Job, *, simulate: bool, output: Path | None) -> None:
        self._workspace = Workspace.of(job, simulate=simulate, output=output)

    def page(self) -> str:
        """The page's HTML; its script asks for the cards."""
        with self._reading() as journal:
            totals = self._totals(journal)
            facts = self._workspace.page_facts(totals, last_report(journal))
            examples = {reason: self._example(journal, reason) for reason in totals.failures}
            shown = {
                "api": "cards",
                "axes": dict(self._workspace.job.matrix),
                "draws": facts.draws,
                "examples": examples,
                "note": "",
            }
            return render_page(facts, charts_of(journal), shown)

    def cards(self, wanted: Wanted, most: int) -> dict[str, Any]:
        """The first cards that fit, whether there are more, and how the job stands."""
        with self._reading() as journal:
            found = list(islice(self._found(journal, wanted), most + 1))
            totals = self._totals(journal)
            return {
                "cards": [_with_pictures(cut(card)) for card in found[:most]],
                "more": len(found) > most,
                "counts": dict(totals.rows),
                "cost": describe_cost(totals.totals),
            }

    def picture(self, name: str) -> Path | None:
        """The file of a picture that an answer owns; None for any other name."""
        with self._reading() as journal:
            path = f"images/{name}"
            file = self._workspace.folder / path
            return file if file_at(journal, path) and file.is_file() else None

    @contextmanager
    def _reading(self) -> Iterator[Journal]:
        with self._workspace.peek() as journal, journal.snapshot():
            self._workspace.staged(journal)
            yield journal

    def _totals(self, journal: Journal) -> JobTotals:
        counts = count_rows(journal, by_turns=self._workspace.by_turns)
        return job_totals(journal, counts, {})

    def _found(self, journal: Journal, wanted: Wanted) -> Iterator[Card]:
        """The cards of the threads that fit, whole."""
        makes = Cards(self._workspace.job, journal, self._workspace.renderer)
        words = [word.lower() for word in wanted.words]
        for head in find_threads(journal, wanted):
            card = makes.card(thread_with_outcomes(journal, head))
            if has_words(card, words):
                yield card

    def _example(self, journal: Journal, reason: str) -> Card:
        card = next(self._found(journal, Wanted(reason=reason)), {})
        return {name: card[name] for name in ("id", "message") if name in card}


def _with_pictures(card: Card) -> Card:
    """The card with small copies of the pictures that a request edits.

    They are the user's files, outside of the output folder, so the server does not serve them.
    """
    for turn in card.get("turns", ()):
        if (path := turn.pop("source", None)) and (small := thumbnail(Path(path))):
            turn["thumbnail"] = small
    return card
