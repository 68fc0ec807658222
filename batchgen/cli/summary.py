"""The end of a run as a short block for a terminal: what came, why not all, and what to do next."""

from __future__ import annotations

import os
import shlex
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.cli.terminal import styled
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.job import Job
    from batchgen.report import Report

# The reasons that are named; the errors table has all.
MOST_REASONS = 6

_NAMES = 10
_COLOURS = {"succeeded": "green", "failed": "red", "incomplete": "yellow"}


def summary(report: Report, job: Job) -> str:
    """The block, as wide as the terminal; a path or a command is never cut."""
    width = max(40, shutil.get_terminal_size().columns)
    lines = [_title(report)]
    parts = (
        (name, escape_controls(text), is_whole) for name, text, is_whole in _parts(report, job)
    )
    # The counts have colours, so nothing in them may be escaped; they are our own words.
    for name, text, is_whole in [("rows", _counts(report), False), *parts]:
        head = f"  {name:{_NAMES}}"
        lines += (
            [head + text]
            if is_whole
            else textwrap.wrap(
                text,
                width,
                initial_indent=head,
                subsequent_indent=" " * len(head),
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


def _title(report: Report) -> str:
    mark = " (simulated: no model was asked)" if report.simulated else ""
    return styled(report.name, bold=True) + mark


def _parts(report: Report, job: Job) -> Iterator[tuple[str, str, bool]]:
    """The parts of the block: a name, a text, and whether the text must stay in one piece."""
    from batchgen.report import describe_cost, pluralize

    for name, text in zip(_first("why"), _reasons(report), strict=False):
        yield name, text, False
    if report.run.calls:
        tokens = report.run.input_tokens + report.run.output_tokens
        took = f"{pluralize(report.run.calls, 'call')}, {tokens:,} tokens, {report.elapsed:.1f} s"
        yield "took", took, False
        yield "cost", describe_cost(report.run).removeprefix("cost "), False
    else:
        yield "took", "no call made", False
    for name, text in zip(_first("note"), report.remarks(), strict=False):
        yield name, text, False
    for table in report.tables:
        yield "answers", _short(table), True
    if report.rows.get("failed") or report.rows.get("incomplete"):
        for table in report.error_tables:
            yield "errors", _short(table), True
    if report.page:
        yield "look", _short(report.page), True
    for name, text in zip(_first("next"), _next_steps(report, job), strict=False):
        yield name, text, True


def _first(name: str) -> Iterator[str]:
    """A name for the first of several lines, nothing for the others."""
    yield name
    while True:
        yield ""


def _counts(report: Report) -> str:
    from batchgen.journal import STATUSES

    counts = [
        styled(f"{report.rows[status]:,} {status}", colour=_COLOURS.get(status))
        for status in STATUSES
        if report.rows.get(status)
    ]
    return f"{report.total:,}: {', '.join(counts)}" if counts else f"{report.total:,}"


def _reasons(report: Report) -> Iterator[str]:
    """Why rows failed or are incomplete, most frequent first."""
    from batchgen.report import describe_reason

    failures = list(report.job.failures.items())
    for reason, count in failures[:MOST_REASONS]:
        yield f"{count:,} {describe_reason(reason)} ({reason})"
    if len(failures) > MOST_REASONS:
        yield f"and {len(failures) - MOST_REASONS} more reasons"


def _next_steps(report: Report, job: Job) -> Iterator[str]:
    """The commands that go on from here."""
    if job.output_file is not None:
        return
    name = shlex.quote(job.display_name) + " --simulate" * report.simulated
    if report.batches or report.held or report.rows.get("pending") or report.rows.get("outdated"):
        yield f"batchgen run {name}"
    for status in ("failed", "incomplete"):
        if report.rows.get(status):
            yield f"batchgen redo {name} --{status}"


def _short(path: str) -> str:
    """A path relative to the working directory if it lies below it, quoted for a shell."""
    try:
        shown = os.path.relpath(path)
    except (OSError, ValueError):
        shown = path
    return shlex.quote(path if shown.startswith("..") else str(Path(shown)))
