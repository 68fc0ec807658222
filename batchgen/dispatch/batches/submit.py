"""Requests -> batches at the server: written to files, uploaded, created, each step on record before the next.

What has no room in the queue of its model, or costs more than is left while batches are open, is held: a later run sends it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from batchgen.disk import temporary_path
from batchgen.dispatch import Failure, Outcome, Progress, Thread
from batchgen.dispatch.batches.client import BatchClient, RequestRejectedError
from batchgen.dispatch.batches.input_file import BatchInputFile, body_of, tokens_of
from batchgen.dispatch.batches.records import Batch, BatchRecorder
from batchgen.dispatch.batches.registry import BatchRegistry
from batchgen.dispatch.failure_limit import FailureLimit
from batchgen.dispatch.limits.budgets import CostBudget
from batchgen.errors import AccountError, BatchgenError, LimitError, OutputError
from batchgen.job import Job
from batchgen.pricing import Prices, in_batch
from batchgen.requests import Request, RequestError

# Requests of a file that are put on record together.
PAGE = 250

# Files that are written at one time: one for each endpoint and model.
MOST_FILES = 16


class Submitter:
    """Sends requests in batches. `budgets` gives what may be spent, as it is when a submission begins; `metadata` goes with
    each batch, `folder` holds its file until it is uploaded, and `say` is told of each that was sent."""

    def __init__(
        self,
        *,
        server: BatchClient,
        recorder: BatchRecorder,
        known: BatchRegistry,
        job: Job,
        failures_left: int | None,
        prices: Prices,
        budgets: Callable[[], Sequence[CostBudget]],
        progress: Progress,
        host: str,
        folder: Path,
        metadata: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._server, self._recorder, self._known = server, recorder, known
        self._job, self._failures_left = job, failures_left
        self._prices, self._budgets, self._progress, self._host = prices, budgets, progress, host
        self._folder, self._metadata, self._say = folder, metadata, say
        self._shards: dict[tuple[str, str], BatchInputFile] = {}
        self._money: Sequence[CostBudget] = ()
        self._probed = False
        # A row that no batch takes.
        self.never_fits: LimitError | None = None

    async def submit(self, threads: AsyncIterator[Thread]) -> None:
        """Send everything that may be sent now. Raises what stops the run."""
        if why := self._exceeded():
            raise why
        self._progress.deferred, self._money = False, self._budgets()
        try:
            async for thread in threads:
                self._server.go_on()
                request = await thread.next()
                if request is not None and not await self._put(request):
                    break
            for shard in list(self._shards.values()):
                await self._send(shard)
        finally:
            for shard in self._shards.values():
                await self._drop(shard)
            self._shards.clear()
        if self._known.trouble is not None:
            raise self._known.trouble

    def _exceeded(self) -> BatchgenError | None:
        """What stops the run when too many rows have failed."""
        left = self._failures_left
        if left is not None:
            left -= self._progress.failed + self._progress.incomplete
        return FailureLimit(left, self._host).exceeded()

    async def _put(self, request: Request) -> bool:
        """Put a request into the file of its batch; returns whether more are wanted."""
        try:
            body = await asyncio.to_thread(body_of, request) if request.uploads else request.body
        except RequestError as fault:
            await self._unmade(request, fault.message)
            return True
        model = str(body.get("model") or "")
        if not self._known.has_room(model, tokens_of(request), self._going(model)):
            self._hold(request)
            # Other models have queues of their own.
            return self._job.rows_choose("model")
        shard = self._shards.get((request.endpoint, model)) or await self._begin(
            request.endpoint, model
        )
        line = shard.line(request, body)
        if why := shard.never(request, line):
            # It stays pending: in another mode it is sent.
            self._recorder.withhold(request)
            self.never_fits = self.never_fits or LimitError(
                f"{request.id}: {why}; it is sent by --mode online"
            )
            return True
        if not shard.takes(request, line):
            await self._send(shard)
            shard = await self._begin(request.endpoint, model)
            line = shard.line(request, body)
        cost = in_batch(self._prices.bound(request))
        if not await self._pay(cost):
            self._hold(request)
            return False
        shard.add(request, line, self._recorder.withhold(request), cost)
        if len(shard.held) >= PAGE:
            await self._enlist(shard)
        return True

    def _going(self, model: str) -> int:
        """Tokens of a model in files that are not uploaded."""
        return sum(shard.tokens for shard in self._shards.values() if shard.batch.model == model)

    def _hold(self, request: Request) -> None:
        self._recorder.withhold(request)
        self._progress.deferred = True

    async def _unmade(self, request: Request, message: str) -> None:
        failure = Failure(meaning="transient", reason="input", message=message)
        await self._recorder.unsent(
            Outcome(
                request=request, attempts=0, elapsed=0.0, answered_at=time.time(), failure=failure
            )
        )
        self._progress.failed += 1

    async def _pay(self, cost: int | None) -> bool:
        """Set aside what a request may cost, for as long as its batch is open; returns whether there was enough. Where there
        is not, batches that are open may still bring some of it back."""
        try:
            for budget in self._money:
                # What has no price has no cap: pass 1 saw to that.
                await budget.reserve(cost or 0)
                budget.settle(cost or 0, cost or 0)
        except LimitError as error:
            if not self._known.open and not any(shard.requests for shard in self._shards.values()):
                self._known.stop_with(error)
            return False
        return True

    async def _begin(self, endpoint: str, model: str) -> BatchInputFile:
        if len(self._shards) >= MOST_FILES:
            await self._send(max(self._shards.values(), key=lambda shard: shard.size))
        batch = await self._recorder.begin(endpoint, model)
        shard = self._shards[endpoint, model] = BatchInputFile(
            batch, temporary_path(self._folder, "batch")
        )
        return shard

    async def _enlist(self, shard: BatchInputFile) -> None:
        held, shard.held = shard.held, []
        await self._recorder.enlist(shard.batch, held)

    async def _send(self, shard: BatchInputFile) -> None:
        """Upload a file and create its batch."""
        batch = replace(shard.batch, requests=shard.requests, tokens=shard.tokens)
        if not batch.requests:
            return
        await self._enlist(shard)
        shard.finish()
        self._progress.waiting_for = f"{_requests(batch)} to be uploaded"
        try:
            if not self._probed:
                # A server without a list of its batches would not tell whether one was made.
                await self._server.probe()
                self._probed = True
            file = await self._server.upload(shard.path, batch)
        except RequestRejectedError as refused:
            raise self._refusal(refused) from None
        batch = replace(batch, file=file, status="uploaded")
        await self._recorder.note(batch)
        self._shards.pop((batch.endpoint, batch.model)).discard()
        await self._create(batch)

    async def _create(self, batch: Batch) -> None:
        try:
            told = await self._server.create(batch, self._metadata)
        except RequestRejectedError as refused:
            await self._known.forget(batch)
            raise self._refusal(refused) from None
        batch = await self._known.see(batch, told)
        self._say(f"batch {batch.id}: {_requests(batch)} sent")
        self._known.show()

    async def _drop(self, shard: BatchInputFile) -> None:
        """A file that was not uploaded."""
        # What cannot be recorded now is forgotten by the next run.
        with suppress(OutputError):
            shard.discard()
            await self._known.forget(shard.batch)

    def _refusal(self, refused: RequestRejectedError) -> AccountError:
        if refused.failure.status in (404, 405, 501):
            return AccountError(f"{self._host} takes no batches ({refused}); use mode: online")
        return AccountError(f"{self._host} refused the batch: {refused}; mend that and run again")


def _requests(batch: Batch) -> str:
    return f"{batch.requests:,} request{'s' * (batch.requests != 1)}"
