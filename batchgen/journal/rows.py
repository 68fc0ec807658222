"""The rows of the job as they are staged: which to send, and what the tables show of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from batchgen.errors import DamagedError
from batchgen.journal.journal import PAGE, Journal
from batchgen.journal.outcomes import RecordedOutcome
from batchgen.journal.records import MEND, digest_of
from batchgen.journal.schema import COLUMNS
from batchgen.journal.scope import WHOLE, Scope
from batchgen.journal.status import HAS_TURN_TO_SEND, TO_SEND, Status, state
from batchgen.requests import canonical

# Bytes of prompts and responses after which a page ends early, so that large texts do not fill the
# memory.
PAGE_BYTES = 4 * 1024 * 1024

# The cells of a row and its prompt as they are read together.
_CELLS = ", ".join(
    [*(f"s.{name}" for name in COLUMNS["rows"]), *(f"p.{name}" for name in COLUMNS["prompts"])]
)
# Their positions: the row's n, the prompt's first cell, the row's status, the outcome's first cell.
_N = list(COLUMNS["rows"]).index("n")
_PROMPT = len(COLUMNS["rows"])
_STATUS = _PROMPT + len(COLUMNS["prompts"])
_OUTCOME = _STATUS + 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One staged request with its status.

    seq: its position in the prompts file's order, from 1.
    n: its prompt's number, from 1.
    line: its prompt's first line in the file.
    id: as it is shown.
    axes: its combination of the matrix.
    conversation, turn: its thread and number from 1, or None and 0.
    outcome_id, fingerprint: its outcome is recorded under these two.
    error: why it cannot be sent, or None.
    columns: its prompt's cells.
    text: the same cells as JSON, as the journal keeps them.
    status: as a table shows it.
    to_send: whether a run sends it.
    follows_another: whether its answer followed another reply than its conversation has now.
    """

    seq: int
    n: int
    line: int
    id: str
    axes: dict[str, Any]
    conversation: str | None
    turn: int
    outcome_id: str
    fingerprint: bytes
    error: str | None
    columns: dict[str, Any]
    text: str
    status: Status
    to_send: bool
    follows_another: bool

    @property
    def input_error(self) -> str:
        """Why it cannot be sent, with its line in the prompts file."""
        return f"line {self.line}: {self.error}"

    @property
    def columns_digest(self) -> bytes:
        """The digest of the prompt's cells: it shows whether they changed since an outcome."""
        return digest_of(self.text)


def thread_heads(journal: Journal, after: int, scope: Scope = WHOLE) -> list[Row]:
    """The next page of threads with something to send: single rows and first turns.

    after: the seq of the last row of the page before, or 0.
    scope: only rows in it.

    Only the page after the last one is empty. Raises DamagedError.
    """
    heads = f"""SELECT seq FROM rows WHERE seq > ? AND {scope.condition()} AND turn <= 1
        ORDER BY seq LIMIT {PAGE}"""
    next_in_scope = scope.condition("s.next_n")
    has_work = f"CASE s.turn WHEN 0 THEN {TO_SEND} ELSE {HAS_TURN_TO_SEND} AND {next_in_scope} END"
    while last := journal.query(f"SELECT max(seq) FROM ({heads})", after)[0][0]:
        page = _page(journal, heads, after, condition=has_work, most=PAGE_BYTES)
        after = journal.onward(after, last)
        if page:
            return [row for row, _ in page]
    return []


def heads_in(journal: Journal, scope: Scope) -> list[int]:
    """The seq of every thread in scope, in the file's order: single rows, first turns."""
    sql = f"SELECT seq FROM rows WHERE {scope.condition()} AND turn <= 1 ORDER BY seq"
    return [row["seq"] for row in journal.query(sql)]


def turns_of(journal: Journal, row: Row) -> list[Row]:
    """All turns of a row's conversation and combination, in order. Raises DamagedError."""
    turns = "SELECT seq FROM rows WHERE conversation = ? AND axes = ?"
    return [each for each, _ in _page(journal, turns, row.conversation, canonical(row.axes))]


def reread(journal: Journal, row: Row) -> Row:
    """The row with its present status. Raises DamagedError."""
    return _page(journal, "SELECT ?", row.seq)[0][0]


def row_at(journal: Journal, seq: int) -> tuple[Row, RecordedOutcome | None]:
    """The row at a position, with the outcome recorded for it.

    Raises DamagedError, also when no row is there: what is counted need not be found by its index.
    """
    for found in _page(journal, "SELECT ?", seq, outcomes=True):
        return found
    raise DamagedError(f"{journal.path}: is damaged (staged row {seq} is missing); {MEND}")


