"""The lines that `plan` and `status` print for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batchgen.cli.running_lines import running_lines
from batchgen.cli.terminal import as_json

if TYPE_CHECKING:
    from batchgen.job import Job
    from batchgen.planner import Plan


def plan_lines(plan: Plan, job: Job) -> Iterator[str]:
    """The lines of `batchgen plan`."""
    from batchgen.report import (
        describe_batches,
        describe_empty_prompts,
        describe_stale_requests,
        left_out_reasons,
        pluralize,
    )

    yield f"{plan.name}: {plan.kind} at {plan.host} -> {plan.output}"
    if plan.server_from:
        yield f"server: named by OPENAI_BASE_URL in {plan.server_from}"
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(plan.rows.items()))
    yield f"rows:   {plan.total:,}{f' ({counts})' if counts else ''}"
    for reason in left_out_reasons(plan.left_out):
        yield f"        {reason}"
    if plan.empty:
        yield f"        {describe_empty_prompts(plan.empty)}"
    for reason, count in plan.again.items():
        yield f"        {pluralize(count, 'answered row')} to run again because {reason}"
    if plan.batches:
        command = f"batchgen cancel {shlex.quote(job.display_name)}{' --simulate' * plan.simulated}"
        at_most = f", at most ${plan.set_aside:,.4f}" if plan.set_aside else ""
        yield f"        {describe_batches(plan.in_batches, plan.batches)}{at_most};"
        yield f"        {command} ends that, and --mode online then sends the rest"
    if plan.strays:
        yield f"        {describe_stale_requests(plan.strays)}"
    batches = (
        f", in {plan.shards:,} batch{'es' * (plan.shards != 1)} or more" if plan.shards else ""
    )
    yield f"calls:  {plan.calls:,}, about {plan.tokens:,} tokens{batches}"
    cost, bound = _dollars("about", plan.cost), _dollars("at most", plan.cost_at_most)
    yield f"cost:   {cost}; {bound}{_savings(plan)}"
    if plan.fees_not_included:
        yield f"        without the fees of {', '.join(plan.fees_not_included)}"
    max_cost = job.limits.max_cost
    if max_cost is not None and (plan.cost_at_most or 0) > max_cost:
        yield f"        limits.max_cost is ${max_cost:,.4f}: the run may stop there"
    if plan.seconds is not None:
        yield f"time:   at least {plan.seconds:,.0f} s under the job's limits"
    if plan.first is not None:
        yield "first request:"
        yield as_json(plan.first)


def _savings(plan: Plan) -> str:
    """What batches save, for a plan that makes some."""
    if not plan.shards:
        return ""
    if plan.saves is None:
        return ""
    if not plan.saves:
        return "; no less than online, as far as prices are known"
    return f"; ${plan.saves:,.4f} less than online"


def _dollars(word: str, amount: float | None) -> str:
    return f"{word} unknown" if amount is None else f"{word} ${amount:,.4f}"


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
