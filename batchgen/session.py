"""What one run puts together to send: the server's address or a simulated API, a client, the limits, and the backends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from batchgen.disk import append_line
from batchgen.dispatch import Progress
from batchgen.errors import BatchgenError
from batchgen.images import PictureFolder
from batchgen.job import Job
from batchgen.journal import Journal, RowCounts
from batchgen.journal.batches import committed, set_aside
from batchgen.pricing import NANO, Prices, in_batch
from batchgen.recorder.batches import JournalBatchRecorder
from batchgen.recorder.recorder import JournalRecorder
from batchgen.replies import Usage
from batchgen.signals import Signals
from batchgen.workspace import Workspace

if TYPE_CHECKING:
    from batchgen.dispatch.api.client import Client
    from batchgen.dispatch.batches.backend import BatchBackend
    from batchgen.dispatch.limits.budgets import CostBudget

ProgressCallback = Callable[[Progress, Mapping[str, int]], None]

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
    watch: ProgressCallback | None = None
    every: float = 1.0
    say: Callable[[str], None] = field(default=lambda text: None)


@dataclass(frozen=True, kw_only=True)
class Session:
    """One run's sending: of the job at `place` as run `number`, `before` which its rows stood so."""

    place: Workspace
    journal: Journal
    pictures: PictureFolder
    options: Options
    number: int
    key: str | None
    signals: Signals
    before: RowCounts
    progress: Progress = field(default_factory=Progress)

    async def send(self) -> BatchgenError | None:
        """Collect what batches have brought, and send what is to be sent; returns what stopped it, or None."""
        from batchgen.dispatch.batches.client import ServerUnresponsiveError

        async with self._backends() as (ledger, client, batches):
            why = await self._settled(batches)
            if why is None and self.place.job.mode == "online":
                return await self._send_online(client, ledger)
            # A simulated API ends with the run, and its batches with it.
            wait = self.options.wait or self.place.simulate
            while why is None:
                why = await batches.run(ledger.threads())
                if isinstance(why, ServerUnresponsiveError) and wait and batches.is_waiting:
                    # What could not be sent now is sent when a batch has ended.
                    why = None
                if why is not None or not wait or not batches.is_waiting:
                    break
                why = await batches.wait()
            return why or (None if batches.is_waiting else batches.never_fits)

    async def cancel(self, ids: Collection[str] = ()) -> BatchgenError | None:
        """Cancel batches of the job, those of these `ids` or all, and collect what they brought; returns what stopped it, or
        None."""
        async with self._backends() as (_, _, batches):
            # Those of another run's simulated API are gone with it.
            why = await (batches.forget() if self.place.simulate else batches.cancel(ids))
            while why is None and self.options.wait and batches.is_waiting:
                why = await batches.wait()
            return why

    async def _settled(self, batches: BatchBackend) -> BatchgenError | None:
        """What was sent in batches before comes first; who waits, and sends online, waits for all of it."""
        # Those of another run's simulated API are gone with it.
        why = await (batches.forget() if self.place.simulate else batches.settle())
        while (
            why is None
            and self.place.job.mode == "online"
            and self.options.wait
            and batches.is_waiting
        ):
            why = await batches.wait()
        return why

    @asynccontextmanager
    async def _backends(self) -> AsyncIterator[tuple[JournalRecorder, Client, BatchBackend]]:
        # openai costs a second to import, and plan and status need none of it.
        from batchgen.dispatch.api.client import Client
        from batchgen.dispatch.batches.backend import BatchBackend
        from batchgen.journal.writer import Writer

        writer = Writer(self.journal.path, self.number)
        job, place = self.place.job, self.place
        try:
            async with (
                self._server() as link,
                Client(
                    link, self.key, connections=self._concurrency, direct=place.simulate
                ) as client,
            ):
                ledger = JournalRecorder(
                    job, self.journal, writer, place.renderer, self.pictures, self.options.limit
                )
                batches = BatchBackend(
                    transport=client,
                    recorder=JournalBatchRecorder(ledger, self.journal, writer, self.number),
                    job=job,
                    failures_left=_failures_left(job, self.before),
                    prices=place.prices,
                    budgets=self._purses,
                    capped=self._capped,
                    progress=self.progress,
                    host=self._host,
                    folder=place.folder,
                    metadata={"job": job.name, "run": str(self.number)},
                    say=self._warn,
                )
                self.signals.set_stop(batches.stop)
                async with self._watched():
                    with _swept():
                        yield ledger, client, batches
        finally:
            self.signals.set_stop(None)
            await writer.close()

    async def _send_online(self, client: Client, ledger: JournalRecorder) -> BatchgenError | None:
        from batchgen.dispatch.limits.admission import own_bucket
        from batchgen.dispatch.limits.shared import Shared
        from batchgen.dispatch.online.backend import OnlineBackend

        shared = Shared(self.place.connection.base_url, self.key, say=self._warn)
        online = OnlineBackend(
            client=client,
            ledger=ledger,
            job=self.place.job,
            concurrency=self._concurrency,
            failures_left=_failures_left(self.place.job, self.before),
            prices=self.place.prices,
            purses=self._purses(),
            progress=self.progress,
            host=self._host,
            # A simulated API is the run's own, limits and all.
            buckets=own_bucket if self.place.simulate else shared.bucket,
        )
        self.signals.set_stop(online.stop)
        try:
            return await online.run(ledger.threads())
        finally:
            shared.close()

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

    @property
    def _host(self) -> str:
        return self.place.connection.host if not self.place.simulate else "the simulated API"

    @property
    def _capped(self) -> bool:
        return self.place.job.limits.max_cost is not None or self.options.max_cost is not None

    def _purses(self) -> list[CostBudget]:
        """What may be spent from now on."""
        from batchgen.dispatch.limits.budgets import CostBudget

        limit, own = self.place.job.limits.max_cost, self.options.max_cost
        purses = []
        if limit is not None:
            left = int(limit * NANO) - _spent(self.journal, self.place.prices)
            purses.append(CostBudget(left, name="limits.max_cost"))
        if own is not None:
            left = int(own * NANO) - committed(self.journal, self.number)
            purses.append(CostBudget(left, name="--max-cost"))
        return purses

    @cached_property
    def _concurrency(self) -> int:
        """The workers that the job asks for, as far as the file-descriptor limit allows."""
        from batchgen.dispatch.api.client import affordable

        return affordable(self.place.job.limits.concurrency)


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
        cost = (call["cost_bound"] or 0) if cost is None else cost
        late += cost if call["batch"] is None else in_batch(cost)
    return journal.spent() + late


def _failures_left(job: Job, before: RowCounts) -> int | None:
    """How many more rows may fail before max_failures stops the job; failed ones that run again do not count yet."""
    allowed = job.limits.max_failures
    if allowed is None:
        return None
    lines = before.lines
    return allowed.most(sum(lines.values())) - (
        lines.get("failed", 0) + lines.get("incomplete", 0) - before.again
    )
