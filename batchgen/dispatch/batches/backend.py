"""The Batch API as a backend: what a run calls to poll, send, wait and cancel.

The package's docstring has the flow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from pathlib import Path
from typing import Any

from batchgen.dispatch import Progress, Thread
from batchgen.dispatch.batches import poll
from batchgen.dispatch.batches.client import BatchClient, BatchTransport, ServerUnresponsiveError
from batchgen.dispatch.batches.collect import Collector
from batchgen.dispatch.batches.records import Batch, BatchRecorder
from batchgen.dispatch.batches.registry import BatchRegistry
from batchgen.dispatch.batches.submit import Submitter
from batchgen.dispatch.limits.spending import Spending
from batchgen.errors import BatchgenError, LimitError, OutputError
from batchgen.job import Job
from batchgen.pricing import Prices


class BatchBackend:
    """Sends requests in batches, and collects their answers.

    Every method that returns a BatchgenError returns what stopped it, or None, and raises only
    OutputError.

    transport: makes the single calls
    recorder: makes every step durable
    job: the job whose requests are sent
    failures_left: how many more rows may fail (None: any number)
    prices: price requests and answers
    spending: returns what may be spent, as it is when a submission begins
    capped: whether there is a cap on money
    progress: counts, and what the run waits for
    host: the server's name for messages
    folder: where input and result files are while they are written and read
    metadata: goes with each batch to the server
    say: shows a sentence to the user for each batch that is sent or ends
    """

    def __init__(
        self,
        *,
        transport: BatchTransport,
        recorder: BatchRecorder,
        job: Job,
        failures_left: int | None,
        prices: Prices,
        spending: Callable[[], Spending],
        capped: bool,
        progress: Progress,
        host: str,
        folder: Path,
        metadata: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._job, self._progress = job, progress
        self._server = BatchClient(
            transport,
            host=host,
            attempts=job.retry.attempts,
            max_wait=job.retry.max_wait,
            progress=progress,
        )
        self._registry = BatchRegistry(recorder, progress)
        collector = Collector(
            transport=transport,
            server=self._server,
            recorder=recorder,
            registry=self._registry,
            job=job,
            prices=prices,
            progress=progress,
            folder=folder,
            capped=capped,
        )
        self._poller = poll.Poller(
            server=self._server,
            registry=self._registry,
            collector=collector,
            give_up_after=job.retry.give_up,
            keep_files=job.batch.keep_files,
            say=say,
        )
        self._submitter = Submitter(
            server=self._server,
            recorder=recorder,
            registry=self._registry,
            collector=collector,
            job=job,
            failures_left=failures_left,
            prices=prices,
            spending=spending,
            progress=progress,
            folder=folder,
            metadata=metadata,
            say=say,
        )
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether something only needs time: batches that have not ended, or deferred requests."""
        return bool(self._registry.open or self._progress.deferred)

    @property
    def must_send_again(self) -> bool:
        """Whether batches were refused for some of their requests: the others are to be sent."""
        return self._submitter.send_again

    @property
    def never_fits_error(self) -> BatchgenError | None:
        """What ends a run that has done everything else: a request that no batch can take."""
        return self._submitter.never_fits_error

    async def settle(self) -> BatchgenError | None:
        """Poll every open batch once, and collect those that have ended."""
        return await self._until_stopped(self._poller.poll_all())

    async def wait(self) -> BatchgenError | None:
        """Poll until one more batch has ended."""
        return await self._until_stopped(self._poller.wait())

    async def run(self, threads: AsyncIterator[Thread]) -> BatchgenError | None:
        """Send in batches everything that may be sent now."""
        return await self._until_stopped(self._submitter.submit(threads))

    async def cancel(self, ids: Collection[str] = ()) -> BatchgenError | None:
        """Cancel the batches with these ids, or all, and collect those that have ended.

        A batch that the server does not know is given up.
        """
        return await self._until_stopped(self._cancel(ids))

    async def forget(self) -> BatchgenError | None:
        """Forget every open batch: the server has none of them."""
        return await self._until_stopped(self._forget())

    def stop(self, why: BatchgenError, *, drain: float | None = None) -> None:
        """Begin nothing more and end every wait; what is being recorded has `drain` seconds."""
        self._progress.stopping, self._progress.wait = True, None
        self._server.stop(why)
        if drain is not None and self._task is not None:
            asyncio.get_running_loop().call_later(drain, self._task.cancel)

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> BatchgenError | None:
        """Do `work` within limits.max_time of the first call; returns what stopped it."""
        max_time = self._job.limits.max_time
        if self._timer is None and max_time is not None:
            over = LimitError(f"limits.max_time ({max_time:g} s) is over; run again to go on")
            self._timer = asyncio.get_running_loop().call_later(max_time, self.stop, over)
        self._task = asyncio.ensure_future(work)
        try:
            await self._task
        except OutputError:
            raise
        except BatchgenError as error:
            return self._server.stop_reason or error
        except asyncio.CancelledError:
            if self._server.stop_reason is None:
                raise
        return self._server.stop_reason

    async def _cancel(self, ids: Collection[str]) -> None:
        await self._registry.load()
        unresponsive: ServerUnresponsiveError | None = None
        for batch in self._selected(ids):
            try:
                await self._cancel_one(batch)
            except ServerUnresponsiveError as error:
                # A user who names a batch wants it gone, even if it cannot be polled.
                if ids:
                    await self._poller.give_up(batch)
                else:
                    unresponsive = unresponsive or error
        if self._selected(ids) and unresponsive is None:
            await self._server.sleep(poll.FIRST_POLL)
            for batch in self._selected(ids):
                await self._poller.poll(batch, give_up=True)
        self._registry.show_progress()
        # Such an error keeps a run from sending more. This one sends nothing.
        self._registry.stop_error = None
        if unresponsive is not None:
            raise unresponsive

    async def _cancel_one(self, batch: Batch) -> None:
        existing = await self._poller.find(batch, give_up=True)
        if existing is not None:
            existing = await self._registry.record_cancel_request(existing)
            await self._poller.request_cancel(existing)
            await self._poller.poll(existing, give_up=True)

    def _selected(self, ids: Collection[str]) -> list[Batch]:
        return [batch for batch in self._registry.open if not ids or batch.id in ids]

    async def _forget(self) -> None:
        await self._registry.load()
        for batch in self._registry.open:
            await self._registry.forget(batch)
