"""The whole flow, on one screen: see `run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from batchgen.job import Job
from batchgen.prompts import GivenRows
from batchgen.report import Report
from batchgen.session import Options, Session, require_open_batches

__all__ = ["cancel", "run", "stage"]


def run(job: Job, options: Options | None = None, *, prompts: GivenRows | None = None) -> Report:
    """Do what is not done of a job, and return its report.

    Args:
        job: the job.
        options: what is set for this run.
        prompts: rows in place of the job's own prompts, as in `options`.

    Raises InputError (2), OutputError (74), BusyError (75), and AccountError (4) for a missing key.
    What stops a run that has begun is in the report instead.
    """
    if prompts is not None:
        options = replace(options or Options(), prompts=prompts)
    with Session(job, options) as session:  # folder, lock, journal, signals
        session.stage()  # prompts -> requests -> rows
        session.announce()  # what runs again, and its price
        stopped = session.dispatch()  # limits, send, retry, pictures, commit
        session.write_tables()  # rows and outcomes -> results and errors
        return session.finish(stopped)  # report.json, run.log, exit code


def stage(job: Job, options: Options | None = None) -> None:
    """Check a job: read its prompts as `run` does first, and stop there.

    A `run` that follows with the same options does not read them again. Raises what `run` raises
    before it sends anything.
    """
    with Session(job, options) as session:
        session.stage()


def cancel(job: Job, options: Options | None = None, *, ids: Sequence[str] = ()) -> Report:
    """Cancel a job's open batches, keep what they answered, and return the job's report.

    Its exit code is 0 when no open batch is left. Sends no rows and reads no prompts.

    Args:
        job: the job that sent the batches.
        options: only `simulate`, `wait`, `output`, `watch`, `every` and `say` matter.
        ids: the batches to cancel, as the server names them (none given: all).

    Raises what `run` raises, and InputError for an id that is not an open batch.
    """
    session = Session(job, options)
    require_open_batches(session.workspace, ids)
    with session:
        stopped = session.cancel(ids)
        session.write_tables()
        return session.finish(stopped)
