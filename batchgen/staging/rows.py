"""Pass 1's half of the journal: prompts and rows, replaced all at once or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from batchgen.journal.records import digest_of, encodable, fitting, insertion, sealed, update
from batchgen.prompts import Prompt
from batchgen.requests import Request, canonical

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Hex digits of a key that stand for a row without an id.
SHOWN_KEY = 12

# Prompts that are written together, characters of them, and their rows: bounds on what is held in memory.
GROUP = 250
GROUP_SIZE = 4 * 1024 * 1024
GROUP_ROWS = 2500

# What only stands for an id is nobody's.
_FIRST_LINES = """SELECT r.id, min(p.line) FROM rows r JOIN prompts p USING(n)
    WHERE r.id IN ({}) AND substr(r.ident, 1, 1) = '=' GROUP BY r.id"""
_LAST_OCCURRENCES = "SELECT key, max(occurrence) FROM rows WHERE key IN ({}) GROUP BY key"

# Outcomes, and requests in batches, that no row has, and which row without any has the same key: the first row the first's.
_ADOPTION = (
    "CREATE TEMP TABLE orphans(key BLOB, place INTEGER, ident TEXT, PRIMARY KEY(key, place)) WITHOUT ROWID",
    """INSERT INTO orphans SELECT key, row_number() OVER (PARTITION BY key ORDER BY length(ident), ident), ident
        FROM (SELECT key, ident FROM outcomes UNION SELECT key, ident FROM members EXCEPT SELECT key, ident FROM rows) o
        WHERE EXISTS (SELECT 1 FROM rows r WHERE r.key = o.key)""",
    """CREATE TEMP TABLE adopted AS
        WITH needy AS (
            SELECT r.seq, r.key, row_number() OVER (PARTITION BY r.key ORDER BY r.seq) AS place FROM rows r
            WHERE r.key IN (SELECT key FROM orphans)
                AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.ident = r.ident AND o.key = r.key)
                AND NOT EXISTS (SELECT 1 FROM members m WHERE m.ident = r.ident AND m.key = r.key)
                AND NOT EXISTS (
                    SELECT 1 FROM rows f WHERE f.conversation = r.conversation AND f.axes = r.axes AND f.turn = 1 AND (
                        EXISTS (SELECT 1 FROM rows g WHERE g.key = f.key AND g.occurrence = 2)
                        OR (SELECT count(*) FROM outcomes o WHERE o.ident = f.ident AND o.key = f.key)
                            + (SELECT count(*) FROM orphans x WHERE x.key = f.key AND x.place <= 2) > 1)))
        SELECT n.seq, o.ident FROM needy n JOIN orphans o ON o.key = n.key AND o.place = n.place""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What one call is expected to take: tokens in and out, its cost and its highest cost in nano-dollars (None: unknown)."""

    tokens: int
    cost: int | None
    cost_bound: int | None


_NOTHING = Expected(tokens=0, cost=0, cost_bound=0)


def kept_prompts(connection: sqlite3.Connection) -> Iterator[Prompt]:
    """The prompts that are staged at the moment of the call, also while others, or these, are staged in their place."""
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


# The id of a row that has one, and its identity where the prompts gave the id.
_Named = tuple[str, str | None]


class _Held(NamedTuple):
    """A row that is not written yet."""

    n: int
    axes: str
    thread: tuple[str | None, int]
    named: _Named | None
    fingerprint: bytes
    error: str | None
    expected: Expected


class StagingTables:
    """Fills `prompts` and `rows` inside the caller's transaction, many lines at once; `flush` writes the last of them.
    `doubled` is told each id that comes again, its line, and the line that had it first."""

    def __init__(
        self, connection: sqlite3.Connection, doubled: Callable[[str, int, int], None]
    ) -> None:
        self._connection, self._doubled = connection, doubled
        connection.execute("DELETE FROM rows")
        connection.execute("DELETE FROM prompts")
        self._prompts: list[tuple[Any, ...]] = []
        self._rows: list[_Held] = []
        self._named: list[tuple[str, int]] = []
        self._size = 0

    def prompt(self, prompt: Prompt, identity: str | None) -> None:
        """One row of the prompts file; its requests follow."""
        if len(self._prompts) >= GROUP or self._size > GROUP_SIZE or len(self._rows) >= GROUP_ROWS:
            self.flush()
        text = _encode(prompt.columns)
        self._size += len(text)
        self._prompts.append(sealed((prompt.n, prompt.line, text, prompt.error)))
        if identity is not None:
            self._named.append((encodable(identity), prompt.line))

    def previous(self, conversation: str, axes: Mapping[str, Any]) -> tuple[bytes, int]:
        """The key and number of a conversation's latest turn; b"" and 0 for a conversation not begun."""
        self.flush()
        sql = "SELECT key, turn FROM rows WHERE conversation = ? AND axes = ? ORDER BY turn DESC LIMIT 1"
        found = self._connection.execute(sql, (conversation, canonical(axes))).fetchone()
        return (found[0], found[1]) if found else (b"", 0)

    def row(
        self,
        n: int,
        identity: str | None,
        request: Request,
        conversation: str | None,
        expected: Expected,
    ) -> None:
        """One request of a row, and what it is expected to take."""
        thread = (conversation, request.turn)
        self._hold(
            n,
            _named(identity, request.axes, thread[1]),
            request.axes,
            thread,
            request.fingerprint,
            None,
            expected,
        )

    def broken(
        self,
        n: int,
        identity: str | None,
        axes: Mapping[str, Any],
        thread: tuple[str, int] | None,
        error: str,
    ) -> None:
        """A row of which no request could be made; `thread` is its conversation and turn. It keeps its place."""
        self._break(n, _named(identity, axes, thread[1] if thread else 0), axes, thread, error)

    def nameless(
        self, n: int, axes: Mapping[str, Any], thread: tuple[str, int] | None, error: str
    ) -> None:
        """A broken row whose id cannot be read, where the others have one: its number stands for it, and is nobody's id."""
        self._break(n, (f"row {n}", None), axes, thread, error)

    def _break(
        self,
        n: int,
        named: _Named | None,
        axes: Mapping[str, Any],
        thread: tuple[str, int] | None,
        error: str,
    ) -> None:
        self._hold(n, named, axes, thread or (None, 0), digest_of(f"{n}\n{error}"), error, _NOTHING)

    def _hold(
        self,
        n: int,
        named: _Named | None,
        axes: Mapping[str, Any],
        thread: tuple[str | None, int],
        fingerprint: bytes,
        error: str | None,
        expected: Expected,
    ) -> None:
        self._rows.append(_Held(n, canonical(axes), thread, named, fingerprint, error, expected))

    def flush(self) -> None:
        """Write what is held."""
        self._look_for_duplicates()
        occurrences = self._occurrences()
        lines = map(_line, self._rows, occurrences)
        self._connection.executemany(insertion("prompts"), self._prompts)
        self._connection.executemany(insertion("rows"), lines)
        self._prompts, self._rows, self._named, self._size = [], [], [], 0

    def _look_for_duplicates(self) -> None:
        lines = self._found(_FIRST_LINES, [identity for identity, _ in self._named])
        for identity, line in self._named:
            first = lines.setdefault(identity, line)
            if first != line:
                self._doubled(identity, line, first)

    def _occurrences(self) -> list[int]:
        """Which one of the rows with the same key each held row is, from 1."""
        keys = [row.fingerprint for row in self._rows]
        last = self._found(_LAST_OCCURRENCES, keys)
        found = []
        for fingerprint in keys:
            last[fingerprint] = last.get(fingerprint, 0) + 1
            found.append(last[fingerprint])
        return found

    def _found(self, sql: str, values: Sequence[Any]) -> dict[Any, int]:
        """The pairs that a query finds of these values."""
        pairs: dict[Any, int] = {}
        for at in range(0, len(values), GROUP):
            some = values[at : at + GROUP]
            found = self._connection.execute(sql.format(", ".join("?" * len(some))), some)
            pairs.update((each[0], each[1]) for each in found)
        return pairs

    def name_thread(self, conversation: str, axes: Mapping[str, Any]) -> None:
        """Give all turns of one row without an id the identity of its last turn: its key holds the whole thread."""
        sql = "SELECT seq, id FROM rows WHERE conversation = ? AND axes = ? ORDER BY turn"
        self.flush()
        turns = self._connection.execute(sql, (conversation, canonical(axes))).fetchall()
        for seq, _ in turns[:-1]:
            update(self._connection, "rows", seq, {"id": turns[-1][1]})

    def adopt(self) -> None:
        """Have rows without an outcome take over those that no staged row has any more, and those that a batch will bring:
        the same requests, whose identity alone has changed. The rows take their identity, in order, so that nothing
        recorded is touched.

        A conversation does so only where its first turn's request is staged once and recorded once: equal ones have
        replies of their own, and the later turns follow from them.
        """
        self.flush()
        recorded = "SELECT EXISTS (SELECT 1 FROM outcomes) OR EXISTS (SELECT 1 FROM members)"
        if not self._connection.execute(recorded).fetchone()[0]:
            return
        for statement in _ADOPTION:
            self._connection.execute(statement)
        for seq, outcome_id in self._connection.execute(
            "SELECT seq, ident FROM temp.adopted ORDER BY seq"
        ):
            update(self._connection, "rows", seq, {"ident": outcome_id})
        self._connection.execute("DROP TABLE temp.adopted")
        self._connection.execute("DROP TABLE temp.orphans")


def _named(identity: str | None, axes: Mapping[str, Any], turn: int) -> _Named | None:
    return None if identity is None else (identity, f"={canonical([identity, axes, turn])}")


def _line(row: _Held, occurrence: int) -> tuple[Any, ...]:
    """A row as its table holds it."""
    shown = row.fingerprint.hex()[:SHOWN_KEY] + (f"-{occurrence}" if occurrence > 1 else "")
    identity, outcome_id = row.named or (shown, None)
    expected = row.expected
    takes = map(fitting, (expected.tokens, expected.cost, expected.cost_bound))
    return sealed(
        (
            row.n,
            identity,
            row.axes,
            *row.thread,
            outcome_id or f"#{occurrence}",
            row.fingerprint,
            occurrence,
            row.error,
            *takes,
        )
    )
