"""`batchgen status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.jobs_json import jobs_json
from batchgen.cli.messages import status_lines
from batchgen.cli.options import json_option, one_job
from batchgen.cli.terminal import as_json, print_result
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.job import Job


@click.command()
@one_job
@json_option
def status(job: Job, simulate: bool, output: Path | None, as_object: bool) -> None:
    """Count rows by status.

    Reads the journal of JOB only, so it also works during a run.
    """
    from batchgen import queries

    state = queries.status(job, simulate=simulate, output=output)
    if as_object:
        print_result(as_json(jobs_json(0, [state])))
    else:
        print_result(escape_controls("\n".join(status_lines(state))))
