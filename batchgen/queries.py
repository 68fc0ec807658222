"""What can be asked about a job without sending anything: status, show, results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgen.errors import InputError
from batchgen.inspection import inspect
from batchgen.job import Job
from batchgen.journal import (
    count_rows,
    last_run,
)
from batchgen.journal.attempts import in_flight
from batchgen.journal.batches import open_batches
from batchgen.journal.rows import heads_in, thread_with_outcomes
from batchgen.page import Card, Cards
from batchgen.pricing import dollars
from batchgen.report import batch_json, run_totals
from batchgen.staging import staged
from batchgen.tables import frame
from batchgen.workspace import Workspace, read_running

if TYPE_CHECKING:
    import pandas

# The fields of the last run that `status` shows.
_RUN = ("run", "started_at", "ended_at", "exit_code")


def status(job: Job, *, simulate: bool = False, output: Path | None = None) -> dict[str, Any]:
    """How a job stands, from its journal alone; works while a run is going. Raises InputError."""
    workspace = Workspace.of(job, simulate=simulate, output=output)
    running = read_running(workspace.folder)
    with workspace.peek() as journal, journal.snapshot():
        if running and staged(journal) is None:
            raise InputError(
                f"{job.display_name}: its first run is {running['phase']}; wait for that"
            )
        prompts = workspace.staged(journal)
        counts = count_rows(journal, by_turns=workspace.by_turns)
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
            "running": running,
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
    return [dict(each.fields) for each in inspect(job, identity, simulate=simulate, output=output)]


def sample(
    job: Job, *, sample: int, seed: int, simulate: bool = False, output: Path | None = None
) -> Iterator[Card]:
    """What there is of each thread of a sample, in the prompts file's order.

    - `job`: the job
    - `sample`, `seed`: how many rows are drawn, and which; see `Options`
    - `simulate`, `output`: as `plan` takes them

    Raises InputError when the job has not been run yet.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with workspace.peek() as journal, journal.snapshot():
        workspace.staged(journal)
        cards = Cards(job, journal, workspace.renderer)
        scope = workspace.scope(journal, limit=None, sample=sample, seed=seed)
        for head in heads_in(journal, scope):
            yield cards.card(thread_with_outcomes(journal, head))


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
