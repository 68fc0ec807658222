"""The Batch API: requests go out in files, and what became of them is fetched later, by this run or another.

```text
begin     the batch is on record, with its tag; its requests are in it, page by page, as its file is written
upload    its file is at the server, and the file's id on record
create    the batch is at the server, and its id on record     -> the run may end here, and another goes on
look      validating, in_progress, finalizing, whatever else: it is looked at again
collect   completed, failed, expired, cancelled: what it brought is on record, line by line
close     what it did not bring is to be sent again; not while its files have less than the server says was answered
```

Until `create` nothing was sent that costs. A run that dies between `upload` and the end of `create` leaves a batch that is
looked for by its tag: it is adopted, or there is none, and its requests are to be sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchgen.dispatch import Failure, Progress, Thread
from batchgen.dispatch.api.errors import account_error
from batchgen.dispatch.batches.client import (
    BatchClient,
    BatchTransport,
    Json,
    RequestRejectedError,
    ServerUnresponsiveError,
)
from batchgen.dispatch.batches.collect import Collector
from batchgen.dispatch.batches.records import (
    CANCEL_REQUESTED,
    ENDED,
    Batch,
    BatchRecorder,
    counts_of,
)
from batchgen.dispatch.batches.registry import GIVEN_UP, BatchRegistry, errors_of
from batchgen.dispatch.batches.submit import Submitter
from batchgen.dispatch.limits.budgets import CostBudget
from batchgen.errors import AccountError, BatchgenError, LimitError, OutputError
from batchgen.job import Job
from batchgen.pricing import Prices

# Seconds between two looks, at first, by how much they grow, and at the most; and after a batch was asked to end.
FIRST_POLL = 2.0
GROWTH = 1.5
LONGEST_POLL = 60.0

# So often in a row what found a queue full is sent again at once, smaller; then the queue is left alone for so many seconds,
# twice as long each time.
FULL_AT_ONCE = 3
FULL_AT_FIRST = 60.0
FULL_AT_LAST = 1800.0


class BatchBackend:
    """Sends requests in batches, and collects what batches brought. `budgets` gives what may be spent, as it is when a
    submission begins, and `capped` says whether there are any; `metadata` goes with each batch, `folder` holds its file until
    it is uploaded, and `say` is told what becomes of it."""

    def __init__(
        self,
        *,
        transport: BatchTransport,
        recorder: BatchRecorder,
        job: Job,
        failures_left: int | None,
        prices: Prices,
        budgets: Callable[[], Sequence[CostBudget]],
        capped: bool,
        progress: Progress,
        host: str,
        folder: Path,
        metadata: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._job, self._progress, self._host, self._say = job, progress, host, say
        self._server = BatchClient(
            transport, host=host, attempts=job.retry.attempts, max_wait=job.retry.max_wait
        )
        self._known = BatchRegistry(recorder, progress)
        self._collector = Collector(
            transport=transport,
            server=self._server,
            recorder=recorder,
            prices=prices,
            progress=progress,
            folder=folder,
            accept=frozenset(job.output.accept),
            capped=capped,
            judge=self._judge,
        )
        self._submitter = Submitter(
            server=self._server,
            recorder=recorder,
            known=self._known,
            job=job,
            failures_left=failures_left,
            prices=prices,
            budgets=budgets,
            progress=progress,
            host=host,
            folder=folder,
            metadata=metadata,
            say=say,
        )
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # How often in a row a look has found that a queue was full, and whether this one has.
        self._fulls = 0
        self._is_full = False

    @property
    def is_waiting(self) -> bool:
        """Whether something is left that needs nothing but time: batches that have not ended, requests that are held."""
        return bool(self._known.open or self._progress.deferred)

    @property
    def never_fits(self) -> BatchgenError | None:
        """What ends a run that has done all the rest: a row that no batch takes."""
        return self._submitter.never_fits

    async def settle(self) -> BatchgenError | None:
        """Look once at every batch that is not closed, and collect what has ended. Returns what stops the run. Raises
        OutputError, as all of these."""
        return await self._told(self._settle())

    async def wait(self) -> BatchgenError | None:
        """Look until one more has ended."""
        return await self._told(self._wait())

    async def run(self, threads: AsyncIterator[Thread]) -> BatchgenError | None:
        """Send everything that may be sent now in batches."""
        return await self._told(self._submitter.submit(threads))

    async def cancel(self, ids: Collection[str] = ()) -> BatchgenError | None:
        """Ask for batches to be cancelled, those of these `ids` or all, and collect what has ended. One that the server does
        not know is given up."""
        return await self._told(self._cancel(ids))

    async def forget(self) -> BatchgenError | None:
        """Forget every batch that is not closed: there is none at the server."""
        return await self._told(self._forget())

    def stop(self, why: BatchgenError, *, drain: float | None = None) -> None:
        """Nothing more is begun, nothing waited for; what is being recorded has `drain` seconds (None: any) to end."""
        self._server.stop(why)
        if drain is not None and self._task is not None:
            asyncio.get_running_loop().call_later(drain, self._task.cancel)

    async def _told(self, work: Coroutine[Any, Any, None]) -> BatchgenError | None:
        if self._timer is None and self._job.limits.max_time is not None:
            over = LimitError(
                f"limits.max_time ({self._job.limits.max_time:g} s) is over; run again to go on"
            )
            self._timer = asyncio.get_running_loop().call_later(
                self._job.limits.max_time, self.stop, over
            )
        self._task = asyncio.ensure_future(work)
        try:
            await self._task
        except OutputError:
            raise
        except BatchgenError as error:
            return self._server.why or error
        except asyncio.CancelledError:
            if self._server.why is None:
                raise
        return self._server.why

    # -- looking ---------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        await self._known.load()
        self._is_full = False
        silent: ServerUnresponsiveError | None = None
        for batch in self._known.open:
            # One that cannot be asked for keeps no other from being collected.
            try:
                found = await self._found(batch)
                if found is not None:
                    await self._look(found)
            except ServerUnresponsiveError as why:
                silent = silent or why
        self._fulls += self._is_full
        self._known.show()
        if why_not := self._known.trouble or silent:
            raise why_not

    async def _wait(self) -> None:
        pause, before, heard = FIRST_POLL, len(self._known.open), time.monotonic()
        while before:
            await self._server.sleep(pause)
            try:
                await self._settle()
                heard = time.monotonic()
            except ServerUnresponsiveError:
                # Whoever waits for a day does not mind an hour without a network, or a server that is busy.
                if time.monotonic() - heard > self._job.retry.give_up:
                    raise
            if len(self._known.open) < before:
                break
            pause = min(pause * GROWTH, LONGEST_POLL)
        # What was too large for a queue is cut smaller at once. One that batches of others fill empties in its own time.
        again = self._fulls - FULL_AT_ONCE
        if again > 0 or not before:
            await self._server.sleep(
                min(FULL_AT_FIRST * 2 ** min(max(0, again - 1), 10), FULL_AT_LAST)
            )

    async def _found(self, batch: Batch, *, give_up: bool = False) -> Batch | None:
        """A batch that is at the server. None, and forgotten, where there is none; None where that cannot be known, which
        stops the run, or with `give_up` gives the batch up."""
        if batch.id is not None:
            return batch
        told: Json | None = None
        if batch.file is not None:
            try:
                told = await self._server.find(batch)
                if told is None:
                    # Another key, or project, has files and batches of its own.
                    await self._server.has_file(batch)
            except RequestRejectedError as refused:
                if give_up:
                    await self._give_up(batch)
                else:
                    self._known.stop_with(self._server.unlisted(refused))
                return None
        if told is not None:
            return await self._known.see(batch, told)
        await self._known.forget(batch)
        return None

    async def _look(self, batch: Batch, *, give_up: bool = False) -> None:
        """See how a batch stands, and collect what it brought if it has ended; with `give_up` what is gone is gone, and may
        have been paid for."""
        try:
            told = await self._server.look(batch)
        except RequestRejectedError as refused:
            if give_up:
                await self._give_up(batch)
            else:
                self._known.stop_with(self._gone(f"does not know the batch {batch.id} ({refused})"))
            return
        batch = await self._known.see(batch, told)
        if CANCEL_REQUESTED in batch.seen and batch.status not in (*ENDED, "cancelling"):
            # Asked before, and not heard.
            await self._ask_to_end(batch)
        if batch.status not in ENDED:
            return
        self._known.show()
        try:
            await self._collector.collect(batch)
        except RequestRejectedError as refused:
            if give_up:
                await self._give_up(batch)
            else:
                self._known.stop_with(
                    self._gone(f"has not all answers of the batch {batch.id} ({refused})")
                )
            return
        if batch.status == "failed":
            batch = await self._failed(batch, errors_of(told))
        await self._known.close(batch)
        self._judge_end(batch)

    async def _give_up(self, batch: Batch) -> None:
        await self._collector.give_up(batch, "the batch was given up, and may have been executed")
        await self._known.close(replace(batch, status=GIVEN_UP))
        self._say(f"batch {batch.id or batch.tag}: given up")

    async def _failed(self, batch: Batch, errors: Sequence[Json]) -> Batch:
        """Record why a batch failed: because of its rows, because the queue was full, or because of the account."""
        refused = await self._collector.refused(batch, errors)
        full = self._known.without_room(batch, errors)
        if full is not None:
            self._is_full = True
            if batch.requests == 1 and batch.tokens > (full.room or 0):
                told = (
                    f"the queue of {batch.model} at {self._host} has no room for even one request"
                )
                self._known.stop_with(
                    LimitError(f"{told}; run again later, or send it by --mode online")
                )
            return full
        if not refused:
            # Sent again as it is, it would fail again.
            told = self._collector.worded(errors[0]) if errors else "it does not say why"
            self._known.stop_with(
                AccountError(f"{self._host} refused the batch {batch.id}: {told}")
            )
        return batch

    def _judge_end(self, batch: Batch) -> None:
        """Say how a batch ended, and stop the run where what it did not bring should not go out again unasked."""
        answered, _ = counts_of(batch)
        full = "; the queue of its model is full, what is left is sent later" * (
            batch.room is not None
        )
        self._say(
            f"batch {batch.id}: {batch.status}: {answered:,} of {batch.requests:,} answered{full}"
        )
        if answered:
            self._fulls = 0
        if batch.status == "cancelled" and CANCEL_REQUESTED not in batch.seen:
            told = f"the batch {batch.id} was cancelled at {self._host}; run again to send the rest of it"
            self._known.stop_with(AccountError(told))
        elif batch.status == "expired" and not answered:
            told = f"the batch {batch.id} expired, and nothing of it was answered; run again to send it once more"
            self._known.stop_with(AccountError(told))

    def _gone(self, what: str) -> AccountError:
        remedy = "run again later, or with the key and project that it was sent with, or give it up: batchgen cancel"
        return AccountError(f"{self._host} {what}; {remedy}")

    def _judge(self, failure: Failure, batch: Batch) -> Failure | None:
        """What a failure means for its row; None where it means the account."""
        if failure.meaning != "account":
            return failure
        if failure.reason in ("model", "service_tier") and self._job.rows_choose(failure.reason):
            return replace(failure, meaning="row")
        self._known.stop_with(account_error(failure, self._host, batch.model))
        return None

    # -- cancelling ------------------------------------------------------------------------------------------------

    async def _cancel(self, ids: Collection[str]) -> None:
        await self._known.load()
        silent: ServerUnresponsiveError | None = None
        for batch in self._chosen(ids):
            try:
                await self._end(batch)
            except ServerUnresponsiveError as why:
                # Who names a batch that cannot be asked for wants to be rid of it.
                if ids:
                    await self._give_up(batch)
                silent = silent or (why if not ids else None)
        if self._chosen(ids) and silent is None:
            await self._server.sleep(FIRST_POLL)
            for batch in self._chosen(ids):
                await self._look(batch, give_up=True)
        self._known.show()
        # Nothing is sent here that what was found could keep from being sent.
        self._known.trouble = None
        if silent is not None:
            raise silent

    async def _end(self, batch: Batch) -> None:
        found = await self._found(batch, give_up=True)
        if found is not None:
            found = await self._known.ask(found)
            await self._ask_to_end(found)
            await self._look(found, give_up=True)

    async def _ask_to_end(self, batch: Batch) -> None:
        # One that has ended, or is unknown, cannot be cancelled; the look that follows tells.
        with suppress(RequestRejectedError):
            await self._server.cancel(batch)

    def _chosen(self, ids: Collection[str]) -> list[Batch]:
        return [batch for batch in self._known.open if not ids or batch.id in ids]

    async def _forget(self) -> None:
        await self._known.load()
        for batch in self._known.open:
            await self._known.forget(batch)
