"""`prompts.job`: another job's answers as the prompts of a job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.disk import file_stamp
from batchgen.errors import InputError
from batchgen.job import Job, load_job
from batchgen.journal.database import NAME
from batchgen.journal.records import digest_of
from batchgen.prompts import Dialect, Prompt
from batchgen.requests import canonical
from batchgen.staging import GivenPrompts
from batchgen.tables import ChainedRows

if TYPE_CHECKING:
    from batchgen.workspace.workspace import Workspace


def upstream_of(
    job: Job, folder: Path, downstream: tuple[Path, ...], make: Callable[..., Workspace]
) -> Workspace | None:
    """The workspace of the job whose answers are a job's prompts; None if a file has them.

    Args:
        job: the job.
        folder: its output folder.
        downstream: the jobs that this one is for.
        make: makes the workspace of a job and its `downstream`.

    Raises InputError, also for a circle of jobs.
    """
    path = job.upstream_path
    if path is None:
        return None
    chain = (*downstream, job.path)
    if path in chain:
        names = " -> ".join(each.name for each in (*chain[chain.index(path) :], path))
        raise _refusal(job, f"the jobs wait for each other: {names}")
    if not path.is_file():
        raise _refusal(job, f"there is no job file {path}")
    shown = os.path.join(os.path.dirname(job.display_name), str(job.prompts.job))
    upstream = make(load_job(shown if Path(shown).is_file() else path), downstream=chain)
    if upstream.folder == folder:
        raise _refusal(job, f"that job has the output folder of this one ({folder}); set name:")
    return upstream


def _refusal(job: Job, message: str) -> InputError:
    return InputError([job.problem(("prompts", "job"), f"prompts.job: {message}")])


def state_of(upstream: Workspace) -> str:
    """A digest that changes whenever a run of the job may have changed its answers."""
    database = upstream.folder / NAME
    log = file_stamp(database.with_name(f"{database.name}-wal"))
    # A reader may leave an empty log.
    stamps = [file_stamp(database), log if log and log[0] else None]
    return digest_of(canonical([str(database), upstream.job.text, stamps])).hex()


@contextmanager
def answers(upstream: Workspace) -> Iterator[GivenPrompts]:
    """The job's answers as prompts, as they are now. Raises InputError if it has never run."""
    state = state_of(upstream)
    with upstream.peek() as journal, journal.snapshot():
        staged = upstream.staged(journal)
        rows = ChainedRows(upstream.job, journal, upstream.renderer, staged.header)
        yield GivenPrompts(
            prompts=(
                Prompt(n=n, line=n, columns=row.columns, id=row.id, pending=not row.settled)
                for n, row in enumerate(rows, start=1)
            ),
            dialect=Dialect(
                format="jsonl",
                delimiter=staged.delimiter,
                encoding="utf-8",
                bom=staged.bom,
                header=rows.header,
            ),
            digest=lambda: state,
        )
