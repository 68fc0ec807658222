"""The whole flow, on one screen: see `run`."""

from __future__ import annotations

import asyncio
import hashlib
import platform
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from typing import Any

from batchgen.disk import append_line
from batchgen.errors import BatchgenError, InputError, OutputError, Problem, did_you_mean
from batchgen.images import PictureFolder
from batchgen.job import Job, api_key
from batchgen.journal import Journal, RowCounts
from batchgen.journal.batches import committed, open_batches, stale_requests
from batchgen.pricing import NANO, dollars, in_batch
from batchgen.report import (
    NOTHING,
    Report,
    batch_json,
    describe_stale_requests,
    job_totals,
    pluralize,
    rerun_reasons,
    run_totals,
    write_report,
)
from batchgen.session import Options, Session
from batchgen.signals import Signals
from batchgen.tables import check_formats
from batchgen.workspace import Workspace

__all__ = ["Options", "cancel", "run"]

# The key at the simulated API, which takes any. It is cut out of every answer, like others: no answer may hold it.
NO_KEY = "sk-the-simulated-api-takes-any"

# What a run does with the network: Session.send or Session.cancel.
Way = Callable[[Session], Coroutine[Any, Any, BatchgenError | None]]


def run(job: Job, options: Options | None = None) -> Report:
    """Do what is not done of a job, and return its report.

    Raises InputError (2), OutputError (74), BusyError (75), and AccountError (4) for a key that is missing; what stops a
    run that has begun is in the report instead.
    """
    options = options or Options()
    check_formats(job)
    place = Workspace.of(job, simulate=options.simulate, output=options.output)
    with Signals() as signals, place.locked(), place.open() as journal:
        place.stage(
            journal, options.stdin, capped=_cap(place.job, options) is not None, say=options.say
        )
        return _run(place, journal, options, signals, Session.send, sends=True)


def cancel(job: Job, options: Options | None = None, *, ids: Sequence[str] = ()) -> Report:
    """Cancel the batches of a job that have not ended, those of these ids or all, keep what they brought, and return the job's
    report: exit code 0 when none of them is left. Sends nothing, and reads no prompts. Raises what `run` raises, and
    InputError for an id of none."""
    options = options or Options()
    check_formats(job)
    place = Workspace.of(job, simulate=options.simulate, output=options.output)
    with place.peek() as journal:
        place.staged(journal)
        known = [batch.id for batch in open_batches(journal) if batch.id]
        if unknown := [
            Problem(path=each, message=f"is no open batch{did_you_mean(each, known)}")
            for each in ids
            if each not in known
        ]:
            raise InputError(unknown)
    with Signals() as signals, place.locked(), place.open() as journal:
        return _run(place, journal, options, signals, partial(Session.cancel, ids=ids), sends=False)


def _run(
    place: Workspace, journal: Journal, options: Options, signals: Signals, way: Way, *, sends: bool
) -> Report:
    began = time.monotonic()
    pictures = PictureFolder(place.folder, journal.owns)
    if place.staged(journal).draws:
        pictures.prepare()
        journal.mark_lost(place.missing(journal))
    before = journal.standing(options.limit, by_turns=place.by_turns)
    todo = before.to_send if sends else 0
    if todo:
        _announce(place, before, options)
    if sends and (stray := stale_requests(journal)):
        options.say(f"{place.job.name}: {describe_stale_requests(stray)}")
    busy = bool(todo or open_batches(journal))
    key = _key(place) if busy else None
    signals.end_in_order()
    number = journal.begin_run(_provenance(place, options, journal), place.job.text)
    append_line(place.folder / "run.log", f"run {number} began: {todo} requests to send")
    sending = Session(
        place=place,
        journal=journal,
        pictures=pictures,
        options=options,
        number=number,
        key=key,
        signals=signals,
        before=before,
    )
    stopped = _completed(way(sending)) if busy else None
    return _finish(sending, stopped, began, busy=busy, sends=sends)


def _announce(place: Workspace, before: RowCounts, options: Options) -> None:
    """Say before anything is paid for what runs again, and why."""
    changes = [
        f"{pluralize(count, 'answered row')} to run again because {why}"
        for why, count in rerun_reasons(before).items()
    ]
    if changes:
        cost = in_batch(before.cost) if place.job.mode == "batch" else before.cost
        about = "of unknown cost" if cost is None else f"about ${cost / NANO:.4f}"
        options.say(
            f"{place.job.name}: {'; '.join(changes)}; {pluralize(before.to_send, 'call')}, {about}"
        )


