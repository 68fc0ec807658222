"""The whole flow, on one screen: see `run`."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import platform
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.disk import append_line
from batchgen.dispatch import Learned, Progress
from batchgen.errors import BatchgenError, OutputError
from batchgen.images import PictureFolder
from batchgen.journal import Journal, Standing
from batchgen.kinds import KINDS, Usage
from batchgen.ledger import JobLedger
from batchgen.place import Place
from batchgen.pricing import NANO, Prices
from batchgen.report import NOTHING, Report, again, counted, state, tally, write_report
from batchgen.signals import Signals
from batchgen.spec import Job, api_key
from batchgen.tables import tables_need

Watch = Callable[[Progress, Mapping[str, int]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run may be told beside its job: the first `limit` rows of the prompts only, USD for this run at the most,
    the simulated API, another root for the output, where "-" prompts come from, and who watches (every `every` seconds)."""

    limit: int | None = None
    max_cost: float | None = None
    simulate: bool = False
    output: Path | None = None
    stdin: BinaryIO | None = None
    watch: Watch | None = None
    every: float = 1.0
    say: Callable[[str], None] = field(default=lambda text: None)


def run(job: Job, options: Options | None = None) -> Report:
    """Do what is not done of a job, and return its report.

    Raises InputError (2), OutputError (74), BusyError (75), and AccountError (4) for a key that is missing; what stops a
    run that has begun is in the report instead.
    """
    options = options or Options()
    began = time.monotonic()
    tables_need(job)
    place = Place.of(job, simulate=options.simulate, output=options.output)
    with Signals() as signals, place.locked(), place.open() as journal:
        place.take_in(journal, options.stdin, capped=_cap(place.job, options) is not None, say=options.say)
        pictures = PictureFolder(place.folder, journal.owns)
        if KINDS[place.job.kind].draws:
            pictures.prepare()
            journal.mark_lost(place.missing(journal))
        before = journal.standing(options.limit, by_turns=place.by_turns)
        todo = before.to_send
        _announce(place, before, options)
        key = _key(place) if todo else None
        signals.end_in_order()
        number = journal.begin_run(_provenance(place, options, journal), job.text)
        append_line(place.folder / "run.log", f"run {number} began: {todo} requests to send")
        progress = Progress()
        work = _dispatch(place, journal, pictures, options, number, key, signals, before, progress) if todo else None
        stopped = _completed(work) if work else None
        return _finish(place, journal, options, number, signals, stopped, began, before, progress.learned)


def _announce(place: Place, before: Standing, options: Options) -> None:
    """Say before anything is paid for what runs again, and why."""
    changes = [f"{counted(count, 'answered row')} to run again because {why}" for why, count in again(before).items()]
    if changes:
        about = "of unknown cost" if before.cost is None else f"about ${before.cost / NANO:.4f}"
        options.say(f"{place.job.name}: {'; '.join(changes)}; {counted(before.to_send, 'call')}, {about}")


def _cap(job: Job, options: Options) -> int | None:
    """The cap on money that a run has, in nano-dollars, whichever it comes from."""
    caps = [cap for cap in (job.limits.max_cost, options.max_cost) if cap is not None]
    return int(min(caps) * NANO) if caps else None


def _key(place: Place) -> str | None:
    return "simulated" if place.simulate else api_key(place.job)


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


async def _dispatch(
    place: Place,
    journal: Journal,
    pictures: PictureFolder,
    options: Options,
    number: int,
    key: str | None,
    signals: Signals,
    before: Standing,
    progress: Progress,
) -> BatchgenError | None:
    """Send what is to be sent; returns what stopped it, or None."""
    # openai costs a second to import, and plan and status need none of it.
    from batchgen.dispatch.admission import own_bucket
    from batchgen.dispatch.limits import Purse
    from batchgen.dispatch.online import OnlineBackend
    from batchgen.dispatch.shared import Shared
    from batchgen.dispatch.transport import Client, affordable
    from batchgen.journal.writer import Writer

    purses = [Purse(cap, name=name) for cap, name in _purses(place.job, journal, place.prices, options)]
    rules = _rules(place, before)
    rules = replace(rules, concurrency=affordable(rules.concurrency))
    writer = Writer(journal.path, number)
    shared = Shared(place.connection.base_url, key, say=partial(_warn, place, options))
    try:
        async with (
            _server(place) as link,
            Client(link, key, connections=rules.concurrency, direct=place.simulate) as client,
        ):
            ledger = JobLedger(place.job, journal, writer, place.renderer, pictures, options.limit)
            backend = OnlineBackend(
                client=client,
                ledger=ledger,
                rules=rules,
                prices=place.prices,
                purses=purses,
                progress=progress,
                host=place.connection.host if not place.simulate else "the simulated API",
                # A simulated API is the run's own, limits and all.
                buckets=own_bucket if place.simulate else shared.bucket,
            )
            signals.attend(backend.stop)
            async with _watched(progress, before, options):
                with _swept():
                    return await backend.run(ledger.threads())
    finally:
        signals.attend(None)
        shared.close()
        await writer.close()


