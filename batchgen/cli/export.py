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
@click.option(
    "--to",
    type=(click.Choice(["hf"]), click.Path(path_type=Path)),
    metavar="hf DIR",
    help="Write a data set that the datasets library of Hugging Face loads to a new folder "
    "instead, with the pictures and a card.",
)
def export(job: Job, simulate: bool, output: Path | None, to: tuple[str, Path] | None) -> None:
    """Write the tables again.

    Writes the tables and the report of JOB from its journal alone, without the network.
    """
    from batchgen import maintenance

    if to is not None:
        maintenance.export_dataset(job, to[1], simulate=simulate, output=output, say=print_message)
        print_result(str(to[1]))
        return
    for path in maintenance.export(job, simulate=simulate, output=output, say=print_message):
        print_result(str(path))
