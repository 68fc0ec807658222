"""How `run`, `run-batch` and `cancel` execute one job and report its end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from batchgen.cli.progress import reading, watching
from batchgen.cli.terminal import print_message, print_result
from batchgen.errors import BatchgenError
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.job import Job
    from batchgen.report import Report
    from batchgen.session import Options

# The exit code of several jobs is the first of these that one of them had.
PRECEDENCE = (143, 130, 1, 74, 2, 4, 75, 5, 6, 3, 0)


def execute(
    action: Callable[[Job], Report], job: Job, *, summary: bool, quiet: bool
) -> tuple[int, dict[str, Any]]:
    """Execute a job; its exit code, and its report or its error as JSON.

    An error ends this job only, so that the next job of the command still runs.

    - `action`: runs or cancels the job
    - `summary`: print what sums up the run
    - `quiet`: do not print it when the run needs no attention
    """
    try:
        report = action(job)
        if report.stopped:
            print_message(f"{job.name}: stopped: {report.stopped}")
        # Batches that are at the server (6) need no attention either.
        if summary and not (quiet and report.exit_code in (0, 6)):
            print_result(_summary_of(report, job, quiet=quiet))
        if report.rows.get("failed") and not report.run.calls and not report.stopped:
            print_message(
                f"{job.name}: failed rows run again when they or the job change, "
                f"or {_way_to_retry(job, report)}"
            )
    except BatchgenError as error:
        print_message(str(error))
        return error.exit_code, {
            "name": job.name,
            "exit_code": error.exit_code,
            "error": str(error),
        }
    return report.exit_code, report.as_json()


def _summary_of(report: Report, job: Job, *, quiet: bool) -> str:
    """A block for a person at a terminal; one line for logs, mails and other programs."""
    if quiet or not sys.stdout.isatty():
        return escape_controls(report.line())
    from batchgen.cli.summary import summary

    return summary(report, job)


def _way_to_retry(job: Job, report: Report) -> str:
    """What a person can do to run failed rows again."""
    if job.output_file is not None:
        return f"all rows without {shlex.quote(report.output)}"
    simulate = " --simulate" * report.simulated
    return f"by: batchgen redo {shlex.quote(job.display_name)} --failed{simulate}"


def stage_job(job: Job, *, quiet: bool, **options: Any) -> None:
    """Read the prompts of a job into its journal with `options` (fields of `Options`)."""
    from batchgen import runner

    with watched_options(job, quiet=quiet, **options) as each:
        runner.stage(job, each)


def run_job(job: Job, *, quiet: bool, **options: Any) -> Report:
    """Run a job with `options` (fields of `Options`), showing its progress."""
    from batchgen import runner

    with watched_options(job, quiet=quiet, **options) as each:
        return runner.run(job, each)


@contextmanager
def watched_options(job: Job, *, quiet: bool, **options: Any) -> Iterator[Options]:
    """`Options` for a run whose progress is shown while the block runs, unless it is quiet."""
    from batchgen.session import Options

    with watching(job.name, quiet=quiet) as (watch, every, say):
        yield Options(
            watch=watch,
            every=every,
            reading=partial(reading, job, quiet=quiet),
            say=say,
            **options,
        )
