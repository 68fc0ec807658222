"""Requests -> batches at the server, each step on record before the next.

A request is deferred to a later run if the queue of its model has no room for it, or if it may cost
more than is left while open batches reserve money.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from batchgen.disk import temporary_path
from batchgen.dispatch import Failure, Outcome, Progress, Thread, Wait
from batchgen.dispatch.batches import queue_limit
from batchgen.dispatch.batches.client import BatchClient, RequestRejectedError
from batchgen.dispatch.batches.collect import Collector
from batchgen.dispatch.batches.input_file import BatchInputFile, body_of, tokens_of
from batchgen.dispatch.batches.records import Batch, BatchRecorder
from batchgen.dispatch.batches.refused import named_lines, refusal_error
from batchgen.dispatch.batches.registry import REFUSED, BatchRegistry
from batchgen.dispatch.failure_limit import FailureLimit
from batchgen.dispatch.limits.spending import Spending, no_bound_error
from batchgen.errors import AccountError, LimitError, OutputError
from batchgen.job import Job
from batchgen.pricing import Prices
from batchgen.requests import Request, RequestError

# Members that are recorded together.
PAGE = 250

# Input files that are written at one time, one for each endpoint and model: each keeps a file open.
MOST_FILES = 16

# So many batches in a row may be refused for some of their lines, which fail. More show that the
# server refuses them all, and names a line for that.
MOST_REFUSALS = 20


class Submitter:
    """Sends requests in batches.

    server: the Batch API
    recorder: makes every step durable
    registry: the batches of the job
    collector: fails the requests for which a batch is refused
    job: whose requests are sent
    failures_left: how many more rows may fail (None: any)
    prices: bounds on what a request costs
    spending: returns what may be spent, as it is when a submission begins
    progress: counts, and what the run waits for
    folder: where an input file is until it is uploaded
    metadata: goes with each batch to the server
    say: shows a sentence to the user for each batch that is sent
    """

    def __init__(
        self,
        *,
        server: BatchClient,
        recorder: BatchRecorder,
        registry: BatchRegistry,
        collector: Collector,
        job: Job,
        failures_left: int | None,
        prices: Prices,
        spending: Callable[[], Spending],
        progress: Progress,
        folder: Path,
        metadata: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._server, self._recorder, self._registry = server, recorder, registry
        self._collector = collector
        self._job, self._failures_left = job, failures_left
        self._prices, self._read_spending, self._progress = prices, spending, progress
        self._folder, self._metadata, self._say = folder, metadata, say
        self._spending = Spending()
        self._files: dict[tuple[str, str], BatchInputFile] = {}
        self._list_checked = False
        # Batches in a row that were refused for some of their lines, and whether what is left of
        # them is to be sent again.
        self._refusals, self.send_again = 0, False
        # Set for the first request that no batch can take: it stays pending, and other modes send
        # it.
        self.never_fits_error: LimitError | None = None

    async def submit(self, threads: AsyncIterator[Thread]) -> None:
        """Send everything that may be sent now. Raises what stops the run."""
        self._check_failures()
        self.send_again = self._progress.deferred = False
        self._spending = self._read_spending()
        try:
            async for thread in threads:
                self._server.raise_if_stopped()
                request = await thread.next()
                if request is not None and not await self._put(request):
                    break
            for file in list(self._files.values()):
                await self._send(file)
        finally:
            for file in self._files.values():
                await self._drop(file)
            self._files.clear()
        if self._registry.stop_error is not None:
            raise self._registry.stop_error

    def _check_failures(self) -> None:
        """Raises LimitError if more rows have failed than may."""
        left = self._failures_left
        if left is not None:
            left -= self._progress.failed + self._progress.incomplete
        if why := FailureLimit(left, self._server.host).exceeded():
            raise why

    async def _put(self, request: Request) -> bool:
        """Put a request into an input file or defer it; returns whether to go on with the next."""
        try:
            body = await asyncio.to_thread(body_of, request) if request.uploads else request.body
        except RequestError as error:
            await self._record_unsent(request, error.message)
            return True
        model = str(body.get("model") or "")
        batches, unsent = self._registry.batches, self._unsent_tokens(model)
        if not queue_limit.has_room(batches, model, tokens_of(request), unsent):
            self._defer(request)
            # Other models have queues of their own.
            return self._job.rows_choose("model")
        file = await self._file_for(request.endpoint, model)
        line = file.line(request, body)
        if why := file.never_fits(request, line):
            self._recorder.take(request)
            self.never_fits_error = self.never_fits_error or LimitError(
                f"{request.id}: {why}; send it with --mode online"
            )
            return True
        if not file.has_room(request, line):
            await self._send(file)
            file = await self._begin(request.endpoint, model)
            line = file.line(request, body)
        try:
            cost = await self._set_aside(request)
        except LimitError as error:
            if not self._registry.open and not any(each.requests for each in self._files.values()):
                self._registry.stop_with(error)
            # Else the run goes on while batches are open: their answers may cost less than is set
            # aside for them.
            self._defer(request)
            return False
        file.add(request, line, self._recorder.take(request), cost)
        if len(file.unrecorded) >= PAGE:
            await self._record_members(file)
        return True

    def _unsent_tokens(self, model: str) -> int:
        """Tokens of a model in input files that are not uploaded."""
        return sum(file.tokens for file in self._files.values() if file.batch.model == model)

    def _defer(self, request: Request) -> None:
        self._recorder.take(request)
        self._progress.deferred = True

    async def _record_unsent(self, request: Request, message: str) -> None:
        failure = Failure(meaning="transient", reason="input", message=message)
        await self._recorder.unsent(
            Outcome(
                request=request, attempts=0, elapsed=0.0, answered_at=time.time(), failure=failure
            )
        )
        self._progress.failed += 1

    async def _set_aside(self, request: Request) -> int | None:
        """Set aside what a request may cost while its batch is open; returns that (None: unknown).

        Raises LimitError when too little is left.
        """
        bound = self._prices.bound(request, batch=True)
        if bound is not None:
            return await self._spending.spend(bound)
        if self._spending.capped:
            raise no_bound_error(self._prices, request)
        return None

    async def _file_for(self, endpoint: str, model: str) -> BatchInputFile:
        return self._files.get((endpoint, model)) or await self._begin(endpoint, model)

    async def _begin(self, endpoint: str, model: str) -> BatchInputFile:
        """Begin a batch and its input file; send the largest other file if there are too many."""
        if len(self._files) >= MOST_FILES:
            await self._send(max(self._files.values(), key=lambda file: file.size))
        batch = await self._recorder.begin(endpoint, model)
        file = BatchInputFile(batch, temporary_path(self._folder, "batch"))
        self._files[endpoint, model] = file
        return file

    async def _record_members(self, file: BatchInputFile) -> None:
        members, file.unrecorded = file.unrecorded, []
        await self._recorder.add_members(file.batch, members)

    async def _send(self, file: BatchInputFile) -> None:
        """Upload an input file and create its batch."""
        batch = replace(file.batch, requests=file.requests, tokens=file.tokens)
        if not batch.requests:
            return
        await self._record_members(file)
        file.finish()
        self._progress.wait = Wait(cause="upload", reason=f"{_count(batch)} being uploaded")
        try:
            if not self._list_checked:
                # Only the list shows whether a create of unknown outcome worked.
                await self._server.check_list()
                self._list_checked = True
            file_id = await self._server.upload(file.path, batch)
        except RequestRejectedError as rejected:
            await self._fail_lines(batch, rejected)
            self._files.pop((batch.endpoint, batch.model)).discard()
            return
        batch = replace(batch, file=file_id, status="uploaded")
        await self._recorder.update(batch)
        self._files.pop((batch.endpoint, batch.model)).discard()
        await self._create(batch)

    async def _create(self, batch: Batch) -> None:
        try:
            batch_object = await self._server.create(batch, self._metadata)
        except RequestRejectedError as rejected:
            try:
                await self._fail_lines(batch, rejected)
            except AccountError:
                await self._registry.forget(batch)
                raise
            await self._server.delete_file(str(batch.file))
            return
        self._refusals = 0
        batch = await self._registry.record_object(batch, batch_object)
        self._say(f"batch {batch.id}: {_count(batch)} sent")
        self._registry.show_progress()

    async def _fail_lines(self, batch: Batch, rejected: RequestRejectedError) -> None:
        """Fail the requests for which the server refuses their whole batch; the others go again.

        Raises AccountError when it names none, or has refused too many batches in a row.
        """
        failure, host = rejected.failure, self._server.host
        lines = named_lines(failure.message, batch.requests)
        self._refusals += 1
        if not lines or self._refusals > MOST_REFUSALS:
            raise refusal_error(host, failure.message, failure.status, "the batch") from None
        await self._collector.fail_lines(batch, lines, failure)
        await self._registry.close(replace(batch, status=REFUSED))
        self.send_again = True
        what = f"a batch of {_count(batch)}: {failure.message}"
        self._say(f"{host} refused {what}; the named rows fail, the others go again")

    async def _drop(self, file: BatchInputFile) -> None:
        """Remove an input file that was not uploaded, and its batch."""
        # If the disk is full, the next run forgets the batch.
        with suppress(OutputError):
            file.discard()
            await self._registry.forget(file.batch)


def _count(batch: Batch) -> str:
    return f"{batch.requests:,} request{'s' * (batch.requests != 1)}"
