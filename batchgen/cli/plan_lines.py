"""What `plan` prints for people."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchgen.cli.preview import preview
from batchgen.cli.terminal import as_json
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.job import Job
    from batchgen.planner import Plan

# Columns of the names before the lines.
_NAMES = 10
# Reasons of failures, and values of an axis, that are named one by one.
_MOST_REASONS = 6
_MOST_VALUES = 8
# Values of an axis whose calls cost so much more than others are named.
_ALIKE = 1.05
# Calls from which a sample is worth a hint.
_MANY = 20

Lines = Iterator[tuple[str, str]]


def plan_text(plan: Plan, job: Job, *, full: bool) -> str:
    """The text of `batchgen plan`; `full`: with the whole first request, however long it is."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = [escape_controls(f"{plan.name}: {plan.kind} at {plan.host} -> {plan.output}")]
    for name, text in _lines(plan, job):
        lines += _wrapped(f"{name + ':' if name else '':{_NAMES}}", escape_controls(text), width)
    if plan.first is not None:
        lines.append("first request:")
        lines.append(as_json(plan.first) if full else preview(plan.first))
    return "\n".join(lines)


def _wrapped(head: str, text: str, width: int | None) -> list[str]:
    """A text beside its name, wrapped at a terminal's width; a command or a path is never cut."""
    if width is None:
        return [head + text]
    return textwrap.wrap(
        text,
        max(40, width),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _lines(plan: Plan, job: Job) -> Lines:
    if plan.server_from:
        yield "server", f"named by OPENAI_BASE_URL in {plan.server_from}"
    yield from _rows(plan, job)
    yield from _requests(plan, job)
    yield from _cost(plan, job)
    yield from _time(plan, job)


def _rows(plan: Plan, job: Job) -> Lines:
    from batchgen.journal import STATUSES
    from batchgen.report import (
        describe_empty_prompts,
        describe_reason,
        describe_unclaimed,
        left_out_reasons,
        pluralize,
    )

    counts = ", ".join(f"{plan.rows[each]:,} {each}" for each in STATUSES if plan.rows.get(each))
    rows = f"{plan.prompts:,}"
    if plan.total != plan.prompts:
        axes = ", ".join(job.matrix)
        each = plan.total // plan.prompts
        rows += f" x {pluralize(each, 'combination')} of {axes} = {plan.total:,}"
    yield "rows", f"{rows}{f' ({counts})' if counts else ''}"
    for failure in plan.failures[:_MOST_REASONS]:
        message = f": {failure['message']}" if failure["message"] else ""
        yield (
            "",
            f"{failure['count']:,} {describe_reason(failure['reason'])} ({failure['reason']}), "
            f"as {failure['id']} in line {failure['line']}{message}",
        )
    if len(plan.failures) > _MOST_REASONS:
        yield "", f"and {len(plan.failures) - _MOST_REASONS} more reasons"
    for reason in left_out_reasons(plan.left_out):
        yield "", reason
    if plan.empty:
        yield "", describe_empty_prompts(plan.empty)
    for reason, count in plan.again.items():
        yield "", f"{pluralize(count, 'answered row')} to run again because {reason}"
    if plan.unclaimed:
        yield "", describe_unclaimed(plan.unclaimed)


def _requests(plan: Plan, job: Job) -> Lines:
    from batchgen.report import describe_batches, describe_stale_requests

    batches = (
        f", in {plan.shards:,} batch{'es' * (plan.shards != 1)} or more" if plan.shards else ""
    )
    tokens = f", about {plan.tokens:,} tokens" if plan.calls else ""
    yield "requests", f"{plan.calls:,} to send{tokens}{batches}"
    if plan.batches:
        command = f"batchgen cancel {shlex.quote(job.display_name)}{' --simulate' * plan.simulated}"
        at_most = f", at most ${plan.set_aside:,.4f}" if plan.set_aside else ""
        yield "", f"{describe_batches(plan.in_batches, plan.batches)}{at_most};"
        yield "", f"{command} ends that, and --mode online then sends the rest"
    if plan.strays:
        yield "", describe_stale_requests(plan.strays)


def _cost(plan: Plan, job: Job) -> Lines:
    if not plan.calls:
        return
    from batchgen.report import describe_dollars

    yield "cost", f"{describe_expected_cost(plan)}; {_at_most(plan)}{_savings(plan)}"
    yield from (("", text) for text in _parts(plan))
    if plan.assumes and plan.cost is not None:
        yield "", f"assuming {', '.join(plan.assumes)}"
    if plan.fees_not_included:
        yield "", f"without the fees of {', '.join(plan.fees_not_included)}"
    max_cost = job.limits.max_cost
    if max_cost is not None and (plan.cost_at_most or 0) > max_cost:
        yield "", f"limits.max_cost is {describe_dollars(float(max_cost))}: the run may stop there"
    for name, left in plan.left.items():
        stops = ": the run may stop there" if (plan.cost_at_most or 0) > left else ""
        yield "", f"of {name} ${left:,.4f} is left{stops}"
    if plan.calls >= _MANY and not plan.answers and plan.mode == "online":
        command = f"batchgen run {shlex.quote(job.display_name)}{' --simulate' * plan.simulated}"
        yield "", f"answers show it better: {command} --sample 10"


def describe_expected_cost(plan: Plan) -> str:
    """What the calls of a plan will probably cost, and how that is known, as a phrase."""
    from batchgen.report import describe_dollars, pluralize

    if plan.cost is None:
        return "unknown"
    about = f"about {describe_dollars(plan.cost)}"
    if not plan.answers:
        return about
    source = f"from {pluralize(plan.answers, 'answer')} so far"
    if plan.cost_low is None or plan.cost_high is None or plan.cost_high == plan.cost_low:
        return f"{about}, {source}"
    low, high = describe_dollars(plan.cost_low), describe_dollars(plan.cost_high)
    return f"{about}, {source} (between {low} and {high})" if low != high else f"{about}, {source}"


def _at_most(plan: Plan) -> str:
    from batchgen.report import describe_dollars

    if plan.cost_at_most is None:
        return "at most unknown"
    return f"at most {describe_dollars(plan.cost_at_most)}"


def _parts(plan: Plan) -> Iterator[str]:
    """For each axis of the matrix on which the cost depends: what the calls of each value cost."""
    from batchgen.report import describe_dollars

    for axis in plan.by_axes[0]["axes"] if plan.by_axes else ():
        values: dict[str, list[Mapping[str, Any]]] = {}
        for part in plan.by_axes:
            values.setdefault(str(part["axes"][axis]), []).append(part)
        costs = {value: [part["cost"] for part in parts] for value, parts in values.items()}
        if any(None in each for each in costs.values()) or not _differ(values):
            continue
        texts = [
            f"{value} about {describe_dollars(sum(costs[value]))}{_unseen(plan, parts)}"
            for value, parts in list(values.items())[:_MOST_VALUES]
        ]
        more = len(values) - _MOST_VALUES
        texts += [f"and {more:,} more"] if more > 0 else []
        yield f"by {axis}: {', '.join(texts)}"


def _differ(values: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Whether a call costs more with one value of an axis than with another."""
    means = [
        sum(part["cost"] for part in parts) / sum(part["calls"] for part in parts)
        for parts in values.values()
    ]
    return bool(max(means) > min(means) * _ALIKE)


def _unseen(plan: Plan, parts: Sequence[Mapping[str, Any]]) -> str:
    """A remark on a value of an axis that has no answer yet, while others have some."""
    return " (no answer yet)" * (plan.answers > 0 and not any(part["answers"] for part in parts))


def _savings(plan: Plan) -> str:
    """What batches save, for a plan that makes some."""
    from batchgen.report import describe_dollars

    if not plan.shards or plan.saves is None:
        return ""
    if not plan.saves:
        return "; no less than online, as far as prices are known"
    return f"; {describe_dollars(plan.saves)} less than online"


def _time(plan: Plan, job: Job) -> Lines:
    if not plan.calls:
        return
    if plan.mode == "batch":
        yield "time", "up to a day, the time that a batch has"
        return
    from batchgen.report import describe_duration

    parts = []
    if plan.expected_seconds is not None:
        parts.append(describe_expected_time(plan, job))
    if plan.seconds:
        parts.append(f"at least {describe_duration(plan.seconds)} under the job's limits")
    if parts:
        yield "time", "; ".join(parts)


def describe_expected_time(plan: Plan, job: Job) -> str:
    """How long the calls of a plan will take, and how that is known, as a phrase."""
    from batchgen.report import describe_duration

    about = describe_duration(plan.expected_seconds or 0)
    each = f"{plan.answer_seconds or 0:.1f} s an answer so far"
    return f"about {about} ({each}, {job.limits.concurrency:,} at a time)"
