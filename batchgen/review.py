"""What can be told and mended without sending anything: plan, status, show, redo, export, verify."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from batchgen.dispatch.shards import MOST_REQUESTS
from batchgen.errors import DamagedError, InputError, Problem, nearest
from batchgen.images import is_whole
from batchgen.journal import Journal, Row
from batchgen.journal.batches import batch_of, open_batches, set_aside, strays
from batchgen.ledger import rendered
from batchgen.place import Place
from batchgen.pricing import dollars, in_batch
from batchgen.report import again, as_json, batch_json, state, tally, write_report
from batchgen.requests import RequestFault
from batchgen.spec import Job
from batchgen.tables import frame

if TYPE_CHECKING:
    import pandas


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
    place = Place.of(job, simulate=simulate, output=output)
    with ExitStack() as stack:
        journal = stack.enter_context(place.peek())
        capped = job.limits.max_cost is not None
        if not place.is_current(journal, stdin, capped=capped):
            journal = stack.enter_context(place.peek(shadow=True))
            place.take_in(journal, stdin, capped=capped)
        journal.miss(place.missing(journal))
        return _plan(place, journal, limit)


def _plan(place: Place, journal: Journal, limit: int | None) -> Plan:
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
        again=again(standing),
        # Batches have limits of their own.
        seconds=None if batch else _seconds(place.job, standing.to_send, standing.tokens),
        simulated=place.simulate,
        shards=-(-standing.to_send // MOST_REQUESTS) if batch else 0,
        saves=dollars((standing.cost or 0) - (cost or 0)) if batch and cost is not None else None,
        in_batches=standing.in_batches,
        batches=len(open_batches(journal)),
        set_aside=dollars(set_aside(journal)) or 0.0,
        strays=strays(journal),
        first=_request(place, first) if first else None,
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


def _request(place: Place, row: Row) -> dict[str, Any]:
    """A row's request as people read it, or why there is none."""
    try:
        request = rendered(place.job, place.renderer, row)
    except RequestFault as fault:
        return {"error": str(fault)}
    files = [upload.name for upload in request.uploads]
    return {"endpoint": request.endpoint, **({"files": files} if files else {}), "body": request.body}


# What `status` tells of the last run.
_RUN = ("run", "started_at", "ended_at", "exit_code")


def status(job: Job, *, simulate: bool = False, output: Path | None = None) -> dict[str, Any]:
    """Counts from the journal alone, also while a run is going."""
    place = Place.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
        standing = journal.standing(None, by_turns=place.by_turns)
        last = journal.last_run()
        return {
            "name": job.name,
            "simulated": simulate,
            "output": str(place.folder),
            "rows": standing.lines,
            "total": sum(standing.lines.values()),
            "failures": standing.failures,
            "in_batches": standing.in_batches,
            "batches": [batch_json(batch) for batch in open_batches(journal)],
            "last_run": {name: last[name] for name in _RUN} if last else None,
            **asdict(tally(journal, None)),
        }


def show(job: Job, identity: str, *, simulate: bool = False, output: Path | None = None) -> list[dict[str, Any]]:
    """Everything known of one row: for each of its requests the request, the answer and the attempts."""
    place = Place.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
        rows = _named(journal, [identity])
        calls = defaultdict(list)
        for each in journal.attempts({row.ident for row in rows}):
            calls[each["ident"], each["key"]].append({**each, "cost": dollars(each["cost"])})
        return [_detail(place, journal, row, calls[row.ident, row.key]) for row in rows]


# What a row's outcome holds for batchgen alone.
_PRIVATE = ("ident", "key", "columns_digest", "packed", "redo", "lost")


def _detail(place: Place, journal: Journal, row: Row, attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    recorded, batch = journal.recorded(row.ident, row.key), batch_of(journal, row.ident, row.key)
    outcome = None
    if recorded is not None:
        outcome = {name: value for name, value in recorded._asdict().items() if name not in _PRIVATE}
        outcome |= {"response": json.loads(recorded.response or b"null"), "cost": dollars(recorded.cost)}
    return {
        "id": row.id,
        "line": row.line,
        "axes": row.axes,
        "turn": row.turn or None,
        "status": row.status,
        "key": row.key.hex(),
        "error": row.error,
        "request": _request(place, row) if row.error is None else None,
        "outcome": outcome,
        "batch": batch_json(batch) if batch else None,
        "attempts": [
            {name: each[name] for name in each if name not in ("ident", "key", "seq", "seal")} for each in attempts
        ],
    }


def _named(journal: Journal, identities: Sequence[str]) -> list[Row]:
    """The rows of these ids. Raises InputError for those that there are not."""
    rows, problems = [], []
    for identity in identities:
        found = journal.find(identity)
        rows += found
        if not found:
            near = nearest(identity, [each[0] for each in journal.query("SELECT DISTINCT id FROM rows LIMIT 5000")])
            problems.append(Problem(path=identity, message=f"is the id of no row of this job{near}"))
    if problems:
        raise InputError(problems)
    return rows


def redo(
    job: Job,
    identities: Sequence[str] = (),
    *,
    statuses: Iterable[str] = (),
    simulate: bool = False,
    output: Path | None = None,
) -> int:
    """Mark rows to be asked again by the next run: those named, those in these statuses, and of conversations the later
    turns, which follow from them. The old answers stay until the new ones land. Returns how many requests were marked,
    later turns included. Raises InputError, BusyError."""
    place = Place.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
    with place.locked(), place.open() as journal:
        return journal.mark_redo(_named(journal, identities), set(statuses))


def export(job: Job, *, simulate: bool = False, output: Path | None = None) -> list[Path]:
    """Make the tables and report.json again from the journal, without the network. Raises DamagedError."""
    place = Place.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
        # Prompts, rows and outcomes are checked as they are read; what is only counted is checked here.
        for trouble in journal.damage(("attempts", "runs")):
            raise DamagedError(trouble)
        paths = place.tables(journal).write(place.folder)
        about = state(journal, journal.standing(None, by_turns=place.by_turns))
        write_report(place.folder, as_json(job.name, about, journal.last_report(), simulated=simulate))
        return paths


def verify(job: Job, *, simulate: bool = False, output: Path | None = None) -> list[str]:
    """Check the journal and every picture that the tables show; everything that is not what was written, a sentence
    each."""
    place = Place.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
        troubles = list(journal.damage())
        if troubles:
            return troubles
        shown = (journal.shown(row, recorded) for row, recorded in journal.answered())
        return [
            f"{place.folder / file['path']}: is missing or not what was written; the next run draws it again"
            for recorded in shown
            if recorded is not None
            for file in journal.files_of(recorded)
            if not is_whole(place.folder, file, rehash=True)
        ]


def results(job: Job, *, simulate: bool = False, output: Path | None = None) -> pandas.DataFrame:
    """The results table as a pandas DataFrame, one row a line, every cell as it stands."""
    place = Place.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        look = place.layout(journal)
        return frame(place.tables(journal).results(), [*look.inputs, *look.own])
