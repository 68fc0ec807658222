"""`batchgen verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.options import one_job
from batchgen.cli.terminal import print_message, print_result
from batchgen.errors import OutputError

if TYPE_CHECKING:
    from batchgen.job import Job


@click.command()
@one_job
def verify(job: Job, simulate: bool, output: Path | None) -> None:
    """Check what is stored.

    Checks the journal of JOB with its digests, and hashes every picture again.
    """
    from batchgen import maintenance

    problems = maintenance.verify(job, simulate=simulate, output=output)
    for problem in problems:
        print_message(problem)
    if problems:
        raise click.exceptions.Exit(OutputError.exit_code)
    print_result(f"{job.name}: sound")
