"""What a run would do and cost: reads everything, sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from batchgen.dispatch.batches.input_file import MOST_REQUESTS
from batchgen.job import Job
from batchgen.journal import Journal
from batchgen.journal.batches import open_batches, set_aside, stale_requests
from batchgen.pricing import dollars, in_batch
from batchgen.report import rerun_reasons
from batchgen.workspace import Workspace

if TYPE_CHECKING:
    pass
from batchgen.queries import shown_request


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do: rows by status, calls to make with their tokens and USD (None: unknown), `again` how many
    answered rows would run again for which reason, seconds at the least under the job's limits, and the first request in
    full. In mode batch the calls make `shards` batches at the least, and save USD; `in_batches` requests are in `batches`
    that have not ended, and may cost `set_aside` USD at the most; `strays` of them are of rows that have changed since."""

    name: str
    kind: str
    mode: str
    host: str
    output: str
    rows: Mapping[str, int]
    total: int
    calls: int
    tokens: int
    cost: float | None
    cost_at_most: float | None
    again: Mapping[str, int]
    seconds: float | None
    simulated: bool
    shards: int
    saves: float | None
    in_batches: int
    batches: int
    set_aside: float
    strays: int
    first: Mapping[str, Any] | None


def plan(
    job: Job,
    *,
    limit: int | None = None,
    simulate: bool = False,
    output: Path | None = None,
    stdin: BinaryIO | None = None,
) -> Plan:
    """Read everything, send nothing, write nothing. Raises InputError."""
    place = Workspace.of(job, simulate=simulate, output=output)
    with ExitStack() as stack:
        journal = stack.enter_context(place.peek())
        capped = job.limits.max_cost is not None
        if not place.is_current(journal, stdin, capped=capped):
            journal = stack.enter_context(place.peek(shadow=True))
            place.stage(journal, stdin, capped=capped)
        journal.miss(place.missing(journal))
        return _plan(place, journal, limit)


def _plan(place: Workspace, journal: Journal, limit: int | None) -> Plan:
    standing = journal.standing(limit, by_turns=place.by_turns)
    first = journal.first()
    batch = place.job.mode == "batch"
    cost, bound = standing.cost, standing.cost_bound
    if batch:
        cost, bound = in_batch(cost), in_batch(bound)
    return Plan(
        name=place.job.name,
        kind=place.job.kind or str(place.job.prompts.format),
        mode=place.job.mode,
        host=place.connection.host if not place.simulate else "the simulated API",
        output=str(place.folder),
        rows=standing.lines,
        total=sum(standing.lines.values()),
        calls=standing.to_send,
        tokens=standing.tokens,
        cost=dollars(cost),
        cost_at_most=dollars(bound),
        again=rerun_reasons(standing),
        # Batches have limits of their own.
        seconds=None if batch else _seconds(place.job, standing.to_send, standing.tokens),
        simulated=place.simulate,
        shards=-(-standing.to_send // MOST_REQUESTS) if batch else 0,
        saves=dollars((standing.cost or 0) - (cost or 0)) if batch and cost is not None else None,
        in_batches=standing.in_batches,
        batches=len(open_batches(journal)),
        set_aside=dollars(set_aside(journal)) or 0.0,
        strays=stale_requests(journal),
        first=shown_request(place, first) if first else None,
    )


def _seconds(job: Job, calls: int, tokens: int) -> float | None:
    """The least that the job's own limits make it take; None without limits."""
    limits = job.limits
    pictures = calls * (job.request.get("n", 1) if isinstance(job.request.get("n", 1), int) else 1)
    paces = (
        (limits.requests_per_minute, calls),
        (limits.tokens_per_minute, tokens),
        (limits.images_per_minute, pictures if job.kind in ("image", "image_edit") else 0),
    )
    times = [60 * amount / limit for limit, amount in paces if limit]
    return max(times) if times else None
