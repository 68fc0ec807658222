"""What a run would do and cost: reads everything, sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.dispatch.batches.input_file import MOST_REQUESTS
from batchgen.inspection import request_json
from batchgen.job import Job, Mode, as_called
from batchgen.journal import (
    Journal,
    RowCounts,
    assume_lost,
    check_before_sending,
    count_rows,
    first_row,
)
from batchgen.journal.batches import open_batches, set_aside, stale_requests
from batchgen.journal.outcomes import answers_without_rows
from batchgen.journal.rows import longest_thread, row_at
from batchgen.pricing import dollars
from batchgen.prompts import GivenRows
from batchgen.report import Estimate, rerun_reasons
from batchgen.requests import combinations
from batchgen.spend import left_of_caps
from batchgen.staging import LinesCallback, StagedPrompts
from batchgen.tables import check_formats, check_size
from batchgen.workspace import Workspace, estimated, highest_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do. Costs are in USD; None means unknown.

    Attributes:
        name: the job's name.
        kind: the kind of its requests, or the format of its prompts where lines choose the kind.
        mode: online or batch.
        host: the server.
        server_from: the `.env` whose OPENAI_BASE_URL names the server; None if none does.
        output: the job's output folder.
        rows: lines of the results table by status.
        total: the sum of `rows`.
        prompts: rows of the prompts file, of which each makes as many of `total` as the matrix has
            combinations.
        failures: why rows failed or are incomplete, most frequent first; each with a `reason`, a
            `count`, and of its first row the `id`, the `line` and the `message`.
        unclaimed: answers that no row has as it is now, in a job without ids (else 0).
        left_out: rows of the whole file that are left out, by the key of the job that does it.
        empty: rows of the whole file that are sent although their prompt is empty.
        calls: requests that would be sent.
        tokens: what they are expected to take, input and output.
        cost: what they are expected to cost.
        cost_low, cost_high: a range that holds their cost in 19 of 20 cases, if the answers so far
            are a fair sample of all; None where too few answers show one.
        cost_at_most: the upper bound of their cost.
        answers: how many answers so far the expected cost is from; 0: it is from assumptions.
        assumes: these assumptions, each as a phrase; empty if there are answers.
        by_axes: of a job with a matrix, the calls by combination: each has its `axes`, how many
            `calls` it makes, what they are expected to `cost`, and how many `answers` show that.
        left: what is left now of the job's caps on the money of its key, by their names.
        fees_not_included: tools of the server that the job uses, whose fees are in no cost.
        again: answered rows that would run again, by reason.
        seconds: the least time under the job's own limits (None: no limits).
        expected_seconds: the time that they are expected to take (None: no answer shows it).
        answer_seconds: the time that an answer took so far, in the mean (None: there is none).
        simulated: whether the simulated API would answer.
        shards: in mode batch the least number of batches that the calls make, else 0.
        saves: in mode batch what the calls cost less than online.
        in_batches: requests that are in open batches.
        batches: the open batches.
        set_aside: what the open batches may still cost at most (None: no price is known).
        strays: stale requests in open batches: their rows have changed since.
        first: the first request that would be sent, in full.
    """

    name: str
    kind: str
    mode: str
    host: str
    server_from: str | None
    output: str
    rows: Mapping[str, int]
    total: int
    prompts: int
    failures: Sequence[Mapping[str, Any]]
    unclaimed: int
    left_out: Mapping[str, int]
    empty: int
    calls: int
    tokens: int
    cost: float | None
    cost_low: float | None
    cost_high: float | None
    cost_at_most: float | None
    answers: int
    assumes: Sequence[str]
    by_axes: Sequence[Mapping[str, Any]]
    left: Mapping[str, float]
    fees_not_included: Sequence[str]
    again: Mapping[str, int]
    seconds: float | None
    expected_seconds: float | None
    answer_seconds: float | None
    simulated: bool
    shards: int
    saves: float | None
    in_batches: int
    batches: int
    set_aside: float | None
    strays: int
    first: Mapping[str, Any] | None


def plan(
    job: Job,
    *,
    limit: int | None = None,
    simulate: bool = False,
    output: Path | None = None,
    stdin: BinaryIO | None = None,
    prompts: GivenRows | None = None,
    mode: Mode | None = None,
    on_lines: LinesCallback = lambda lines: None,
) -> Plan:
    """Read everything, send nothing, write nothing. Raises InputError, DamagedError.

    Args:
        job: the job.
        limit: plan only the first rows of the prompts, this many (None: all).
        simulate: plan a run on the simulated API, with its own output folder.
        output: the folder that replaces the job's outputs folder.
        stdin: the stream that holds the prompts of a job whose `prompts.path` is "-".
        prompts: the rows, in place of the job's prompts: a pandas DataFrame, or an iterable of
            dicts, which is iterated once.
        mode: online or batch, in place of the job's (None: the job's).
        on_lines: called very often with how many lines of the prompts were read.
    """
    job = as_called(job, mode=mode, gives_rows=prompts is not None)
    check_formats(job, job.output.tables)
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with ExitStack() as stack:
        journal = stack.enter_context(workspace.peek())
        workspace.check_schema()
        capped = bool(job.limits.on_cost)
        read = None
        if prompts is None and workspace.is_current(journal, stdin, capped=capped):
            workspace.layout(journal)
        else:
            journal = stack.enter_context(workspace.peek(shadow=True))
            read = workspace.stage(journal, stdin, capped=capped, rows=prompts, on_lines=on_lines)
        stack.enter_context(journal.snapshot())
        assume_lost(journal, workspace.missing_pictures(journal))
        return _plan(workspace, journal, read or workspace.staged(journal), limit)


