"""`batchgen show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.options import one_job
from batchgen.cli.terminal import as_json, print_result

if TYPE_CHECKING:
    from batchgen.job import Job


@click.command()
@one_job
@click.argument("identity", metavar="ID")
def show(job: Job, identity: str, simulate: bool, output: Path | None) -> None:
    """Show one row.

    Prints the request, the answer and every attempt of the row ID of JOB, as JSON.
    """
    from batchgen import queries

    print_result(as_json(queries.show(job, identity, simulate=simulate, output=output)))
