"""`batchgen init`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from batchgen.cli.terminal import print_result
from batchgen.escapes import escape_controls


@click.command()
@click.argument("prompts", metavar="[PROMPTS]", required=False, type=click.Path(path_type=Path))
def init(prompts: Path | None) -> None:
    """Write a job that runs.

    With a PROMPTS file (such as .csv .jsonl .json .xlsx): a job for it, beside it. Without: an
    example in jobs/.
    """
    from batchgen.init import write_job

    path = write_job(prompts)
    job = shlex.quote(str(path))
    print_result(
        escape_controls(
            f"wrote {path}\nnext: batchgen plan {job}\n      batchgen run {job} --simulate"
        )
    )
