"""`batchgen export`."""

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
@click.option(
    "--to",
    type=(click.Choice(["hf"]), click.Path(path_type=Path)),
    metavar="hf DIR",
    help="Write a data set that the datasets library of Hugging Face loads to a new folder "
    "instead, with the pictures and a card.",
)
@click.option(
    "--salvage",
    is_flag=True,
    help="Write every sound answer of a damaged journal to results.salvaged.* instead, and say "
    "what is lost.",
)
def export(
    job: Job,
    simulate: bool,
    output: Path | None,
    to: tuple[str, Path] | None,
    salvage: bool,
) -> None:
    """Write the tables again.

    Writes the tables and the report of JOB from its journal alone, without the network.
    """
    from batchgen import maintenance

    if salvage and to is not None:
        raise click.UsageError("--salvage and --to are two ways to export; name one")
    if salvage:
        _export_salvaged(job, simulate=simulate, output=output)
        return
    if to is not None:
        maintenance.export_dataset(job, to[1], simulate=simulate, output=output, say=print_message)
        print_result(str(to[1]))
        return
    for path in maintenance.export(job, simulate=simulate, output=output, say=print_message):
        print_result(str(path))


def _export_salvaged(job: Job, *, simulate: bool, output: Path | None) -> None:
    from batchgen.salvage import export_salvaged

    salvaged = export_salvaged(job, simulate=simulate, output=output)
    for path in salvaged.paths:
        print_result(str(path))
    for sentence in salvaged.sentences():
        print_message(f"{job.name}: {sentence}")
    if salvaged.damage:
        raise click.exceptions.Exit(OutputError.exit_code)
