"""The tables `batches` and `members`.

Functions that read take the journal and raise DamagedError. Functions that write return a Change
for the writer.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from batchgen.dispatch.batches.records import Batch, Member
from batchgen.journal.change import Change
from batchgen.journal.journal import Journal
from batchgen.journal.records import fitting, insert, update
from batchgen.journal.schema import total_of
from batchgen.kinds import KIND_BY_ENDPOINT
from batchgen.replies import outline
from batchgen.requests import Request, canonical

# Members that are read together: a bound on memory.
PAGE = 250

# Seconds for which a closed batch still counts when the limit of its model's queue is estimated.
RECENT = 24 * 3600.0

# The attributes of a Batch that are columns of the same name and type.
_SAME = (
    "tag",
    "endpoint",
    "model",
    "made_at",
    "requests",
    "tokens",
    "file",
    "id",
    "status",
    "room",
    "closed_at",
)


def open_batches(journal: Journal) -> list[Batch]:
    """The batches that are not closed, oldest first."""
    return _batches(journal, "closed_at IS NULL")


def recent_batches(journal: Journal) -> list[Batch]:
    """The open batches, and those closed in the last day, oldest first."""
    return _batches(journal, "closed_at IS NULL OR closed_at > ?", time.time() - RECENT)


def batch_of(journal: Journal, outcome_id: str, fingerprint: bytes) -> Batch | None:
    """The batch that a request is in, or None."""
    number = "SELECT batch FROM members WHERE ident = ? AND key = ?"
    batches = _batches(journal, f"batch = ({number})", outcome_id, fingerprint)
    return batches[0] if batches else None


def next_number(journal: Journal) -> int:
    """The number of the next batch."""
    return int(journal.query("SELECT coalesce(max(batch), 0) + 1 FROM batches")[0][0])


def members(journal: Journal, batch: Batch, lines: Collection[int] | None) -> dict[int, Member]:
    """The members without an outcome, by line: those of `lines`, or (None) the first PAGE."""
    some = "" if lines is None else f" AND line IN ({', '.join('?' * len(lines))})"
    condition = f"batch = ?{some} ORDER BY line LIMIT {PAGE}"
    records = journal.records("members", condition, batch.number, *(lines or ()))
    return {record["line"]: _member(batch, record) for record in records}


def set_aside(journal: Journal, run: int | None = None) -> int | None:
    """The most that the requests in batches (of one run, or all) may cost, in nano-dollars.

    A request without a price counts as much as the dearest row. None when there is no price at all.
    """
    where = "batch IN (SELECT batch FROM batches WHERE run = ?)" if run is not None else "? IS NULL"
    cost = "coalesce(cost, (SELECT max(cost_bound) FROM rows))"
    return _known(journal, f"{cost} AS cost FROM members WHERE {where}", run)


def set_aside_by_day(journal: Journal) -> list[tuple[str, int, int]]:
    """The day (UTC) and the run of batches that have not ended, and the most that they may cost.

    In nano-dollars; see `set_aside`.
    """
    cost = "coalesce(m.cost, (SELECT max(cost_bound) FROM rows))"
    records = journal.query(
        f"""SELECT date(b.made_at, 'unixepoch') AS day, b.run, {total_of(cost)}
        FROM members m JOIN batches b ON b.batch = m.batch GROUP BY 1, 2"""
    )
    return [(day, int(run), int(cost)) for day, run, cost in records]


def committed(journal: Journal, run: int) -> int | None:
    """What a run spent, and what its own batches may still cost, in nano-dollars.

    What it collected of earlier runs' batches does not count. None when there is no price at all.
    """
    own = "batch IS NULL OR batch IN (SELECT batch FROM batches WHERE run = ?)"
    spent = _known(journal, f"cost FROM attempts WHERE run = ? AND ({own})", run, run)
    parts = [spent, set_aside(journal, run)]
    return None if None in parts and not any(parts) else sum(part or 0 for part in parts)


def _known(journal: Journal, costs: str, *values: Any) -> int | None:
    """The sum of the costs that are known; None when some are not and the others are 0."""
    sums = f"SELECT {total_of('cost')}, count(*) - count(cost) FROM (SELECT {costs})"
    ((total, unknown),) = journal.query(sums, *values)
    return None if unknown and not total else int(total)


def stale_requests(journal: Journal) -> int:
    """How many requests are in batches although their rows have changed or are gone."""
    wanted = "SELECT 1 FROM rows r WHERE r.ident = m.ident AND r.key = m.key"
    return int(journal.query(f"SELECT count(*) FROM members m WHERE NOT EXISTS ({wanted})")[0][0])


def record_batch(batch: Batch, run: int) -> Change:
    """The change that adds a new batch of a run, of which nothing is sent yet."""
    columns = {**_columns(batch), "batch": batch.number, "run": run}
    return Change(also=partial(_record_batch, columns), changes_tables=False)


def record_members(batch: Batch, members: Sequence[Member]) -> Change:
    """The change that puts requests into a batch."""
    return Change(
        records=tuple(("members", partial(_member_cells, batch.number, each)) for each in members),
        changes_tables=False,
    )


def update_batch(batch: Batch) -> Change:
    """The change that records a batch as it is now."""
    return Change(also=partial(_update_batch, batch), changes_tables=False)


def remove_members(requests: Sequence[Request]) -> Change:
    """The change that takes requests, which have their outcomes, out of their batch."""
    identities = [(request.outcome_id, request.fingerprint) for request in requests]
    return Change(also=partial(_remove_members, identities), changes_tables=False)


def close_batch(batch: Batch) -> Change:
    """The change that closes a batch: members without an outcome are pending again."""
    return Change(also=partial(_close_batch, batch), changes_tables=False)


def forget_batch(batch: Batch) -> Change:
    """The change that deletes a batch which the server does not have: its members are pending."""
    return Change(also=partial(_forget_batch, batch.number), changes_tables=False)


def _record_batch(columns: dict[str, Any], connection: sqlite3.Connection) -> None:
    insert(connection, "batches", columns)


def _update_batch(batch: Batch, connection: sqlite3.Connection) -> None:
    update(connection, "batches", batch.number, _columns(batch))


def _remove_members(
    identities: Sequence[tuple[str, bytes]], connection: sqlite3.Connection
) -> None:
    connection.executemany("DELETE FROM members WHERE ident = ? AND key = ?", identities)


def _close_batch(batch: Batch, connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM members WHERE batch = ?", (batch.number,))
    _update_batch(batch, connection)


def _forget_batch(number: int, connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM members WHERE batch = ?", (number,))
    connection.execute("DELETE FROM batches WHERE batch = ?", (number,))


def _batches(journal: Journal, condition: str, *values: Any) -> list[Batch]:
    """The batches that meet a condition, oldest first."""
    records = journal.records("batches", f"{condition} ORDER BY batch", *values)
    return [_batch(record) for record in records]


def _columns(batch: Batch) -> dict[str, Any]:
    return {**{name: getattr(batch, name) for name in _SAME}, "seen": canonical(batch.seen)}


def _batch(record: dict[str, Any]) -> Batch:
    return Batch(
        number=record["batch"],
        seen=json.loads(record["seen"]),
        **{name: record[name] for name in _SAME},
    )


def _member_cells(number: int, member: Member) -> tuple[Any, ...]:
    """The cells of a member, in the order of its table's columns."""
    request = member.request
    return (
        request.outcome_id,
        request.fingerprint,
        number,
        member.line,
        request.id,
        canonical(request.axes),
        canonical(outline(request.body)),
        member.columns_digest,
        fitting(member.cost),
    )


def _member(batch: Batch, record: dict[str, Any]) -> Member:
    # The journal keeps the part of the body that is needed to read the reply.
    body = {"model": batch.model, **json.loads(record["outline"])}
    pictures = body.get("n", 1) if KIND_BY_ENDPOINT[batch.endpoint].makes_images else 0
    request = Request(
        id=record["id"],
        outcome_id=record["ident"],
        axes=json.loads(record["axes"]),
        fingerprint=record["key"],
        endpoint=batch.endpoint,
        body=body,
        input_bound=0,
        answer_bound=None,
        pictures=pictures,
    )
    return Member(
        line=record["line"],
        request=request,
        cost=record["cost"],
        columns_digest=record["columns_digest"],
    )