def longest_thread(journal: Journal) -> int:
    """How many turns the longest conversation has; 1 without any."""
    sql = "SELECT max(turn) FROM rows WHERE conversation IS NOT NULL"
    return max(1, journal.query(sql)[0][0] or 1)


def first_row(journal: Journal) -> Row | None:
    """The first row that can be made into a request, or None. Raises DamagedError."""
    page = _page(journal, "SELECT seq FROM rows WHERE error IS NULL ORDER BY seq LIMIT 1")
    return page[0][0] if page else None


def rows_with_id(journal: Journal, row_id: str) -> list[Row]:
    """The rows that are shown under an id: its combinations and turns. Raises DamagedError."""
    return [row for row, _ in _page(journal, "SELECT seq FROM rows WHERE id = ?", row_id)]


def rows_with_outcomes(journal: Journal) -> Iterator[tuple[Row, RecordedOutcome | None]]:
    """Every row in the prompts file's order, with the outcome recorded for it.

    Raises DamagedError.
    """
    after = 0
    following = f"SELECT seq FROM rows WHERE seq > ? ORDER BY seq LIMIT {PAGE}"
    while page := _page(journal, following, after, outcomes=True, most=PAGE_BYTES):
        yield from page
        after = journal.onward(after, page[-1][0].seq)


def thread_with_outcomes(journal: Journal, head: int) -> list[tuple[Row, RecordedOutcome | None]]:
    """The turns of the thread that begins with the row `head`, with their outcomes.

    Raises DamagedError.
    """
    turns = """SELECT ?1 UNION SELECT r.seq FROM rows head JOIN rows r
        ON r.conversation = head.conversation AND r.axes = head.axes WHERE head.seq = ?1"""
    return _page(journal, turns, head, outcomes=True)


def _page(
    journal: Journal,
    which: str,
    *which_values: Any,
    condition: str = "1",
    outcomes: bool = False,
    most: float = inf,
) -> list[tuple[Row, RecordedOutcome | None]]:
    """Rows in order, with their prompts and, if asked for, their outcomes; each record is checked.

    journal: where they are.
    which: a SELECT of few seq, with its `which_values`.
    condition: in SQL, on the state `s` of these rows.
    outcomes: whether to read outcomes.
    most: bytes beyond the first prompt after which the page ends early.

    Raises DamagedError.
    """
    cells = f"{_CELLS}, s.status, {TO_SEND}, s.follows_another"
    joined = ""
    if outcomes:
        cells += ", o.*"
        joined = "LEFT JOIN outcomes o ON o.ident = s.ident AND o.key = s.key"
    sql = f"""{state(which)} SELECT {cells} FROM state s JOIN prompts p ON p.n = s.n {joined}
        WHERE s.seq IN (SELECT seq FROM page) AND {condition} ORDER BY s.seq"""
    page: list[tuple[Row, RecordedOutcome | None]] = []
    size = 0
    with journal.select(sql, *which_values) as cursor:
        for record in cursor:
            # The combinations and turns of one prompt follow each other and share its cells.
            same = page[-1][0] if page and page[-1][0].n == record[_N] else None
            row = _row(journal, record, same)
            outcome = None
            if outcomes and record[_OUTCOME] is not None:
                outcome = RecordedOutcome.read(journal, record[_OUTCOME:])
            page.append((row, outcome))
            # The first prompt does not count: it is in memory anyway, and a page that ended within
            # it would read it again for each of its turns.
            size += 0 if same or len(page) == 1 else len(row.text)
            size += len(outcome.packed) if outcome else 0
            if size > most:
                break
    return page


def _row(journal: Journal, record: sqlite3.Row, same: Row | None) -> Row:
    """A row from its cells, its prompt's and its state.

    `same` is a row of the same prompt that was read already.
    """
    seq, n, row_id, axes, conversation, turn, outcome_id, fingerprint, _, error, *_ = (
        journal.checked("rows", record[:_PROMPT])
    )
    if same is None:
        _, line, text, *_ = journal.checked("prompts", record[_PROMPT:_STATUS])
        columns = json.loads(text)
    else:
        line, text, columns = same.line, same.text, same.columns
    return Row(
        seq=seq,
        n=n,
        line=line,
        id=row_id,
        axes={} if axes == "{}" else json.loads(axes),
        conversation=conversation,
        turn=turn,
        outcome_id=outcome_id,
        fingerprint=fingerprint,
        error=error,
        columns=columns,
        text=text,
        status=record[_STATUS],
        to_send=bool(record[_STATUS + 1]),
        follows_another=bool(record[_STATUS + 2]),
    )