@contextmanager
def _swept() -> Iterator[None]:
    """What is there already is no garbage, and is not looked at again and again: a run makes much of it, and soon.
    Where the caller does so himself, it is left to him."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _warn(place: Place, options: Options, text: str) -> None:
    options.say(f"{place.job.name}: {text}")
    append_line(place.folder / "run.log", text)


@asynccontextmanager
async def _server(place: Place) -> AsyncIterator[Any]:
    """The connection to the job's server, or to a simulated API that lives as long as the run."""
    if not place.simulate:
        yield place.connection
        return
    from batchgen.simulator import Settings, Simulator

    async with Simulator(Settings()) as simulator:
        yield replace(place.connection, base_url=simulator.url, headers={})


@asynccontextmanager
async def _watched(progress: Progress, before: Standing, options: Options) -> AsyncIterator[None]:
    if options.watch is None:
        yield
        return
    watch = options.watch

    async def look() -> None:
        # Who watches may fail (a terminal that is gone); the run goes on unwatched.
        with suppress(Exception):
            while True:
                watch(progress, before.requests)
                await asyncio.sleep(options.every)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        with suppress(Exception):
            watch(progress, before.requests)


def _spent(journal: Journal, prices: Prices) -> int:
    """What all runs spent, in nano-dollars. What had no price when it was spent is counted at today's, or at its worst."""
    late = 0
    for call in journal.unpriced():
        usage = Usage(input_tokens=call["input_tokens"], output_tokens=call["output_tokens"])
        cost = prices.cost(call["model"] or "", usage, tier=call["service_tier"])
        late += (call["cost_bound"] or 0) if cost is None else cost
    return journal.spent() + late


def _purses(job: Job, journal: Journal, prices: Prices, options: Options) -> Iterator[tuple[int, str]]:
    if job.limits.max_cost is not None:
        yield int(job.limits.max_cost * NANO) - _spent(journal, prices), "limits.max_cost"
    if options.max_cost is not None:
        yield int(options.max_cost * NANO), "--max-cost"


def _rules(place: Place, before: Standing) -> Any:
    from batchgen.dispatch.online import Rules

    job, limits, retry = place.job, place.job.limits, place.job.retry
    return Rules(
        concurrency=limits.concurrency,
        attempts=retry.attempts,
        max_wait=retry.max_wait,
        timeout=job.timeout,
        give_up=retry.give_up,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        images_per_minute=limits.images_per_minute,
        max_time=limits.max_time,
        failures_left=_failures_left(place, before),
        own_model="{" in str(job.request.get("model", "")),
        own_tier="{" in str(job.request.get("service_tier", "")),
        accept=frozenset(job.output.accept),
    )


def _failures_left(place: Place, before: Standing) -> int | None:
    """How many more rows may fail before max_failures stops the job; failed ones that run again do not count yet."""
    allowed = place.job.limits.max_failures
    if allowed is None:
        return None
    lines = before.lines
    return allowed.most(sum(lines.values())) - (lines.get("failed", 0) + lines.get("incomplete", 0) - before.again)


def _finish(
    place: Place,
    journal: Journal,
    options: Options,
    number: int,
    signals: Signals,
    stopped: BatchgenError | None,
    began: float,
    before: Standing,
    learned: Learned,
) -> Report:
    """Tables, the run's end in the journal, report.json, run.log. Raises OutputError, of two the one that came first."""
    try:
        tables = place.tables(journal)
        # Where nothing was sent, a million rows are not read once more, neither for tables nor to be counted.
        sent = before.to_send > 0
        if sent or not tables.are_in(place.folder):
            journal.forget_tables()
            tables.write(place.folder)
        now = journal.standing(options.limit, by_turns=place.by_turns) if sent else before
        whole = now if options.limit is None else journal.standing(None, by_turns=place.by_turns)
        why = signals.first(stopped)
        report = Report(
            name=place.job.name,
            number=number,
            exit_code=why.exit_code if why else _exit_code(place.job, now.lines),
            rows=now.lines,
            total=sum(now.lines.values()),
            run=tally(journal, number) if sent else NOTHING,
            job=state(journal, whole),
            models=journal.models(number) if sent else (),
            elapsed=time.monotonic() - began,
            simulated=place.simulate,
            stopped=str(why) if why else None,
            output=str(place.folder),
            tables=tuple(str(path) for path in tables.paths(place.folder)),
            disarmed=tables.disarmed,
            learned=learned,
        )
        journal.end_run(number, report.exit_code, report.run_json(), tables.known)
        write_report(place.folder, report.as_json())
        append_line(place.folder / "run.log", f"run {number} ended: {report.run.calls} calls, exit {report.exit_code}")
        for line in report.learned_lines():
            append_line(place.folder / "run.log", f"run {number} {line}")
    except OutputError as error:
        raise (stopped if isinstance(stopped, OutputError) else error) from None
    return report


def _exit_code(job: Job, rows: Mapping[str, int]) -> int:
    """0 when every row in scope succeeded, or all have ended and few enough of them failed or are incomplete; else 3.
    What a failed turn blocks has ended with it."""
    total = sum(rows.values())
    if rows.get("succeeded", 0) == total:
        return 0
    allowed, left = job.limits.max_failures, rows.get("pending", 0) + rows.get("outdated", 0)
    failed = rows.get("failed", 0) + rows.get("incomplete", 0)
    return 0 if allowed is not None and not left and allowed.allows(failed, total) else 3


def _provenance(place: Place, options: Options, journal: Journal) -> dict[str, Any]:
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
