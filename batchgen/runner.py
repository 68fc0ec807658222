"""The whole flow, on one screen: see `run`."""

from __future__ import annotations

import asyncio
import hashlib
import platform
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from batchgen.disk import append_line
from batchgen.dispatch import Progress
from batchgen.errors import BatchgenError, Interrupted, OutputError
from batchgen.images import PictureFolder, is_whole
from batchgen.journal import Journal
from batchgen.kinds import KINDS
from batchgen.ledger import JobLedger
from batchgen.place import Place
from batchgen.pricing import NANO
from batchgen.report import Report, state, tally, write_report
from batchgen.spec import Job, api_key
from batchgen.tables import tables_need

# Seconds that calls in flight have to end after SIGTERM or SIGHUP: schedulers kill after thirty.
DRAIN = 25.0

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
    with _Signals() as signals, place.locked(), place.open() as journal:
        place.take_in(journal, options.stdin, capped=_cap(place.job, options) is not None, say=options.say)
        pictures = PictureFolder(place.folder, journal.owns)
        _find_lost(place, journal, pictures)
        todo = journal.todo(options.limit)[0]
        _announce(place, journal, options)
        key = _key(place) if todo else None
        signals.end_in_order()
        number = journal.begin_run(_provenance(place, options, journal), job.text)
        append_line(place.folder / "run.log", f"run {number} began: {todo} requests to send")
        stopped = _completed(_dispatch(place, journal, pictures, options, number, key, signals)) if todo else None
        return _finish(place, journal, options, number, signals, stopped, began)


def _find_lost(place: Place, journal: Journal, pictures: PictureFolder) -> None:
    """A row with pictures is done only while they are what was written."""
    if KINDS[place.job.kind].draws:
        pictures.prepare()
        journal.mark_lost(
            [(file["ident"], file["key"]) for file in journal.files() if not is_whole(place.folder, file)]
        )


def _announce(place: Place, journal: Journal, options: Options) -> None:
    """Say before anything is paid for what a change of the job or of its rows makes run again."""
    forecast = journal.forecast(options.limit)
    changes = [
        f"{forecast[name]:,} answered rows run again because {why}"
        for name, why in (("changed_job", "the job has changed"), ("changed_rows", "their cells have changed"))
        if forecast[name]
    ]
    if changes:
        cost = forecast["cost"]
        about = "of unknown cost" if cost is None else f"about ${cost / NANO:.4f}"
        options.say(f"{place.job.name}: {'; '.join(changes)}; {forecast['requests']:,} calls, {about}")


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
    signals: _Signals,
) -> BatchgenError | None:
    """Send what is to be sent; returns what stopped it, or None."""
    # openai costs a second to import, and plan and status need none of it.
    from batchgen.dispatch.limits import Purse
    from batchgen.dispatch.online import OnlineBackend
    from batchgen.dispatch.transport import Client, affordable
    from batchgen.journal.writer import Writer

    progress = Progress()
    purses = [Purse(cap, name=name) for cap, name in _purses(place.job, journal, options)]
    rules = _rules(place, journal, options)
    rules = replace(rules, concurrency=affordable(rules.concurrency))
    writer = Writer(journal.path, number)
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
            )
            signals.attend(backend.stop)
            async with _watched(progress, journal, place, options):
                return await backend.run(ledger.threads())
    finally:
        signals.attend(None)
        await writer.close()


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
async def _watched(progress: Progress, journal: Journal, place: Place, options: Options) -> AsyncIterator[None]:
    if options.watch is None:
        yield
        return
    watch, before = options.watch, journal.counts(options.limit, by_turns=False)

    async def look() -> None:
        # Who watches may fail (a terminal that is gone); the run goes on unwatched.
        with suppress(Exception):
            while True:
                watch(progress, before)
                await asyncio.sleep(options.every)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        with suppress(Exception):
            watch(progress, before)


def _purses(job: Job, journal: Journal, options: Options) -> Iterator[tuple[int, str]]:
    if job.limits.max_cost is not None:
        yield int(job.limits.max_cost * NANO) - journal.spent(), "limits.max_cost"
    if options.max_cost is not None:
        yield int(options.max_cost * NANO), "--max-cost"


