"""What one run puts together to send: the server's address or a simulated API, a client, the limits, and the backends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from batchgen.disk import append_line
from batchgen.dispatch import Progress
from batchgen.errors import BatchgenError
from batchgen.images import PictureFolder
from batchgen.journal import Journal, Standing
from batchgen.journal.batches import set_aside
from batchgen.kinds import Usage
from batchgen.ledger import JobLedger
from batchgen.ledger.batches import JobBatches
from batchgen.place import Place
from batchgen.pricing import NANO, Prices
from batchgen.signals import Signals
from batchgen.spec import Job

if TYPE_CHECKING:
    from batchgen.dispatch.batch_api import BatchBackend
    from batchgen.dispatch.online import OnlineBackend

Watch = Callable[[Progress, Mapping[str, int]], None]

# Seconds that a batch takes at the simulated API of a run: a rehearsal is no test of patience.
SIMULATED_BATCH = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run may be told beside its job: the first `limit` rows of the prompts only, USD for this run at the most,
    the simulated API, to `wait` until its batches have ended, another root for the output, where "-" prompts come from, and
    who watches (every `every` seconds)."""

    limit: int | None = None
    max_cost: float | None = None
    simulate: bool = False
    wait: bool = False
    output: Path | None = None
    stdin: BinaryIO | None = None
    watch: Watch | None = None
    every: float = 1.0
    say: Callable[[str], None] = field(default=lambda text: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One run's sending: of the job at `place` as run `number`, `before` which its rows stood so."""

    place: Place
    journal: Journal
    pictures: PictureFolder
    options: Options
    number: int
    key: str | None
    signals: Signals
    before: Standing
    progress: Progress = field(default_factory=Progress)

    async def send(self) -> BatchgenError | None:
        """Collect what batches have brought, and send what is to be sent; returns what stopped it, or None."""
        async with self._backends() as (ledger, online, batches):
            why = await self._settled(batches)
            if why is None and self.place.job.mode == "online":
                self.signals.attend(online.stop)
                return await online.run(ledger.threads())
            # A simulated API ends with the run, and its batches with it.
            wait = self.options.wait or self.place.simulate
            while why is None:
                why = await batches.run(ledger.threads())
                if why is not None or not wait or not batches.waits:
                    break
                why = await batches.wait()
            return why

    async def cancel(self) -> BatchgenError | None:
        """Cancel the job's batches, and collect what they brought; returns what stopped it, or None."""
        async with self._backends() as (_, _, batches):
            why = await batches.cancel()
            while why is None and self.options.wait and batches.waits:
                why = await batches.wait()
            return why

    async def _settled(self, batches: BatchBackend) -> BatchgenError | None:
        """What was sent in batches before comes first; who waits, and sends online, waits for all of it."""
        # Those of another run's simulated API are gone with it.
        why = await (batches.cancel() if self.place.simulate else batches.settle())
        while why is None and self.place.job.mode == "online" and self.options.wait and batches.waits:
            why = await batches.wait()
        return why

    @asynccontextmanager
    async def _backends(self) -> AsyncIterator[tuple[JobLedger, OnlineBackend, BatchBackend]]:
        # openai costs a second to import, and plan and status need none of it.
        from batchgen.dispatch.admission import own_bucket
        from batchgen.dispatch.batch_api import BatchBackend
        from batchgen.dispatch.limits import Purse
        from batchgen.dispatch.online import OnlineBackend
        from batchgen.dispatch.shared import Shared
        from batchgen.dispatch.transport import Client, affordable
        from batchgen.journal.writer import Writer

        place, progress = self.place, self.progress
        purses = [Purse(cap, name=name) for cap, name in self._purses()]
        rules = self._rules()
        rules = replace(rules, concurrency=affordable(rules.concurrency))
        host = place.connection.host if not place.simulate else "the simulated API"
        writer = Writer(self.journal.path, self.number)
        shared = Shared(place.connection.base_url, self.key, say=self._warn)
        try:
            async with (
                self._server() as link,
                Client(link, self.key, connections=rules.concurrency, direct=place.simulate) as client,
            ):
                ledger = JobLedger(place.job, self.journal, writer, place.renderer, self.pictures, self.options.limit)
                online = OnlineBackend(
                    client=client,
                    ledger=ledger,
                    rules=rules,
                    prices=place.prices,
                    purses=purses,
                    progress=progress,
                    host=host,
                    # A simulated API is the run's own, limits and all.
                    buckets=own_bucket if place.simulate else shared.bucket,
                )
                batches = BatchBackend(
                    client=client,
                    ledger=JobBatches(ledger, self.journal, writer, self.number),
                    rules=rules,
                    prices=place.prices,
                    purses=purses,
                    progress=progress,
                    host=host,
                    folder=place.folder,
                    metadata={"job": place.job.name, "run": str(self.number)},
                    tell=self._warn,
                )
                self.signals.attend(batches.stop)
                async with self._watched():
                    with _swept():
                        yield ledger, online, batches
        finally:
            self.signals.attend(None)
            shared.close()
            await writer.close()

    def _warn(self, text: str) -> None:
        self.options.say(f"{self.place.job.name}: {text}")
        append_line(self.place.folder / "run.log", text)

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[Any]:
        """The connection to the job's server, or to a simulated API that lives as long as the run."""
        if not self.place.simulate:
            yield self.place.connection
            return
        from batchgen.simulator import Settings, Simulator

        async with Simulator(Settings(batch_speed=SIMULATED_BATCH)) as simulator:
            yield replace(self.place.connection, base_url=simulator.url, headers={})

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        if self.options.watch is None:
            yield
            return
        watch = partial(self.options.watch, self.progress, self.before.requests)

        async def look() -> None:
            # Who watches may fail (a terminal that is gone); the run goes on unwatched.
            with suppress(Exception):
                while True:
                    watch()
                    await asyncio.sleep(self.options.every)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(Exception):
                watch()

    def _purses(self) -> Iterator[tuple[int, str]]:
        limit, own = self.place.job.limits.max_cost, self.options.max_cost
        if limit is not None:
            yield int(limit * NANO) - _spent(self.journal, self.place.prices), "limits.max_cost"
        if own is not None:
            yield int(own * NANO), "--max-cost"

    def _rules(self) -> Any:
        from batchgen.dispatch.online import Rules

        job, limits, retry = self.place.job, self.place.job.limits, self.place.job.retry
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
            failures_left=_failures_left(job, self.before),
            own_model=job.rows_choose("model"),
            own_tier=job.rows_choose("service_tier"),
            accept=frozenset(job.output.accept),
        )


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


def _spent(journal: Journal, prices: Prices) -> int:
    """What all runs spent, in nano-dollars, and what their batches may still cost. What had no price when it was spent is
    counted at today's, or at its worst."""
    late = set_aside(journal)
    for call in journal.unpriced():
        usage = Usage(input_tokens=call["input_tokens"], output_tokens=call["output_tokens"])
        cost = prices.cost(call["model"] or "", usage, tier=call["service_tier"])
        late += (call["cost_bound"] or 0) if cost is None else cost
    return journal.spent() + late


def _failures_left(job: Job, before: Standing) -> int | None:
    """How many more rows may fail before max_failures stops the job; failed ones that run again do not count yet."""
    allowed = job.limits.max_failures
    if allowed is None:
        return None
    lines = before.lines
    return allowed.most(sum(lines.values())) - (lines.get("failed", 0) + lines.get("incomplete", 0) - before.again)
