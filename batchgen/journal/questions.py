"""What people and limits ask of the journal: counts, what is still to be sent, what was spent."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

from batchgen.journal.database import telling
from batchgen.journal.schema import LAST_RUN, TO_SEND, state


class Questions:
    """The journal's half that counts. `scope` limits it to the prompts' first rows (None: all)."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        # Pages are read in threads, off the event loop; one at a time.
        self._reading = threading.RLock()

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """All the rows of a query."""
        with telling(self.path), self._reading:
            return self._connection.execute(sql, values).fetchall()

    def counts(self, scope: int | None, *, by_turns: bool) -> dict[str, int]:
        """Table lines by status, of the prompts' first `scope` rows (None: all); with `by_turns` a line is all its turns,
        and its status that of the turn that is furthest from success."""
        rank = "CASE status WHEN 'failed' THEN 1 WHEN 'incomplete' THEN 2 WHEN 'pending' THEN 3 WHEN 'outdated' THEN 4"
        source = "SELECT status FROM state WHERE n <= ?"
        if by_turns:
            source = f"""SELECT status, min({rank} WHEN 'blocked' THEN 5 ELSE 6 END) FROM state
                         WHERE n <= ? GROUP BY n, axes"""
        sql = f"{state()} SELECT status, count(*) FROM ({source}) GROUP BY status"
        found = self.query(sql, upto(scope))
        return {row["status"]: row["count(*)"] for row in found}

    def todo(self, scope: int | None) -> tuple[int, int]:
        """How many requests would be sent now, and how many of them only because a passing failure is tried again."""
        sql = f"{state()} SELECT count(*), coalesce(sum(again), 0) FROM state s WHERE n <= ? AND {TO_SEND}"
        found = self.query(sql, upto(scope))[0]
        return found[0], found[1]

    def forecast(self, scope: int | None) -> dict[str, Any]:
        """What is still to be sent: requests, tokens, cost and its bound (nano-dollars, None when one is unknown), and
        why: `changed_rows` and `changed_job` count the outdated ones whose cells did or did not change, `lost` those whose
        pictures are missing."""
        known = "iif(count({0}) = count(*), coalesce(sum({0}), 0), NULL) AS {0}"
        found = self.query(
            f"""{state()} SELECT count(*) AS requests, coalesce(sum(tokens), 0) AS tokens, {known.format("cost")},
                {known.format("cost_bound")} FROM state s WHERE n <= ? AND {TO_SEND}""",
            upto(scope),
        )[0]
        same = f"""{state()} SELECT count(*) FROM state s JOIN prompts p USING(n) WHERE n <= ? AND status = 'outdated'
                  AND NOT coalesce(redo, 0) AND EXISTS (SELECT 1 FROM outcomes e WHERE e.ident = s.ident
                  AND e.key <> s.key AND e.status <> 'failed' AND e.columns_digest = digest(p.columns))"""
        changed_job = self.query(same, upto(scope))[0][0]
        outdated = (
            f"{state()} SELECT count(*) FROM state WHERE n <= ? AND status = 'outdated' AND NOT coalesce(redo, 0)"
        )
        lost = f"{state()} SELECT count(*) FROM state s WHERE n <= ? AND lost AND {TO_SEND}"
        return {
            **dict(found),
            "lost": self.query(lost, upto(scope))[0][0],
            "changed_job": changed_job,
            "changed_rows": self.query(outdated, upto(scope))[0][0] - changed_job,
        }

    def totals(self, scope: int | None, run: int | None = None) -> dict[str, Any]:
        """Tokens and the cost of the answers to the rows in scope, or of the calls of one run; with calls and failures.

        Costs are nano-dollars; `unpriced` counts the calls whose cost is unknown."""
        where, value = ("run = ?", run) if run is not None else ("1 = ?", 1)
        calls = self.query(
            f"""SELECT count(*) AS calls, coalesce(sum(input_tokens), 0) AS input_tokens,
                coalesce(sum(output_tokens), 0) AS output_tokens, coalesce(sum(cost), 0) AS cost,
                coalesce(sum(cost IS NULL), 0) AS unpriced FROM attempts WHERE {where}""",
            value,
        )[0]
        reasons = self.query(
            f"""{state()} SELECT iif(s.error IS NOT NULL, 'input', iif(o.passing AND o.tries >= {LAST_RUN}, 'gave_up',
                    coalesce(o.reason, o.finish_reason))) AS reason, count(*) AS rows
                FROM state s LEFT JOIN outcomes o ON o.ident = s.ident AND o.key = s.key
                WHERE n <= ? AND s.status IN ('failed', 'incomplete') GROUP BY 1 ORDER BY 2 DESC, 1""",
            upto(scope),
        )
        return {**dict(calls), "failures": {row["reason"]: row["rows"] for row in reasons}}

    def models(self, run: int | None = None) -> tuple[str, ...]:
        """The models that answered, as they named themselves: in all runs, or in one."""
        where, value = ("run = ?", run) if run is not None else ("1 = ?", 1)
        sql = f"SELECT DISTINCT model FROM outcomes WHERE model IS NOT NULL AND {where} ORDER BY 1"
        return tuple(row["model"] for row in self.query(sql, value))


def upto(scope: int | None) -> int:
    """The largest row number in scope."""
    return scope if scope is not None else 2**62
