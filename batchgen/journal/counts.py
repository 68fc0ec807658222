"""What people and limits ask of the journal: how rows stand, what is still to be sent, what was spent."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.journal.database import telling
from batchgen.journal.schema import IN_BATCH, LAST_RUN, TO_SEND, state

# Counted in an index where no scope is given.
_ALL = "iif(? IS NULL, (SELECT count(*) FROM rows WHERE {0}), (SELECT count(*) FROM rows WHERE {0} AND n <= ?))"

# SQLite's own sums end in an error beyond 64 bits.
_HALVES = "sum({0} >> 32) AS {0}_high, sum({0} & 0xffffffff) AS {0}_low"

# A million rows are read once for all that is asked of them, and for those that have succeeded it is enough to count them:
# the rest falls into few groups. `changed`: outdated, and not by redo; `changed_cells`: because the row is another.
_STANDING = f"""{state()}
    SELECT status, to_send, in_batch, again, lost, changed, iif(changed, NOT EXISTS (
            SELECT 1 FROM outcomes e WHERE e.ident = open.ident AND e.key <> open.key AND e.status <> 'failed'
            AND e.columns_digest = (SELECT digest(p.columns) FROM prompts p WHERE p.n = open.n)), 0) AS changed_cells,
        iif(status IN ('failed', 'incomplete'), iif(error IS NOT NULL, 'input', iif(passing AND tries >= {LAST_RUN},
            'gave_up', coalesce(reason, finish_reason))), NULL) AS why,
        count(*) AS count, {_HALVES.format("tokens")}, count(cost) AS costs, {_HALVES.format("cost")},
        count(cost_bound) AS cost_bounds, {_HALVES.format("cost_bound")}
    FROM (SELECT s.*, {TO_SEND} AS to_send, {IN_BATCH} AS in_batch, s.status = 'outdated' AND NOT coalesce(s.redo, 0) AS changed
        FROM (SELECT * FROM state WHERE n <= ? AND verdict <> 'succeeded' LIMIT -1) s) open
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    UNION ALL
    SELECT NULL, 0, 0, 0, 0, 0, 0, NULL, {_ALL.format("1")}, 0, 0, 0, 0, 0, 0, 0, 0"""

# The same of table lines that are all turns of a row: a line's status is that of the turn furthest from success.
_RANKS = ("failed", "incomplete", "pending", "outdated", "blocked")
_LINES = f"""{state()}
    SELECT status, count(*) AS count FROM (
        SELECT status, min(CASE status {" ".join(f"WHEN '{name}' THEN {at}" for at, name in enumerate(_RANKS))} END)
        FROM state WHERE n <= ? AND verdict <> 'succeeded' GROUP BY n, axes)
    GROUP BY status
    UNION ALL
    SELECT NULL, {_ALL.format("turn <= 1")}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """Where rows stand: table `lines` and `requests` by status (the same but where a line is all turns of a row), and the
    failed and incomplete requests by reason, most first.

    Of the requests that would be sent now: how many, how many only because a passing failure is tried `again`, their
    tokens, cost and its bound (nano-dollars, None when one is unknown); and how many of them have lost their pictures, or are
    outdated, redo excepted, because the cells of their row have changed or because the job has. And how many requests are in
    open batches, which are not sent again while they are.
    """

    lines: Mapping[str, int]
    requests: Mapping[str, int]
    failures: Mapping[str, int]
    to_send: int
    again: int
    tokens: int
    cost: int | None
    cost_bound: int | None
    changed_job: int
    changed_rows: int
    lost: int
    in_batches: int


class Counts:
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

    def standing(self, scope: int | None, *, by_turns: bool) -> RowCounts:
        """Where the prompts' first `scope` rows (None: all) stand; with `by_turns` a table line is all turns of a row."""
        groups = self.query(_STANDING, upto(scope), scope, scope)
        requests = _by_status(groups)
        if by_turns:
            lines = _by_status(self.query(_LINES, upto(scope), scope, scope))
        to_send = [group for group in groups if group["to_send"]]
        return RowCounts(
            lines=lines if by_turns else requests,
            requests=requests,
            to_send=_sum(to_send, "count"),
            again=_sum(to_send, "count", "again"),
            tokens=_whole(to_send, "tokens"),
            cost=_known(to_send, "cost"),
            cost_bound=_known(to_send, "cost_bound"),
            changed_job=_sum(to_send, "count", "changed") - _sum(to_send, "count", "changed_cells"),
            changed_rows=_sum(to_send, "count", "changed_cells"),
            lost=_sum(to_send, "count", "lost"),
            in_batches=_sum(groups, "count", "in_batch"),
            failures=_failures(groups),
        )

    def totals(self, run: int | None = None) -> dict[str, int]:
        """What the calls of all runs took, or of one: how many they are, their tokens and cost in nano-dollars; `unpriced`
        counts those whose cost is unknown."""
        where, value = ("run = ?", run) if run is not None else ("1 = ?", 1)
        found = self.query(
            f"""SELECT count(*) AS calls, coalesce(sum(input_tokens), 0) AS input_tokens,
                coalesce(sum(output_tokens), 0) AS output_tokens, coalesce(sum(cost), 0) AS cost,
                coalesce(sum(cost IS NULL), 0) AS unpriced FROM attempts WHERE {where}""",
            value,
        )
        return dict(found[0])

    def models(self, run: int | None = None) -> tuple[str, ...]:
        """The models that answered, as they named themselves: in all runs, or in one."""
        where, value = ("run = ?", run) if run is not None else ("1 = ?", 1)
        sql = f"SELECT DISTINCT model FROM outcomes WHERE model IS NOT NULL AND {where} ORDER BY 1"
        return tuple(row["model"] for row in self.query(sql, value))


def upto(scope: int | None) -> int:
    """The largest row number in scope."""
    return scope if scope is not None else 2**62


Groups = Iterable[sqlite3.Row]


def _by_status(groups: Groups) -> dict[str, int]:
    """How many there are in each status, where the group without one is all of them."""
    counts: Counter[str | None] = Counter()
    for group in groups:
        counts[group["status"]] += group["count"]
    total = counts.pop(None)
    found = {str(status): count for status, count in counts.items()}
    left = total - sum(found.values())
    return {**found, "succeeded": left} if left else found


def _sum(groups: Groups, name: str, condition: str | None = None) -> int:
    return sum(group[name] or 0 for group in groups if condition is None or group[condition])


def _whole(groups: Groups, name: str) -> int:
    """A sum out of its halves."""
    return (_sum(groups, f"{name}_high") << 32) + _sum(groups, f"{name}_low")


def _known(groups: Groups, name: str) -> int | None:
    """The sum of what is known of every request, else None."""
    known = all(group[f"{name}s"] == group["count"] for group in groups)
    return _whole(groups, name) if known else None


def _failures(groups: Groups) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for group in groups:
        if group["status"] in ("failed", "incomplete"):
            counts[group["why"]] += group["count"]
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0] or "")))
