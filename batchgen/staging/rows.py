"""Writes the journal's tables `prompts` and `rows`, as pass 1 fills them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from batchgen.journal.records import digest_of, encodable, fitting, insertion, sealed
from batchgen.prompts import Prompt
from batchgen.requests import Axes, Request, canonical
from batchgen.staging.adoption import adopt_outcomes
from batchgen.staging.forecast import NOTHING, Forecast

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Hex digits of a fingerprint that are shown for a row without an id.
SHOWN_FINGERPRINT = 12

# Bounds on what is held in memory: prompts that are written together, characters of them, and rows.
GROUP = 250
GROUP_SIZE = 4 * 1024 * 1024
GROUP_ROWS = 2500

# The line on which each id comes first. A row whose id could not be read is shown under an id that
# it does not have, so it does not count.
_FIRST_LINES = """SELECT r.id, min(p.line) FROM rows r JOIN prompts p USING(n)
    WHERE r.id IN ({}) AND substr(r.ident, 1, 1) = '=' GROUP BY r.id"""
_LAST_OCCURRENCES = "SELECT key, max(occurrence) FROM rows WHERE key IN ({}) GROUP BY key"


def kept_prompts(connection: sqlite3.Connection) -> Iterator[Prompt]:
    """The prompts that are staged when this is called; others may replace them meanwhile."""
    connection.execute("DROP TABLE IF EXISTS temp.kept")
    connection.execute(
        "CREATE TEMP TABLE kept AS SELECT n, line, columns, error FROM main.prompts ORDER BY n"
    )
    return (
        Prompt(n=n, line=line, columns=json.loads(columns), error=error)
        for n, line, columns, error in connection.execute(
            "SELECT n, line, columns, error FROM temp.kept ORDER BY n"
        )
    )


class Combination(NamedTuple):
    """A prompt with one combination of the matrix.

    Attributes:
        prompt: the prompt.
        row_id: from its id column; None where the job has none.
        axes: the combination.
    """

    prompt: Prompt
    row_id: str | None
    axes: Axes


class Turn(NamedTuple):
    """The position of a row in a conversation.

    Attributes:
        conversation: its name; None for a row on its own.
        number: of the turn, from 1; 0 for a row on its own.
        is_listed: whether the prompt lists the turns. Else a column names the conversation.
    """

    conversation: str | None = None
    number: int = 0
    is_listed: bool = False


ALONE = Turn()


class _PendingRow(NamedTuple):
    """A row that is not written yet.

    Attributes:
        n: its prompt's number.
        axes: as JSON.
        turn: its position in a conversation.
        shown_id: its id; None: the fingerprint is shown.
        outcome_id: made of its id, or of the name of its conversation; None: it is made of a
            fingerprint's occurrence.
        fingerprint: the request's.
        error: why there is no request, or None.
        forecast: what sending it is expected to take.
    """

    n: int
    axes: str
    turn: Turn
    shown_id: str | None
    outcome_id: str | None
    fingerprint: bytes
    error: str | None
    forecast: Forecast


class StagingTables:
    """Fills the tables `prompts` and `rows` in the caller's transaction, many records at once.

    `flush` writes the records that are still in memory.
    """

    def __init__(
        self, connection: sqlite3.Connection, on_duplicate: Callable[[str, int, int], None]
    ) -> None:
        """Empty both tables.

        Args:
            connection: inside a transaction.
            on_duplicate: called with an id that comes again, its line, and the line that had it
                first.
        """
        self._connection, self._on_duplicate = connection, on_duplicate
        connection.execute("DELETE FROM rows")
        connection.execute("DELETE FROM prompts")
        self._prompts: list[tuple[Any, ...]] = []
        self._rows: list[_PendingRow] = []
        self._ids: list[tuple[str, int]] = []
        self._size = 0

    def prompt(self, prompt: Prompt, row_id: str | None) -> None:
        """Add one prompt; its rows follow."""
        if len(self._prompts) >= GROUP or self._size > GROUP_SIZE or len(self._rows) >= GROUP_ROWS:
            self.flush()
        text = _encode(prompt.columns)
        self._size += len(text)
        self._prompts.append(sealed((prompt.n, prompt.line, text, prompt.error)))
        if row_id is not None:
            self._ids.append((encodable(row_id), prompt.line))

    def last_turn(self, conversation: str, axes: Axes) -> tuple[bytes, int]:
        """The fingerprint and number of a conversation's latest turn; b"" and 0 without one."""
        self.flush()
        sql = """SELECT key, turn FROM rows WHERE conversation = ? AND axes = ?
            ORDER BY turn DESC LIMIT 1"""
        last = self._connection.execute(sql, (conversation, canonical(axes))).fetchone()
        return (last[0], last[1]) if last else (b"", 0)

    def row(self, of: Combination, request: Request, turn: Turn, forecast: Forecast) -> None:
        """Add a row.

        Args:
            of: the prompt and the combination that its request was made of.
            request: its request.
            turn: its position in a conversation.
            forecast: what sending it is expected to take.
        """
        self._rows.append(
            _PendingRow(
                of.prompt.n,
                canonical(of.axes),
                turn,
                of.row_id,
                _outcome_id(of, turn),
                request.fingerprint,
                None,
                forecast,
            )
        )

    def broken_row(self, of: Combination, turn: Turn, error: str, *, nameless: bool) -> None:
        """Add a row of which no request could be made.

        Args:
            of: the prompt and the combination that it is made of.
            turn: its position in a conversation.
            error: why there is no request.
            nameless: in a job with an id column, its id cannot be read. It is shown as `row N` but
                has no id: its outcome id can never match that of a real one.
        """
        self._rows.append(
            _PendingRow(
                of.prompt.n,
                canonical(of.axes),
                turn,
                f"row {of.prompt.n}" if nameless else of.row_id,
                None if nameless else _outcome_id(of, turn),
                digest_of(f"{of.prompt.n}\n{error}"),
                error,
                NOTHING,
            )
        )

    def flush(self) -> None:
        """Write what is pending."""
        self._find_duplicates()
        self._connection.executemany(insertion("prompts"), self._prompts)
        self._connection.executemany(insertion("rows"), self._records())
        self._prompts, self._rows, self._ids, self._size = [], [], [], 0

    def _find_duplicates(self) -> None:
        lines = self._pairs(_FIRST_LINES, [row_id for row_id, _ in self._ids])
        for row_id, line in self._ids:
            first = lines.setdefault(row_id, line)
            if first != line:
                self._on_duplicate(row_id, line, first)

    def _records(self) -> list[tuple[Any, ...]]:
        """The pending rows as their table holds them."""
        occurrences = self._occurrences()
        # The turns that a prompt without an id lists belong together as its last request, which
        # depends on all of them. They are pending together.
        last: dict[tuple[int, str], _Named] = {}
        for row, occurrence in zip(self._rows, occurrences, strict=True):
            if row.turn.is_listed and (row.error is None or row.turn.number == 1):
                last[row.n, row.axes] = _Named(row.fingerprint, occurrence)
        return [
            _record(row, occurrence, last.get((row.n, row.axes)))
            for row, occurrence in zip(self._rows, occurrences, strict=True)
        ]

    def _occurrences(self) -> list[int]:
        """The number of each pending row among the rows with the same fingerprint, from 1."""
        fingerprints = [row.fingerprint for row in self._rows]
        last = self._pairs(_LAST_OCCURRENCES, fingerprints)
        occurrences = []
        for fingerprint in fingerprints:
            last[fingerprint] = last.get(fingerprint, 0) + 1
            occurrences.append(last[fingerprint])
        return occurrences

    def _pairs(self, sql: str, values: Sequence[Any]) -> dict[Any, int]:
        """The pairs that a query returns for these values."""
        pairs: dict[Any, int] = {}
        for at in range(0, len(values), GROUP):
            some = values[at : at + GROUP]
            cursor = self._connection.execute(sql.format(", ".join("?" * len(some))), some)
            pairs.update((each[0], each[1]) for each in cursor)
        return pairs

    def adopt_outcomes(self) -> None:
        """Let rows take over outcomes of equal requests; see batchgen.staging.adoption."""
        self.flush()
        adopt_outcomes(self._connection)


