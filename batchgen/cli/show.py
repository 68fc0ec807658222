"""`batchgen show`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.options import json_option, one_job
from batchgen.cli.row_text import combination_lines, row_lines
from batchgen.cli.terminal import as_json, print_result

if TYPE_CHECKING:
    from batchgen.inspection import InspectedRow
    from batchgen.job import Job


def _as_axes(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """The values of `--axis`, by axis."""
    parts = [each.partition("=") for each in given]
    for name, sign, value in parts:
        if not sign:
            raise click.BadParameter(f"{name + value!r} is not NAME=VALUE.", ctx, param)
    return {name: value for name, _, value in parts}


@click.command()
@one_job
@click.argument("identity", metavar="ID")
@click.option(
    "--axis",
    "axes",
    callback=_as_axes,
    metavar="NAME=VALUE",
    multiple=True,
    help="Only combinations of the matrix with this value; may be given for several axes.",
)
@json_option
def show(
    job: Job,
    identity: str,
    axes: dict[str, str],
    simulate: bool,
    output: Path | None,
    as_object: bool,
) -> None:
    """Show one row.

    Prints what the row ID of JOB was asked, its answer, every attempt and its price; of a turn of a
    conversation also the turns before it.
    """
    from batchgen.inspection import inspect

    rows = inspect(job, identity, axes=axes, simulate=simulate, output=output)
    if as_object:
        print_result(as_json([dict(row.fields) for row in rows]))
    elif all(row.row.axes == rows[0].row.axes for row in rows):
        print_result("\n".join(row_lines(rows)))
    else:
        command = _command(job, identity, rows[0], simulate, output)
        print_result("\n".join(combination_lines(rows, command)))


def _command(
    job: Job, identity: str, first: InspectedRow, simulate: bool, output: Path | None
) -> str:
    """The command that shows the first of several combinations."""
    from batchgen.inspection import axis_text

    words = ["batchgen", "show", job.display_name, identity]
    for name, value in first.row.axes.items():
        words += ["--axis", f"{name}={axis_text(value)}"]
    words += ["--simulate"] * simulate
    words += ["--output", str(output)] if output is not None else []
    return shlex.join(words)
