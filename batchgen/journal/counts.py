"""How many rows are in each status, and what sending the rest is expected to take."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from batchgen.journal.journal import Journal
from batchgen.journal.schema import total_of
from batchgen.journal.scope import WHOLE, Scope
from batchgen.journal.status import IN_BATCH, MAX_TRIES, TO_SEND, WORST_FIRST, state

_RANK = " ".join(f"WHEN '{status}' THEN {rank}" for rank, status in enumerate(WORST_FIRST))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSend:
    """Requests that would be sent.

    requests: how many.
    tokens: what limits are charged for them: their input, and the caps of their answers.
    cost: what they are expected to cost, in nano-dollars; None when one is unknown.
    """

    requests: int
    tokens: int
    cost: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """How many rows are in which status.

    lines: table lines by status.
    requests: requests by status; differs from `lines` if a line stands for all turns of a row.
    failures: failed and incomplete requests by reason, most first.
    examples: the seq of the first request of each of these reasons.
    in_batches: requests in open batches, which are not sent while they are there.
    to_send: requests that would be sent now; the fields below are about these.
    tokens: what limits are charged for them: their input, and the caps of their answers.
    cost, cost_bound: what they are expected to cost, and the highest cost; in nano-dollars,
        None when one is unknown.
    retried: how many failed, and are sent only because the failure was a passing one.
    changed_rows: how many are outdated because cells of their row have changed.
    changed_job: how many are outdated because the job or an earlier turn has changed.
    lost: how many have lost their pictures.
    by_axes: what these are expected to take by combination of the matrix, as JSON.
    """

    lines: Mapping[str, int]
    requests: Mapping[str, int]
    failures: Mapping[str, int]
    examples: Mapping[str, int]
    in_batches: int
    to_send: int
    tokens: int
    cost: int | None
    cost_bound: int | None
    retried: int
    changed_rows: int
    changed_job: int
    lost: int
    by_axes: Mapping[str, ToSend]


def count_rows(journal: Journal, scope: Scope = WHOLE, *, by_turns: bool) -> RowCounts:
    """Count the rows in scope.

    With `by_turns`, a table line stands for all turns of a row.
    """
    groups = journal.query(_groups_in(scope))
    requests = lines = _by_status(groups)
    if by_turns:
        lines = _by_status(journal.query(_lines_in(scope)))
    to_send = [group for group in groups if group["to_send"]]
    changed, changed_rows = _count(to_send, "changed"), _count(to_send, "changed_cells")
    return RowCounts(
        lines=lines,
        requests=requests,
        failures=_failures(groups),
        examples=_examples(groups),
        in_batches=_count(groups, "in_batch"),
        to_send=_count(to_send, "to_send"),
        tokens=_total(to_send, "tokens"),
        cost=_known_total(to_send, "cost"),
        cost_bound=_known_total(to_send, "cost_bound"),
        retried=_count(to_send, "retried"),
        changed_rows=changed_rows,
        changed_job=changed - changed_rows,
        lost=_count(to_send, "lost"),
        by_axes=_by_axes(to_send),
    )


def _groups_in(scope: Scope) -> str:
    """SQL that groups the requests in scope that have not succeeded, and counts all.

    One pass over all rows answers every question. Rows that have succeeded are many and only
    counted; the rest falls into few groups. LIMIT -1 keeps SQLite from merging the inner query and
    working the status out more than once a row. `changed`: outdated, and not by redo.
    `changed_cells`: because the prompt has changed since its last answer.
    """
    return f"""{state()}
    SELECT status, to_send, in_batch, retried, lost, changed,
        iif(changed AND (recorded IS NULL OR lost), NOT EXISTS (
            SELECT 1 FROM owned e
            WHERE e.owner = open.ident AND e.key <> open.key AND e.status <> 'failed'
            AND e.columns_digest = (SELECT digest(p.columns) FROM prompts p WHERE p.n = open.n)
        ), 0) AS changed_cells,
        iif(status IN ('failed', 'incomplete'), iif(error IS NOT NULL, 'input',
            iif(passing AND tries >= {MAX_TRIES}, 'gave_up', coalesce(reason, finish_reason))
        ), NULL) AS why,
        axes, min(seq) AS first, count(*) AS count, {total_of("tokens")} AS tokens,
        count(cost) AS costs, {total_of("cost")} AS cost,
        count(cost_bound) AS cost_bounds, {total_of("cost_bound")} AS cost_bound
    FROM (
        SELECT s.*, {TO_SEND} AS to_send, {IN_BATCH} AS in_batch,
            s.status = 'outdated' AND NOT coalesce(s.redo, 0) AS changed
        FROM (SELECT * FROM state WHERE {scope.condition()}
            AND (verdict <> 'succeeded' OR turn > open_turn) LIMIT -1) s) open
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
    UNION ALL
    SELECT NULL, 0, 0, 0, 0, 0, 0, NULL, '', 0, (
        SELECT count(*) FROM rows WHERE {scope.condition()}), 0, 0, 0, 0, 0"""


def _lines_in(scope: Scope) -> str:
    """The same where a table line is all turns of a row: its status is that of the turn furthest
    from success.
    """
    return f"""{state()}
    SELECT status, count(*) AS count FROM (
        SELECT status, min(CASE status {_RANK} END)
        FROM state WHERE {scope.condition()} AND verdict <> 'succeeded' GROUP BY n, axes)
    GROUP BY status
    UNION ALL
    SELECT NULL, (
        SELECT count(*) FROM rows WHERE {scope.condition()} AND turn <= 1)"""


Groups = Iterable[sqlite3.Row]


def _by_status(groups: Groups) -> dict[str, int]:
    """How many there are in each status.

    The group without a status counts all; those in no other group succeeded.
    """
    counts: Counter[str | None] = Counter()
    for group in groups:
        counts[group["status"]] += group["count"]
    total = counts.pop(None)
    by_status = {str(status): count for status, count in counts.items()}
    succeeded = total - sum(by_status.values())
    return {**by_status, "succeeded": succeeded} if succeeded else by_status


def _count(groups: Groups, condition: str) -> int:
    return sum(group["count"] for group in groups if group[condition])


def _total(groups: Groups, name: str) -> int:
    return sum(int(group[name]) for group in groups)


def _known_total(groups: Groups, name: str) -> int | None:
    """The total; None if it is unknown for any request."""
    known = all(group[f"{name}s"] == group["count"] for group in groups)
    return _total(groups, name) if known else None


def _failures(groups: Groups) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for group in groups:
        if group["status"] in ("failed", "incomplete"):
            counts[group["why"]] += group["count"]
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0] or "")))


def _examples(groups: Groups) -> dict[str, int]:
    """The first seq of each reason for which requests failed or are incomplete."""
    first: dict[str, int] = {}
    for group in groups:
        if group["status"] in ("failed", "incomplete"):
            first[group["why"]] = min(group["first"], first.get(group["why"], group["first"]))
    return first


def _by_axes(to_send: Sequence[sqlite3.Row]) -> dict[str, ToSend]:
    axes = sorted({group["axes"] for group in to_send})
    parts = {each: [group for group in to_send if group["axes"] == each] for each in axes}
    return {
        each: ToSend(
            requests=_count(part, "to_send"),
            tokens=_total(part, "tokens"),
            cost=_known_total(part, "cost"),
        )
        for each, part in parts.items()
    }
