"""The lines that `status` prints for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from batchgen.cli.running_lines import running_lines


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """The lines of `batchgen status`, from what `queries.status` returns."""
    from batchgen.report import (
        RunTotals,
        describe_cost,
        describe_uncertain,
        left_out_reasons,
        pluralize,
    )

    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(status["rows"].items()))
    totals = RunTotals(**{field.name: status[field.name] for field in fields(RunTotals)})
    yield (
        f"{status['name']}: {pluralize(status['total'], 'row')}{f': {counts}' if counts else ''}; "
        f"{pluralize(totals.calls, 'call')}, {describe_cost(totals)}"
    )
    if status["running"]:
        yield from (f"  {line}" for line in running_lines(status["running"]))
    elif status["in_flight"]:
        spent = describe_uncertain(status["in_flight"], status["in_flight_cost"])
        yield f"  in flight when the last run died: {spent}"
    for reason in left_out_reasons(status["left_out"]):
        yield f"  {reason}"
    for reason, count in status["failures"].items():
        yield f"  {count:,} x {reason}"
    for batch in status["batches"]:
        yield f"  {_batch_line(batch)}"


def _batch_line(batch: Mapping[str, Any]) -> str:
    """One line about a batch that has not ended."""
    from batchgen.report import describe_duration

    cancelling = ", to be cancelled" * batch["cancelling"]
    failed = f", {batch['failed']:,} of them failed" if batch["failed"] else ""
    answered = f"{batch['answered']:,} of {batch['requests']:,} answered{failed}"
    expires = batch["expires_at"]
    end = f", ends by {datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M} UTC" if expires else ""
    return (
        f"batch {batch['id'] or 'not sent yet'}: {batch['status']}{cancelling}, {answered}, "
        f"{describe_duration(batch['age_s'])} old{end}"
    )
