"""`batchgen cancel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.execute import execute, watched_options
from batchgen.cli.jobs_json import jobs_json
from batchgen.cli.options import json_option, one_job, quiet_option, wait_option
from batchgen.cli.terminal import as_json, print_result

if TYPE_CHECKING:
    from batchgen.job import Job
    from batchgen.report import Report


@click.command()
@one_job
@click.argument("batches", metavar="[BATCH]...", nargs=-1)
@wait_option
@json_option
@quiet_option("it went well")
def cancel(
    job: Job,
    batches: tuple[str, ...],
    simulate: bool,
    output: Path | None,
    wait: bool,
    as_object: bool,
    quiet: bool,
) -> None:
    """Cancel a job's batches.

    Cancels all batches of JOB, or those with the ids BATCH, which `status` shows. The answers that
    they have by then are kept. The next run of JOB sends the rest; add --mode online to send it
    immediately. A server takes minutes to cancel a batch: until then this command ends with 6, or
    waits with --wait. It ends with 0 when no batch is left.
    """
    from batchgen import runner

    def action(job: Job) -> Report:
        with watched_options(
            job, quiet=quiet, simulate=simulate, output=output, wait=wait
        ) as options:
            return runner.cancel(job, options, ids=batches)

    code, as_dict = execute(action, job, summary=not as_object, quiet=quiet)
    if as_object:
        print_result(as_json(jobs_json(code, [as_dict])))
    raise click.exceptions.Exit(code)
