"""Pass 1's half of the journal: prompts and rows, replaced all at once or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchgen.journal.records import digest_of, insert, update
from batchgen.prompts import Prompt
from batchgen.requests import Request, canonical

# Hex digits of a key that stand for a row without an id.
SHOWN_KEY = 12

# Outcomes that no row has, and which row without an outcome has the same key: the first row the first outcome's.
_ADOPTION = (
    "CREATE TEMP TABLE orphans(key TEXT, place INTEGER, ident TEXT, PRIMARY KEY(key, place)) WITHOUT ROWID",
    """INSERT INTO orphans SELECT key, row_number() OVER (PARTITION BY key ORDER BY length(ident), ident), ident
        FROM (SELECT key, ident FROM outcomes EXCEPT SELECT key, ident FROM rows) o
        WHERE EXISTS (SELECT 1 FROM rows r WHERE r.key = o.key)""",
    """CREATE TEMP TABLE adopted AS
        WITH needy AS (
            SELECT r.seq, r.key, row_number() OVER (PARTITION BY r.key ORDER BY r.seq) AS place FROM rows r
            WHERE r.key IN (SELECT key FROM orphans)
                AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.ident = r.ident AND o.key = r.key)
                AND NOT EXISTS (
                    SELECT 1 FROM rows f WHERE f.conversation = r.conversation AND f.axes = r.axes AND f.turn = 1 AND (
                        EXISTS (SELECT 1 FROM rows g WHERE g.key = f.key AND g.occurrence = 2)
                        OR (SELECT count(*) FROM outcomes o WHERE o.ident = f.ident AND o.key = f.key)
                            + (SELECT count(*) FROM orphans x WHERE x.key = f.key AND x.place <= 2) > 1)))
        SELECT n.seq, o.ident FROM needy n JOIN orphans o ON o.key = n.key AND o.place = n.place""",
)


class DuplicateId(Exception):  # noqa: N818 - a finding, told as a Problem
    """An id that an earlier line has already; `line` is that line."""

    def __init__(self, line: int) -> None:
        self.line = line
        super().__init__(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What one call is expected to take: tokens in and out, its cost and its highest cost in nano-dollars (None: unknown)."""

    tokens: int
    cost: int | None
    cost_bound: int | None


def kept_prompts(connection: sqlite3.Connection) -> Iterator[Prompt]:
    """The prompts that are staged at the moment of the call, also while others, or these, are staged in their place."""
    connection.execute("DROP TABLE IF EXISTS temp.kept")
    connection.execute("CREATE TEMP TABLE kept AS SELECT n, line, columns, error FROM main.prompts ORDER BY n")
    return (
        Prompt(n=n, line=line, columns=json.loads(columns), error=error)
        for n, line, columns, error in connection.execute("SELECT n, line, columns, error FROM temp.kept ORDER BY n")
    )


class Staging:
    """Fills `prompts` and `rows` inside the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("DELETE FROM rows")
        connection.execute("DELETE FROM prompts")

    def prompt(self, prompt: Prompt, identity: str | None) -> None:
        """One row of the prompts file. Raises DuplicateId."""
        text = json.dumps(prompt.columns, ensure_ascii=False, separators=(",", ":"))
        try:
            cells = {"n": prompt.n, "line": prompt.line, "id": identity, "columns": text, "digest": digest_of(text)}
            insert(self._connection, "prompts", {**cells, "error": prompt.error})
        except sqlite3.IntegrityError:
            found = self._connection.execute("SELECT line FROM prompts WHERE id = ?", (identity,)).fetchone()
            raise DuplicateId(found[0]) from None

    def previous(self, conversation: str, axes: Mapping[str, Any]) -> tuple[str, int]:
        """The key and number of a conversation's latest turn; "" and 0 for a conversation not begun."""
        sql = "SELECT key, turn FROM rows WHERE conversation = ? AND axes = ? ORDER BY turn DESC LIMIT 1"
        found = self._connection.execute(sql, (conversation, canonical(axes))).fetchone()
        return (found[0], found[1]) if found else ("", 0)

    def row(self, n: int, identity: str | None, request: Request, conversation: str | None, expected: Expected) -> None:
        """One request of a row, and what it is expected to take."""
        self._insert(n, identity, request.axes, conversation, request.turn, request.key, None, expected)

    def broken(
        self, n: int, identity: str | None, axes: Mapping[str, Any], thread: tuple[str, int] | None, error: str
    ) -> None:
        """A row of which no request could be made; `thread` is its conversation and turn. It keeps its place."""
        key = digest_of(f"{n}\n{error}").hex()
        conversation, turn = thread or (None, 0)
        self._insert(n, identity, axes, conversation, turn, key, error, Expected(tokens=0, cost=0, cost_bound=0))

    def _insert(
        self,
        n: int,
        identity: str | None,
        axes: Mapping[str, Any],
        conversation: str | None,
        turn: int,
        key: str,
        error: str | None,
        expected: Expected,
    ) -> None:
        sql = "SELECT coalesce(max(occurrence), 0) + 1 FROM rows WHERE key = ?"
        occurrence = self._connection.execute(sql, (key,)).fetchone()[0]
        shown = key[:SHOWN_KEY] + (f"-{occurrence}" if occurrence > 1 else "")
        ident = f"#{occurrence}" if identity is None else f"={canonical([identity, axes, turn])}"
        insert(
            self._connection,
            "rows",
            {
                "n": n,
                "id": shown if identity is None else identity,
                "axes": canonical(axes),
                "conversation": conversation,
                "turn": turn,
                "ident": ident,
                "key": key,
                "occurrence": occurrence,
                "error": error,
                "tokens": expected.tokens,
                "cost": expected.cost,
                "cost_bound": expected.cost_bound,
            },
        )

    def name_thread(self, conversation: str, axes: Mapping[str, Any]) -> None:
        """Give all turns of one row without an id the identity of its last turn: its key holds the whole thread."""
        sql = "SELECT seq, id FROM rows WHERE conversation = ? AND axes = ? ORDER BY turn"
        turns = self._connection.execute(sql, (conversation, canonical(axes))).fetchall()
        for seq, _ in turns[:-1]:
            update(self._connection, "rows", seq, {"id": turns[-1][1]})

    def adopt(self) -> None:
        """Have rows without an outcome take over those that no staged row has any more: the same requests, whose identity
        alone has changed. The rows take the identity of the outcomes, in order, so that nothing recorded is touched.

        A conversation does so only where its first turn's request is staged once and recorded once: equal ones have
        replies of their own, and the later turns follow from them.
        """
        if not self._connection.execute("SELECT EXISTS (SELECT 1 FROM outcomes)").fetchone()[0]:
            return
        for statement in _ADOPTION:
            self._connection.execute(statement)
        for seq, ident in self._connection.execute("SELECT seq, ident FROM temp.adopted ORDER BY seq"):
            update(self._connection, "rows", seq, {"ident": ident})
        self._connection.execute("DROP TABLE temp.adopted")
        self._connection.execute("DROP TABLE temp.orphans")