class _Named(NamedTuple):
    """A request by which a row is named: its fingerprint, and which of the equal ones it is."""

    fingerprint: bytes
    occurrence: int

    @property
    def shown_id(self) -> str:
        suffix = f"-{self.occurrence}" if self.occurrence > 1 else ""
        return self.fingerprint.hex()[:SHOWN_FINGERPRINT] + suffix


def _outcome_id(of: Combination, turn: Turn) -> str | None:
    if of.row_id is not None:
        return f"={canonical([of.row_id, of.axes, turn.number])}"
    if turn.conversation is None or turn.is_listed:
        return None
    return f"@{canonical([turn.conversation, of.axes])}"


def _record(row: _PendingRow, occurrence: int, last: _Named | None) -> tuple[Any, ...]:
    """A row as its table holds it; `last`: the last request of the turns that its prompt lists."""
    outcome_id = (
        f"#{occurrence}"
        if last is None
        else f"@{canonical([last.fingerprint.hex(), last.occurrence])}"
    )
    forecast = row.forecast
    return sealed(
        (
            row.n,
            row.shown_id or (last or _Named(row.fingerprint, occurrence)).shown_id,
            row.axes,
            row.turn.conversation,
            row.turn.number,
            row.outcome_id or outcome_id,
            row.fingerprint,
            occurrence,
            row.error,
            fitting(forecast.charged),
            fitting(forecast.cost),
            fitting(forecast.cost_bound),
        )
    )
