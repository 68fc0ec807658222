"""Which threads of a job its page shows: all of a small job, a sample of a large one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchgen.journal import Journal, RecordedOutcome, Row, thread_with_outcomes
from batchgen.journal.status import state

# Threads on a page: of those that failed or are incomplete, and of all others.
MOST_FAILED = 1000
MOST_OTHERS = 1000

# The first turn of each thread in which something failed, and of every so many of the others.
_FAILED = f"""{state()}
    SELECT DISTINCT coalesce(head.seq, s.seq) AS seq FROM state s
    LEFT JOIN rows head
        ON head.conversation = s.conversation AND head.axes = s.axes AND head.turn = 1
    WHERE s.verdict <> 'succeeded' AND s.status IN ('failed', 'incomplete') ORDER BY 1"""
_OTHERS = """SELECT seq FROM (
        SELECT seq, row_number() OVER (ORDER BY seq) AS number FROM rows WHERE turn <= 1)
    WHERE number % ? = 1 OR ? = 1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The threads on a page.

    Attributes:
        heads: the seq of each thread's first row, in the file's order.
        threads: how many the job has.
        failed: how many of them failed or are incomplete.
        shown_failed: how many of those are on the page.
    """

    heads: tuple[int, ...]
    threads: int
    failed: int
    shown_failed: int


def select(journal: Journal) -> Selection:
    """Choose the failed threads, and of the others every so many."""
    (threads,) = journal.query("SELECT count(*) FROM rows WHERE turn <= 1")[0]
    failed = [row["seq"] for row in journal.query(_FAILED)]
    step = max(1, -(-threads // MOST_OTHERS))
    others = {row["seq"] for row in journal.query(_OTHERS, step, step)}
    shown = failed[:MOST_FAILED]
    heads = sorted({*shown, *(others - {*failed})})
    return Selection(
        heads=tuple(heads), threads=threads, failed=len(failed), shown_failed=len(shown)
    )


def threads(
    journal: Journal, heads: tuple[int, ...]
) -> Iterator[list[tuple[Row, RecordedOutcome | None]]]:
    """The turns of each selected thread with their outcomes. Raises DamagedError."""
    for head in heads:
        yield thread_with_outcomes(journal, head)
