"""`batchgen export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.options import one_job
from batchgen.cli.terminal import print_message, print_result

if TYPE_CHECKING:
    from batchgen.job import Job


@click.command()
@one_job
def export(job: Job, simulate: bool, output: Path | None) -> None:
    """Write the tables again.

    Writes the tables and the report of JOB from its journal alone, without the network.
    """
    from batchgen import maintenance

    for path in maintenance.export(job, simulate=simulate, output=output, say=print_message):
        print_result(str(path))
