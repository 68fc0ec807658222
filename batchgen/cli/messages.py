"""What `plan` and `status` say to people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batchgen.cli.terminal import as_json

if TYPE_CHECKING:
    from batchgen.job import Job
    from batchgen.planner import Plan


def planned(found: Plan, job: Job) -> Iterator[str]:
    """What `plan` says, a line each."""
    from batchgen.report import describe_batches, describe_stale_requests, pluralize

    limits = job.limits
    yield f"{found.name}: {found.kind} at {found.host} -> {found.output}"
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(found.rows.items()))
    yield f"rows:   {found.total:,} ({counts})"
    for why, count in found.again.items():
        yield f"        {pluralize(count, 'answered row')} to run again because {why}"
    if found.batches:
        command = f"batchgen cancel {shlex.quote(job.shown)}{' --simulate' * found.simulated}"
        most = f", at most ${found.set_aside:,.4f}" if found.set_aside else ""
        yield f"        {describe_batches(found.in_batches, found.batches)}{most};"
        yield f"        {command} ends that, and --mode online then sends the rest"
    if found.strays:
        yield f"        {describe_stale_requests(found.strays)}"
    shards = (
        f", in {found.shards:,} batch{'es' * (found.shards != 1)} or more" if found.shards else ""
    )
    yield f"calls:  {found.calls:,}, about {found.tokens:,} tokens{shards}"
    yield f"cost:   {_dollars(found.cost, 'about')}; {_dollars(found.cost_at_most, 'at most')}{_saved(found)}"
    if limits.max_cost is not None and (found.cost_at_most or 0) > limits.max_cost:
        yield f"        limits.max_cost is ${limits.max_cost:,.4f}: the run may stop there"
    if found.seconds is not None:
        yield f"time:   at least {found.seconds:,.0f} s under the job's limits"
    if found.first is not None:
        yield "first request:"
        yield as_json(found.first)


def _saved(found: Plan) -> str:
    if not found.shards:
        return ""
    return (
        "; half of what it is online"
        if found.saves is None
        else f"; ${found.saves:,.4f} less than online"
    )


def _dollars(amount: float | None, word: str) -> str:
    return f"{word} unknown" if amount is None else f"{word} ${amount:,.4f}"


def batch_line(batch: Mapping[str, Any]) -> str:
    """One line of a batch that has not ended."""
    failed = f", {batch['failed']:,} of them failed" if batch["failed"] else ""
    expires = batch["expires_at"]
    end = f", ends by {datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M} UTC" if expires else ""
    answered = f"{batch['answered']:,} of {batch['requests']:,} answered{failed}"
    asked = ", to be cancelled" * batch["cancelling"]
    return f"batch {batch['id'] or 'not sent yet'}: {batch['status']}{asked}, {answered}, {_age(batch['age_s'])} old{end}"


def _age(seconds: int) -> str:
    """A time as people say it: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
