"""What can be told and mended without sending anything: plan, status, show, redo, export, verify."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgen.errors import InputError, Problem, did_you_mean
from batchgen.job import Job
from batchgen.journal import Journal, Row
from batchgen.journal.batches import batch_of, open_batches
from batchgen.pricing import dollars
from batchgen.recorder.recorder import rendered
from batchgen.report import batch_json, run_totals
from batchgen.requests import RequestError
from batchgen.tables import frame
from batchgen.workspace import Workspace

if TYPE_CHECKING:
    import pandas


def shown_request(place: Workspace, row: Row) -> dict[str, Any]:
    """A row's request as people read it, or why there is none."""
    try:
        request = rendered(place.job, place.renderer, row)
    except RequestError as fault:
        return {"error": str(fault)}
    files = [upload.name for upload in request.uploads]
    return {
        "endpoint": request.endpoint,
        **({"files": files} if files else {}),
        "body": request.body,
    }


# What `status` tells of the last run.
_RUN = ("run", "started_at", "ended_at", "exit_code")


def status(job: Job, *, simulate: bool = False, output: Path | None = None) -> dict[str, Any]:
    """Counts from the journal alone, also while a run is going."""
    place = Workspace.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
        standing = journal.standing(None, by_turns=place.by_turns)
        last = journal.last_run()
        return {
            "name": job.name,
            "simulated": simulate,
            "output": str(place.folder),
            "rows": standing.lines,
            "total": sum(standing.lines.values()),
            "failures": standing.failures,
            "in_batches": standing.in_batches,
            "batches": [batch_json(batch) for batch in open_batches(journal)],
            "last_run": {name: last[name] for name in _RUN} if last else None,
            **asdict(run_totals(journal, None)),
        }


def show(
    job: Job, identity: str, *, simulate: bool = False, output: Path | None = None
) -> list[dict[str, Any]]:
    """Everything known of one row: for each of its requests the request, the answer and the attempts."""
    place = Workspace.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
        rows = rows_named(journal, [identity])
        calls = defaultdict(list)
        for each in journal.attempts({row.outcome_id for row in rows}):
            calls[each["ident"], each["key"]].append({**each, "cost": dollars(each["cost"])})
        return [
            _detail(place, journal, row, calls[row.outcome_id, row.fingerprint]) for row in rows
        ]


# What a row's outcome holds for batchgen alone.
_PRIVATE = ("outcome_id", "fingerprint", "columns_digest", "packed", "redo", "lost")


def _detail(
    place: Workspace, journal: Journal, row: Row, attempts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    recorded, batch = (
        journal.recorded(row.outcome_id, row.fingerprint),
        batch_of(journal, row.outcome_id, row.fingerprint),
    )
    outcome = None
    if recorded is not None:
        outcome = {
            name: value for name, value in recorded._asdict().items() if name not in _PRIVATE
        }
        outcome |= {
            "response": json.loads(recorded.response or b"null"),
            "cost": dollars(recorded.cost),
        }
    return {
        "id": row.id,
        "line": row.line,
        "axes": row.axes,
        "turn": row.turn or None,
        "status": row.status,
        "key": row.fingerprint.hex(),
        "error": row.error,
        "request": shown_request(place, row) if row.error is None else None,
        "outcome": outcome,
        "batch": batch_json(batch) if batch else None,
        "attempts": [
            {name: each[name] for name in each if name not in ("ident", "key", "seq", "seal")}
            for each in attempts
        ],
    }


def rows_named(journal: Journal, identities: Sequence[str]) -> list[Row]:
    """The rows of these ids. Raises InputError for those that there are not."""
    rows, problems = [], []
    for identity in identities:
        found = journal.find(identity)
        rows += found
        if not found:
            near = did_you_mean(
                identity,
                [each[0] for each in journal.query("SELECT DISTINCT id FROM rows LIMIT 5000")],
            )
            problems.append(
                Problem(path=identity, message=f"is the id of no row of this job{near}")
            )
    if problems:
        raise InputError(problems)
    return rows


def results(job: Job, *, simulate: bool = False, output: Path | None = None) -> pandas.DataFrame:
    """The results table as a pandas DataFrame, one row a line, every cell as it stands."""
    place = Workspace.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        look = place.layout(journal)
        return frame(place.tables(journal).results(), [*look.inputs, *look.own])