def _plan(
    workspace: Workspace, journal: Journal, prompts: StagedPrompts, limit: int | None
) -> Plan:
    job = workspace.job
    counts = count_rows(journal, workspace.scope(journal, limit=limit), by_turns=workspace.by_turns)
    check_size(job, sum(counts.lines.values()))
    if counts.to_send:
        check_before_sending(journal)
    first = first_row(journal)
    batch = job.mode == "batch"
    expected = estimated(workspace, journal, counts, prompts)
    total = sum(counts.lines.values())
    return Plan(
        name=job.name,
        kind=job.kind or str(job.prompts.format),
        mode=job.mode,
        host=workspace.host,
        server_from=workspace.server_from,
        output=str(workspace.folder),
        rows=counts.lines,
        total=total,
        prompts=total // len(combinations(job.matrix)),
        failures=_failures(journal, counts),
        unclaimed=answers_without_rows(journal) if job.prompts.id is None else 0,
        left_out=prompts.left_out,
        empty=prompts.empty,
        calls=counts.to_send,
        left={} if workspace.simulate else left_of_caps(job),
        again=rerun_reasons(counts),
        **_costs(workspace, counts, prompts, expected),
        fees_not_included=prompts.fees_not_included,
        # The job's limits are for online requests; batches have limits of their own.
        seconds=None if batch else _seconds(job, counts.to_send, counts.tokens),
        expected_seconds=None if batch else _expected_seconds(job, journal, counts, expected),
        answer_seconds=expected.answer_seconds,
        simulated=workspace.simulate,
        shards=-(-counts.to_send // MOST_REQUESTS) if batch else 0,
        in_batches=counts.in_batches,
        batches=len(open_batches(journal)),
        set_aside=dollars(set_aside(journal)),
        strays=stale_requests(journal),
        first=request_json(workspace, first) if first else None,
    )


def _costs(
    workspace: Workspace, counts: RowCounts, prompts: StagedPrompts, expected: Estimate
) -> dict[str, Any]:
    """The fields of a plan that say what it costs."""
    share = prompts.batch_cost if workspace.job.mode == "batch" else 1.0
    cost = expected.cost
    saves = None if cost is None or not share else round(cost / share) - cost
    order = combinations(workspace.job.matrix)
    parts = sorted(expected.parts, key=lambda part: order.index(part.axes))
    return {
        "tokens": expected.tokens,
        "cost": dollars(cost),
        "cost_low": dollars(expected.low),
        "cost_high": dollars(expected.high),
        "cost_at_most": dollars(highest_cost(workspace, counts, prompts)),
        "answers": expected.answers,
        "assumes": prompts.assumes if counts.to_send and not expected.answers else (),
        "saves": dollars(saves) if workspace.job.mode == "batch" else None,
        "by_axes": [{**asdict(part), "cost": dollars(part.cost)} for part in parts if part.axes],
    }


def _failures(journal: Journal, counts: RowCounts) -> list[dict[str, Any]]:
    """Why rows failed or are incomplete, with the first row of each reason."""
    failures = []
    for reason, count in counts.failures.items():
        row, outcome = row_at(journal, counts.examples[reason])
        message = row.error or (outcome and outcome.message) or None
        example = {"id": row.id, "line": row.line, "message": message}
        failures.append({"reason": reason, "count": count, **example})
    return failures


def _expected_seconds(
    job: Job, journal: Journal, counts: RowCounts, expected: Estimate
) -> float | None:
    """The time that the requests to send will take online, by the answers so far."""
    each = expected.answer_seconds
    if each is None or not counts.to_send:
        return None
    # The turns of a conversation wait for each other.
    turns = longest_thread(journal) if job.conversation else 1
    rounds = max(counts.to_send / job.limits.concurrency, min(turns, counts.to_send))
    return max(each * rounds, _seconds(job, counts.to_send, counts.tokens) or 0)


def _seconds(job: Job, calls: int, tokens: int) -> float | None:
    """The least time that calls take under the job's own limits; None without limits."""
    limits = job.limits
    each = job.request.get("n", 1)
    # A template as `n` is only known row by row; one picture is then the least.
    pictures = calls * (each if isinstance(each, int) else 1)
    paces = (
        (limits.requests_per_minute, calls),
        (limits.tokens_per_minute, tokens),
        (limits.images_per_minute, pictures if job.kind in ("image", "image_edit") else 0),
    )
    times = [60 * amount / limit for limit, amount in paces if limit]
    return max(times) if times else None
