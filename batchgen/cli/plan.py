"""`batchgen plan`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.jobs_json import jobs_json
from batchgen.cli.options import (
    in_mode,
    json_option,
    limit_option,
    mode_option,
    one_job,
    piped_prompts,
)
from batchgen.cli.plan_lines import plan_text
from batchgen.cli.preview import without_bytes
from batchgen.cli.progress import reading
from batchgen.cli.terminal import as_json, print_result

if TYPE_CHECKING:
    from batchgen.job import Job


@click.command()
@one_job
@limit_option("rows")
@mode_option
@click.option("--full", is_flag=True, help="Print the whole first request, pictures included.")
@json_option
def plan(
    job: Job,
    simulate: bool,
    output: Path | None,
    limit: int | None,
    mode: str | None,
    full: bool,
    as_object: bool,
) -> None:
    """Show what a run would send and cost.

    Reads everything and sends nothing. Shows what a run of JOB would send and why, what that would
    probably cost and at most, and the first request.
    """
    from batchgen import planner

    with reading(job, quiet=False) as on_lines:
        result = planner.plan(
            in_mode(job, mode),
            limit=limit,
            simulate=simulate,
            output=output,
            stdin=piped_prompts(job),
            on_lines=on_lines,
        )
    if as_object:
        whole = asdict(result)
        shown = whole if full else {**whole, "first": without_bytes(whole["first"])}
        print_result(as_json(jobs_json(0, [shown])))
    else:
        print_result(plan_text(result, job, full=full))