def _cap(job: Job, options: Options) -> int | None:
    """The cap on money that a run has, in nano-dollars, whichever it comes from."""
    caps = [cap for cap in (job.limits.max_cost, options.max_cost) if cap is not None]
    return int(min(caps) * NANO) if caps else None


def _key(place: Workspace) -> str | None:
    return NO_KEY if place.simulate else api_key(place.job)


def _completed(work: Coroutine[Any, Any, BatchgenError | None]) -> BatchgenError | None:
    """What stopped the dispatch, or None. Where a loop runs already, as in a notebook, it has a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        ran = partial(asyncio.run, work)
    else:
        ran = partial(_in_a_thread, work)
    try:
        return ran()
    except OutputError as error:
        # What was recorded before may still become tables.
        return error


def _in_a_thread(work: Coroutine[Any, Any, BatchgenError | None]) -> BatchgenError | None:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _finish(
    sending: Session, stopped: BatchgenError | None, began: float, *, busy: bool, sends: bool
) -> Report:
    """Tables, the run's end in the journal, report.json, run.log. Raises OutputError, of two the one that came first."""
    place, journal, options, number = (
        sending.place,
        sending.journal,
        sending.options,
        sending.number,
    )
    try:
        tables = place.tables(journal)
        # Where nothing was sent, a million rows are not read once more, neither for tables nor to be counted.
        if sending.before.to_send or not tables.are_in(place.folder):
            journal.forget_tables()
            tables.write(place.folder)
        now = journal.standing(options.limit, by_turns=place.by_turns) if busy else sending.before
        whole = now if options.limit is None else journal.standing(None, by_turns=place.by_turns)
        left, held = open_batches(journal), now.to_send if sending.progress.deferred else 0
        why = sending.signals.first(stopped)
        waits = bool(left or held)
        code = 6 if waits else _exit_code(place.job, now) if sends else 0
        report = Report(
            name=place.job.name,
            number=number,
            exit_code=why.exit_code if why else code,
            rows=now.lines,
            total=sum(now.lines.values()),
            run=run_totals(journal, number) if busy else NOTHING,
            job=job_totals(journal, whole),
            models=journal.models(number) if busy else (),
            elapsed=time.monotonic() - began,
            simulated=place.simulate,
            stopped=str(why) if why else None,
            output=str(place.folder),
            tables=tuple(str(path) for path in tables.paths(place.folder)),
            disarmed=tables.disarmed,
            learned=sending.progress.learned,
            in_batches=now.in_batches,
            batches=tuple(map(batch_json, left)),
            held=held,
            committed=(dollars(committed(journal, number)) or 0.0) if busy else 0.0,
        )
        journal.end_run(number, report.exit_code, report.run_json(), tables.known)
        write_report(place.folder, report.as_json())
        append_line(
            place.folder / "run.log",
            f"run {number} ended: {report.run.calls} calls, exit {report.exit_code}",
        )
        for line in report.learned_lines():
            append_line(place.folder / "run.log", f"run {number} {line}")
    except OutputError as error:
        raise (stopped if isinstance(stopped, OutputError) else error) from None
    return report


def _exit_code(job: Job, now: RowCounts) -> int:
    """0 when every row in scope succeeded, or all have ended and few enough of them failed or are incomplete; else 3. What a
    failed turn blocks has ended with it."""
    rows = now.lines
    total = sum(rows.values())
    if rows.get("succeeded", 0) == total:
        return 0
    allowed, left = job.limits.max_failures, rows.get("pending", 0) + rows.get("outdated", 0)
    failed = rows.get("failed", 0) + rows.get("incomplete", 0)
    return 0 if allowed is not None and not left and allowed.allows(failed, total) else 3


def _provenance(place: Workspace, options: Options, journal: Journal) -> dict[str, Any]:
    """Everything that tells later how a run's answers came to be; no secrets."""
    found = place.staged(journal)
    packages = ("batchgen", "openai", "aiohttp", "jinja2", "pydantic", "genai-prices")
    return {
        "versions": {name: version(name) for name in packages},
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "base_url": place.connection.base_url,
        "provider": place.connection.identity,
        "simulated": place.simulate,
        "job": str(place.job.path),
        "job_sha256": hashlib.sha256(place.job.text.encode()).hexdigest(),
        "prompts": found.source,
        "prompts_sha256": found.digest,
        "limit": options.limit,
        "max_cost": options.max_cost,
    }
