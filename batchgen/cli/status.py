"""`batchgen status`: how a job stands, once or for as long as its run goes on."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchgen.cli.display import Display, can_draw
from batchgen.cli.jobs_json import jobs_json
from batchgen.cli.messages import status_lines
from batchgen.cli.options import json_option, one_job
from batchgen.cli.terminal import as_json, print_result
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.job import Job

# Seconds between two looks at a run: on a terminal, and for a log.
DRAW_INTERVAL = 2.0
LINE_INTERVAL = 30.0

# The share of the time that the counting of rows may take: of a million it takes a second.
BUSY = 0.1


@click.command()
@one_job
@json_option
@click.option("--watch", is_flag=True, help="Show it anew until the run has ended, or Ctrl-C.")
def status(job: Job, simulate: bool, output: Path | None, as_object: bool, watch: bool) -> None:
    """Show how a job stands.

    Counts rows by status. Of a run that goes on it shows since when, how fast, how long it still
    takes and what it waits for. Reads the journal of JOB and what its run says of itself.
    """
    from batchgen import queries

    if watch and as_object:
        raise click.UsageError("--watch is for people; use --json without it.")
    ask = partial(queries.status, job, simulate=simulate, output=output)
    state = _watch(ask) if watch else ask()
    print_result(as_json(jobs_json(0, [state])) if as_object else "\n".join(_lines(state)))


def _watch(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Show a job again and again while it runs; returns how it stands then, or at Ctrl-C."""
    display = Display() if can_draw() else None
    began, state = time.monotonic(), ask()
    try:
        while state["running"]:
            lines = _lines(state)
            if display:
                display.show(_wrapped(lines, display))
            else:
                print_result("\n".join(lines))
            took = time.monotonic() - began
            time.sleep(max(DRAW_INTERVAL if display else LINE_INTERVAL, took / BUSY))
            began, state = time.monotonic(), ask()
    except KeyboardInterrupt:
        pass
    finally:
        if display:
            display.close()
    return state


def _lines(state: dict[str, Any]) -> list[str]:
    return [escape_controls(line) for line in status_lines(state)]


def _wrapped(lines: Sequence[str], display: Display) -> list[str]:
    """The lines as a terminal can show them: no wider, and no more, than it is."""
    wrapped = [
        part
        for line in lines
        for part in textwrap.wrap(line, display.width, subsequent_indent="    ")
    ]
    return wrapped[: display.height]
