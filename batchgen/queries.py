"""What can be asked about a job without sending anything: status, show, results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgen.errors import InputError, Problem, did_you_mean
from batchgen.job import Job
from batchgen.journal import (
    Journal,
    Row,
    attempts_of,
    count_rows,
    last_run,
    outcome_of,
    rows_with_id,
)
from batchgen.journal.attempts import in_flight
from batchgen.journal.batches import batch_of, open_batches
from batchgen.pricing import dollars
from batchgen.recorder import render_row
from batchgen.replies import parse
from batchgen.report import batch_json, run_totals
from batchgen.requests import RequestError
from batchgen.tables import frame
from batchgen.workspace import Workspace

if TYPE_CHECKING:
    import pandas

# The fields of the last run that `status` shows.
_RUN = ("run", "started_at", "ended_at", "exit_code")

# The fields of an outcome, and of an attempt, that are of use to batchgen alone.
_PRIVATE_OUTCOME = ("outcome_id", "fingerprint", "columns_digest", "packed", "redo", "lost")
_PRIVATE_ATTEMPT = ("ident", "key", "seq", "seal")

# How many ids a misspelt one is compared with.
_COMPARED = 5000


def status(job: Job, *, simulate: bool = False, output: Path | None = None) -> dict[str, Any]:
    """How a job stands, from its journal alone; works while a run is going. Raises InputError."""
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with workspace.peek() as journal, journal.snapshot():
        prompts = workspace.staged(journal)
        counts = count_rows(journal, None, by_turns=workspace.by_turns)
        last = last_run(journal)
        calls, highest = in_flight(journal)
        return {
            "name": job.name,
            "simulated": simulate,
            "output": str(workspace.folder),
            "rows": counts.lines,
            "total": sum(counts.lines.values()),
            "left_out": dict(prompts.left_out),
            "failures": counts.failures,
            "in_batches": counts.in_batches,
            "batches": [batch_json(batch) for batch in open_batches(journal)],
            "last_run": {name: last[name] for name in _RUN} if last else None,
            **asdict(run_totals(journal, None)),
            "in_flight": calls,
            "in_flight_cost": dollars(highest),
        }


def show(
    job: Job, identity: str, *, simulate: bool = False, output: Path | None = None
) -> list[dict[str, Any]]:
    """The row with this id: for each of its requests the body, the answer and every attempt.

    Raises InputError when the job has no such row.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with workspace.peek() as journal, journal.snapshot():
        workspace.staged(journal)
        rows = find_rows(journal, [identity])
        attempts = defaultdict(list)
        for attempt in attempts_of(journal, {row.outcome_id for row in rows}):
            shown = {name: attempt[name] for name in attempt if name not in _PRIVATE_ATTEMPT}
            shown["cost"] = dollars(attempt["cost"])
            attempts[attempt["ident"], attempt["key"]].append(shown)
        return [
            _row_json(workspace, journal, row, attempts[row.outcome_id, row.fingerprint])
            for row in rows
        ]


def _row_json(
    workspace: Workspace, journal: Journal, row: Row, attempts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    recorded = outcome_of(journal, row.outcome_id, row.fingerprint)
    batch = batch_of(journal, row.outcome_id, row.fingerprint)
    outcome = None
    if recorded is not None:
        outcome = {
            name: value
            for name, value in recorded._asdict().items()
            if name not in _PRIVATE_OUTCOME
        }
        outcome["response"] = parse(recorded.response or b"null").value
        outcome["cost"] = dollars(recorded.cost)
    return {
        "id": row.id,
        "line": row.line,
        "axes": row.axes,
        "turn": row.turn or None,
        "status": row.status,
        "key": row.fingerprint.hex(),
        "error": row.error,
        "request": request_json(workspace, row) if row.error is None else None,
        "outcome": outcome,
        "batch": batch_json(batch) if batch else None,
        "attempts": attempts,
    }


def request_json(workspace: Workspace, row: Row) -> dict[str, Any]:
    """A row's request as it would be sent, or the error that keeps it from being made."""
    try:
        request = render_row(workspace.job, workspace.renderer, row)
    except RequestError as error:
        return {"error": str(error)}
    files = [upload.name for upload in request.uploads]
    return {
        "endpoint": request.endpoint,
        **({"files": files} if files else {}),
        "body": request.body,
    }


def find_rows(journal: Journal, identities: Sequence[str]) -> list[Row]:
    """The rows with these ids. Raises InputError that names every id which no row has."""
    rows: list[Row] = []
    problems = []
    for identity in identities:
        matches = rows_with_id(journal, identity)
        rows += matches
        if not matches:
            sample = journal.query(f"SELECT DISTINCT id FROM rows LIMIT {_COMPARED}")
            hint = did_you_mean(identity, [each["id"] for each in sample])
            problems.append(
                Problem(path=identity, message=f"this job has no row with this id{hint}")
            )
    if problems:
        raise InputError(problems)
    return rows


def results(job: Job, *, simulate: bool = False, output: Path | None = None) -> pandas.DataFrame:
    """The results table as a pandas DataFrame.

    Cells keep the types that they have in JSONL, but embeddings are arrays of float32 and times are
    UTC timestamps.

    Raises InputError when the job has not been run yet.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with workspace.peek() as journal, journal.snapshot():
        columns = workspace.layout(journal)
        types = {**dict.fromkeys(columns.inputs, object), **columns.own}
        return frame(workspace.tables(journal).results(), types)
