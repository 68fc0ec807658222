"""The journal's half that knows batches: which are open, what is in them, and how that changes. No table shows them."""

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
from batchgen.kinds import AT
from batchgen.replies import outline
from batchgen.requests import Request, canonical

# Requests of a batch that are read or written together.
PAGE = 250

# Seconds for which batches tell what the queue of a model takes.
RECENT = 24 * 3600.0


def _batches(journal: Journal, condition: str, *values: Any) -> list[Batch]:
    """The batches for which a condition holds, oldest first."""
    return [
        _batch(line) for line in journal.records("batches", f"{condition} ORDER BY batch", *values)
    ]


def open_batches(journal: Journal) -> list[Batch]:
    """The batches that may still bring something, oldest first. Raises DamagedError."""
    return _batches(journal, "closed_at IS NULL")


def recent_batches(journal: Journal) -> list[Batch]:
    """The batches that are open, and those closed in the last day, oldest first. Raises DamagedError."""
    return _batches(journal, "closed_at IS NULL OR closed_at > ?", time.time() - RECENT)


def batch_of(journal: Journal, outcome_id: str, fingerprint: bytes) -> Batch | None:
    """The batch that a request is in, or None. Raises DamagedError."""
    found = _batches(
        journal,
        "batch = (SELECT batch FROM members WHERE ident = ? AND key = ?)",
        outcome_id,
        fingerprint,
    )
    return found[0] if found else None


def next_number(journal: Journal) -> int:
    """The number of the next batch."""
    return int(journal.query("SELECT coalesce(max(batch), 0) + 1 FROM batches")[0][0])


def members(journal: Journal, batch: Batch, lines: Collection[int] | None) -> dict[int, Member]:
    """What is left of a batch's requests, by line: those of `lines`, or (None) the first PAGE. Raises DamagedError."""
    some = "" if lines is None else f" AND line IN ({', '.join('?' * len(lines))})"
    condition = f"batch = ?{some} ORDER BY line LIMIT {PAGE}"
    found = journal.records("members", condition, batch.number, *(lines or ()))
    return {line["line"]: _member(batch, line) for line in found}


def set_aside(journal: Journal, run: int | None = None) -> int:
    """What the requests in batches, or in those of one run, may cost at the most, in nano-dollars: one without a price as
    much as the dearest row."""
    where = "batch IN (SELECT batch FROM batches WHERE run = ?)" if run is not None else "? IS NULL"
    sql = f"SELECT total(coalesce(cost, (SELECT max(cost_bound) FROM rows), 0)) FROM members WHERE {where}"
    return int(journal.query(sql, run)[0][0])


def committed(journal: Journal, run: int) -> int:
    """What one run spent, and what the batches that it made may still cost, in nano-dollars; not what it collected of batches
    that were made before."""
    own = "batch IS NULL OR batch IN (SELECT batch FROM batches WHERE run = ?)"
    spent = journal.query(f"SELECT total(cost) FROM attempts WHERE run = ? AND ({own})", run, run)
    return int(spent[0][0]) + set_aside(journal, run)


def stale_requests(journal: Journal) -> int:
    """How many requests are in batches that no staged row wants any more."""
    wanted = "SELECT 1 FROM rows r WHERE r.ident = m.ident AND r.key = m.key"
    return int(journal.query(f"SELECT count(*) FROM members m WHERE NOT EXISTS ({wanted})")[0][0])


def begun(batch: Batch, run: int) -> Change:
    """A batch is made; nothing of it was sent."""
    return Change(
        also=partial(_begin, {**_cells(batch), "batch": batch.number, "run": run}),
        changes_tables=False,
    )


def enlisted(batch: Batch, found: Sequence[Member]) -> Change:
    """Requests are in a batch."""
    return Change(
        records=tuple(("members", partial(_enlisted, batch.number, member)) for member in found),
        changes_tables=False,
    )


def noted(batch: Batch) -> Change:
    """A batch is as it is now."""
    return Change(also=partial(_note, batch), changes_tables=False)


def ended(requests: Sequence[Request]) -> Change:
    """Requests are in their batches no more."""
    return Change(
        also=partial(_leave, [(request.outcome_id, request.fingerprint) for request in requests]),
        changes_tables=False,
    )


def closed(batch: Batch) -> Change:
    """A batch brings nothing more; what is left of its requests is in it no more."""
    return Change(also=partial(_close, batch), changes_tables=False)


def forgotten(batch: Batch) -> Change:
    """A batch that does not exist at the server."""
    return Change(also=partial(_forget, batch.number), changes_tables=False)


def _begin(cells: dict[str, Any], connection: sqlite3.Connection) -> None:
    insert(connection, "batches", cells)


def _note(batch: Batch, connection: sqlite3.Connection) -> None:
    update(connection, "batches", batch.number, _cells(batch))


def _leave(requests: Sequence[tuple[str, bytes]], connection: sqlite3.Connection) -> None:
    connection.executemany("DELETE FROM members WHERE ident = ? AND key = ?", requests)


def _close(batch: Batch, connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM members WHERE batch = ?", (batch.number,))
    _note(batch, connection)


def _forget(number: int, connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM members WHERE batch = ?", (number,))
    connection.execute("DELETE FROM batches WHERE batch = ?", (number,))


def _cells(batch: Batch) -> dict[str, Any]:
    names = (
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
    return {**{name: getattr(batch, name) for name in names}, "seen": canonical(batch.seen)}


def _batch(line: dict[str, Any]) -> Batch:
    told = {name: line[name] for name in line if name not in ("batch", "run", "seal")}
    return Batch(**{**told, "number": line["batch"], "seen": json.loads(line["seen"])})


def _enlisted(number: int, member: Member) -> tuple[Any, ...]:
    """A member as its table holds it."""
    request = member.request
    about = (request.id, canonical(request.axes), canonical(outline(request.body)))
    return (
        request.outcome_id,
        request.fingerprint,
        number,
        member.line,
        *about,
        member.columns_digest,
        fitting(member.cost),
    )


def _member(batch: Batch, line: dict[str, Any]) -> Member:
    body = {"model": batch.model, **json.loads(line["outline"])}
    asked = body.get("n", 1) if AT[batch.endpoint].draws else 0
    request = Request(
        id=line["id"],
        outcome_id=line["ident"],
        axes=json.loads(line["axes"]),
        fingerprint=line["key"],
        endpoint=batch.endpoint,
        body=body,
        input_bound=0,
        answer_bound=None,
        pictures=asked,
    )
    return Member(
        line=line["line"], request=request, cost=line["cost"], columns_digest=line["columns_digest"]
    )