def _rules(place: Place, journal: Journal, options: Options) -> Any:
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
        failures_left=_failures_left(place, journal, options),
        own_model="{" in str(job.request.get("model", "")),
        own_tier="{" in str(job.request.get("service_tier", "")),
        accept=frozenset(job.output.accept),
    )


def _failures_left(place: Place, journal: Journal, options: Options) -> int | None:
    """How many more rows may fail before max_failures stops the job; failed ones that run again do not count yet."""
    allowed = place.job.limits.max_failures
    if allowed is None:
        return None
    counts = journal.counts(options.limit, by_turns=place.by_turns)
    again = journal.todo(options.limit)[1]
    return allowed.most(sum(counts.values())) - (counts.get("failed", 0) + counts.get("incomplete", 0) - again)


def _finish(
    place: Place,
    journal: Journal,
    options: Options,
    number: int,
    signals: _Signals,
    stopped: BatchgenError | None,
    began: float,
) -> Report:
    """Tables, the run's end in the journal, report.json, run.log. Raises OutputError, of two the one that came first."""
    try:
        tables = place.tables(journal)
        paths = tables.write(place.folder)
        rows = journal.counts(options.limit, by_turns=place.by_turns)
        why = signals.first(stopped)
        report = Report(
            name=place.job.name,
            number=number,
            exit_code=why.exit_code if why else _exit_code(place.job, rows),
            rows=rows,
            total=sum(rows.values()),
            run=tally(journal, number),
            job=state(journal, by_turns=place.by_turns),
            models=journal.models(number),
            elapsed=time.monotonic() - began,
            simulated=place.simulate,
            stopped=str(why) if why else None,
            output=str(place.folder),
            tables=tuple(str(path) for path in paths),
            disarmed=tables.disarmed,
        )
        journal.end_run(number, report.exit_code, report.run_json())
        write_report(place.folder, report.as_json())
        append_line(place.folder / "run.log", f"run {number} ended: {report.run.calls} calls, exit {report.exit_code}")
    except OutputError as error:
        raise (stopped if isinstance(stopped, OutputError) else error) from None
    return report


def _exit_code(job: Job, rows: Mapping[str, int]) -> int:
    """0 when every row in scope succeeded, or few enough did not; else 3."""
    total, short = sum(rows.values()), sum(rows.values()) - rows.get("succeeded", 0)
    if not short:
        return 0
    allowed = job.limits.max_failures
    return 0 if allowed is not None and allowed.allows(short, total) else 3


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


class _Signals:
    """INT, TERM and HUP. Before a run has begun, the first ends it on the spot. From then on the first is noted: the
    dispatch, if there is one, drains, the tables are written, and the run ends with it; the second ends it on the spot.

    On the spot is a KeyboardInterrupt, which no `except Exception` holds up; it leaves the block as Interrupted.
    """

    def __init__(self) -> None:
        self._why: Interrupted | None = None
        self._told = False
        self._in_order = False
        self._stop: Callable[..., None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # What nohup, or a shell for a job in the background, had us ignore stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old or signal.SIG_DFL)
        if self._why is not None and (kind is KeyboardInterrupt or (kind is None and not self._told)):
            raise self._why from None

    def end_in_order(self) -> None:
        """The run begins: from now on the first signal does not keep it from ending as it should."""
        self._in_order = True

    def attend(self, stop: Callable[..., None] | None) -> None:
        """Who is told of a signal from now on, on the running loop; of one that came before, at once."""
        self._loop = asyncio.get_running_loop() if stop else None
        self._stop = stop
        if stop and self._why:
            stop(self._why)

    def first(self, stopped: BatchgenError | None) -> BatchgenError | None:
        """What ends the run: a signal that came, else what stopped the dispatch."""
        self._told = self._why is not None
        return self._why or stopped

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        again = self._why is not None
        self._why = self._why or Interrupted(number)
        if self._loop is not None and self._stop is not None:
            drain = 0.0 if again else None if number == signal.SIGINT else DRAIN
            self._loop.call_soon_threadsafe(partial(self._stop, self._why, drain=drain))
        elif again or not self._in_order:
            raise KeyboardInterrupt
