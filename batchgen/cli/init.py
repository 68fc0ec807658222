"""`batchgen init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from batchgen.cli.terminal import print_result
from batchgen.escapes import escape_controls

_KINDS = ["text", "completion", "chat", "image", "image_edit", "embedding", "moderation"]


@click.command()
@click.argument("prompts", metavar="[PROMPTS]", required=False, type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(_KINDS), help="The kind of the requests.")
@click.option("--id", metavar="COLUMN", help="The column that names a row.")
@click.option(
    "--prompt",
    metavar="COLUMN",
    multiple=True,
    help="A column that the prompt is made of; may be given several times.",
)
@click.option("--encoding", metavar="NAME", help="The encoding of the file, such as cp1251.")
@click.option("--format", metavar="NAME", help="The format of the file, such as jsonl.")
@click.option("--delimiter", metavar="CHARACTER", help="What stands between the cells of a CSV.")
@click.option("--sheet", metavar="NAME", help="The sheet of a spreadsheet.")
@click.option("--skip-lines", metavar="N", type=int, default=0, help="Lines above the header.")
@click.option("--skip-rows", metavar="N", type=int, default=0, help="Rows below the header.")
@click.option("--no-header", is_flag=True, help="The first line is a row.")
def init(
    prompts: Path | None,
    kind: str | None,
    id: str | None,  # noqa: A002 - the job file's own word
    prompt: tuple[str, ...],
    encoding: str | None,
    format: str | None,  # noqa: A002 - the job file's own word
    no_header: bool,
    **table: Any,
) -> None:
    """Write a job that runs.

    With a PROMPTS file (such as .csv .jsonl .json .xlsx): a job for it, beside it, and what was
    found in the file. Without: an example in jobs/.

    The options say what the file cannot show.
    """
    from batchgen.init import InitOptions, write_job
    from batchgen.prompts import TableOptions

    options = InitOptions(
        kind=kind,
        id=id,
        prompt=prompt,
        encoding=encoding,
        format=format,
        table=TableOptions(header=False if no_header else None, **table),
    )
    written = write_job(prompts, options)
    job = shlex.quote(str(written.path))
    lines = [
        *written.findings,
        f"wrote {written.path}",
        f"next: batchgen plan {job}",
        f"      batchgen run {job} --simulate",
    ]
    if written.requests is not None:
        requests = shlex.quote(str(written.requests))
        lines.append(f"or without a job: batchgen run-batch -i {requests} -o results.jsonl")
    print_result(escape_controls("\n".join(lines)))
