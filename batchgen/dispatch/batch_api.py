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
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchgen.disk import scratch
from batchgen.dispatch import ENDED, LOOKED_AT, Batch, BatchLedger, Failure, Outcome, Progress, Thread, counts_of
from batchgen.dispatch.batchserver import BatchCaller, BatchServer, Json, Refused
from batchgen.dispatch.collect import Collector
from batchgen.dispatch.limits import Purse
from batchgen.dispatch.online import Rules
from batchgen.dispatch.retry import account_error
from batchgen.dispatch.shards import MOST_BYTES, Shard, body_of, tokens_of
from batchgen.dispatch.watch import Tolerance
from batchgen.errors import AccountError, BatchgenError, LimitError, OutputError
from batchgen.pricing import Prices, in_batch
from batchgen.requests import Request, RequestFault

# Requests of a file that are put on record together.
PAGE = 250

# Files that are written at one time: one for each endpoint and model.
MOST_SHARDS = 16

# Seconds between two looks, at first, by how much they grow, and at the most; and after a batch was asked to end.
FIRST_LOOK = 2.0
GROWTH = 1.5
LAST_LOOK = 60.0

# A batch that the server has not yet found to be sound, or never did: it says nothing of the queue's room.
_UNPROVEN = frozenset({"made", "uploaded", "validating", "failed"})

# The error of a batch that does not fit into the queue of its model.
_FULL = "token_limit_exceeded"

# What is kept of a server's words: characters, and the counts of requests; and of its numbers, those that are such counts,
# or times before the year 10000.
LONGEST = 1000
COUNTS = ("total", "completed", "failed")
MOST = 253_402_300_800

# What is said of a batch that this program was asked to cancel, beside what the server says.
_ASKED = "asked_to_cancel"


class BatchBackend:
    """Sends requests in batches, and collects what batches brought. `metadata` goes with each batch, `folder` holds its file
    until it is uploaded, and `tell` is told what becomes of it."""

    def __init__(
        self,
        *,
        client: BatchCaller,
        ledger: BatchLedger,
        rules: Rules,
        prices: Prices,
        purses: Sequence[Purse],
        progress: Progress,
        host: str,
        folder: Path,
        metadata: Mapping[str, str],
        tell: Callable[[str], None],
    ) -> None:
        self._ledger, self._rules, self._prices, self._purses = ledger, rules, prices, purses
        self._progress, self._host, self._folder, self._metadata, self._tell = progress, host, folder, metadata, tell
        self._server = BatchServer(client, host=host, attempts=rules.attempts, max_wait=rules.max_wait)
        self._collector = Collector(
            client=client,
            server=self._server,
            ledger=ledger,
            prices=prices,
            progress=progress,
            folder=folder,
            accept=rules.accept,
            capped=bool(purses),
            judge=self._judge,
        )
        self._known: dict[int, Batch] = {}
        self._shards: dict[tuple[str, str], Shard] = {}
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # What ends the run when all that may be done is done: the account, or money that is too little.
        self._trouble: BatchgenError | None = None
        # Requests that wait for room in the queue of their model.
        self._held = 0

    @property
    def waits(self) -> bool:
        """Whether something is left that needs nothing but time: batches that have not ended, a queue that is full."""
        return bool(self._open() or self._held)

    async def settle(self) -> BatchgenError | None:
        """Look once at every batch that is not closed, and collect what has ended. Returns what stops the run. Raises
        OutputError, as all of these."""
        return await self._told(self._settle())

    async def wait(self) -> BatchgenError | None:
        """Look until one more has ended."""
        return await self._told(self._wait())

    async def run(self, threads: AsyncIterator[Thread]) -> BatchgenError | None:
        """Send everything in batches; what has no room in the queue of its model is left for later."""
        return await self._told(self._submit(threads))

    async def cancel(self) -> BatchgenError | None:
        """Ask for every batch to be cancelled, and collect what has ended. One that the server does not know is given up."""
        return await self._told(self._cancel())

    def stop(self, why: BatchgenError, *, drain: float | None = None) -> None:
        """Nothing more is begun, nothing waited for; what is being recorded has `drain` seconds (None: any) to end."""
        self._server.stop(why)
        if drain is not None and self._task is not None:
            asyncio.get_running_loop().call_later(drain, self._task.cancel)

    async def _told(self, work: Coroutine[Any, Any, None]) -> BatchgenError | None:
        if self._timer is None and self._rules.max_time is not None:
            over = LimitError(f"limits.max_time ({self._rules.max_time:g} s) is over; run again to go on")
            self._timer = asyncio.get_running_loop().call_later(self._rules.max_time, self.stop, over)
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

    def _open(self) -> list[Batch]:
        return [batch for batch in self._known.values() if batch.closed_at is None]

    # -- sending ---------------------------------------------------------------------------------------------------

    async def _submit(self, threads: AsyncIterator[Thread]) -> None:
        if why := self._exceeded():
            raise why
        self._held = 0
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
        if self._trouble is not None:
            raise self._trouble

    def _exceeded(self) -> BatchgenError | None:
        """What stops the run when too many rows have failed."""
        left = self._rules.failures_left
        if left is not None:
            left -= self._progress.failed + self._progress.incomplete
        return Tolerance(left, self._host).exceeded()

    async def _put(self, request: Request) -> bool:
        """Put a request into the file of its batch; returns whether more are wanted."""
        try:
            body = await asyncio.to_thread(body_of, request) if request.uploads else request.body
        except RequestFault as fault:
            await self._unfit(request, "input", fault.message)
            return True
        model = str(body.get("model") or "")
        if not self._has_room(model, tokens_of(request)):
            self._ledger.withhold(request)
            self._held += 1
            # Other models have queues of their own.
            return self._rules.own_model
        shard = self._shards.get((request.endpoint, model)) or await self._begin(request.endpoint, model)
        line = shard.line(request, body)
        if shard.requests and not shard.takes(request, line):
            await self._send(shard)
            shard = await self._begin(request.endpoint, model)
            line = shard.line(request, body)
        if not shard.takes(request, line):
            await self._unfit(
                request, "too_long", f"is {len(line):,} bytes in a batch; {MOST_BYTES:,} is the most of one"
            )
            return True
        cost = in_batch(self._prices.bound(request))
        try:
            await self._pay(cost)
        except LimitError as error:
            self._ledger.withhold(request)
            self._stop_with(error)
            return False
        shard.add(request, line, self._ledger.withhold(request), cost)
        if len(shard.held) >= PAGE:
            await self._enlist(shard)
        return True

    async def _unfit(self, request: Request, reason: str, message: str) -> None:
        failure = Failure(meaning="row", reason=reason, message=message)
        await self._ledger.unsent(
            Outcome(request=request, attempts=0, elapsed=0.0, answered_at=time.time(), failure=failure)
        )
        self._progress.failed += 1

    async def _pay(self, cost: int | None) -> None:
        """Set aside what a request may cost, for as long as its batch is open. Raises LimitError."""
        for purse in self._purses:
            # What has no price has no cap: pass 1 saw to that.
            await purse.reserve(cost or 0)
            purse.settle(cost or 0, cost or 0)

    async def _begin(self, endpoint: str, model: str) -> Shard:
        if len(self._shards) >= MOST_SHARDS:
            await self._send(max(self._shards.values(), key=lambda shard: shard.size))
        batch = await self._ledger.begin(endpoint, model)
        shard = self._shards[endpoint, model] = Shard(batch, scratch(self._folder, "batch"))
        return shard

    async def _enlist(self, shard: Shard) -> None:
        held, shard.held = shard.held, []
        await self._ledger.enlist(shard.batch, held)

    async def _send(self, shard: Shard) -> None:
        """Upload a file and create its batch."""
        batch = replace(shard.batch, requests=shard.requests, tokens=shard.tokens)
        if batch.requests:
            await self._enlist(shard)
            shard.finish()
            self._progress.waiting_for = f"{batch.requests:,} requests to be uploaded"
            try:
                file = await self._server.upload(shard.path, batch)
            except Refused as refused:
                raise self._refusal(refused) from None
            batch = replace(batch, file=file, status="uploaded")
            await self._ledger.note(batch)
            self._shards.pop((batch.endpoint, batch.model)).discard()
            await self._create(batch)

    async def _create(self, batch: Batch) -> None:
        try:
            told = await self._server.create(batch, self._metadata)
        except Refused as refused:
            await self._ledger.forget(batch)
            raise self._refusal(refused) from None
        batch = await self._seen(batch, told)
        self._tell(f"batch {batch.id}: {batch.requests:,} requests sent")
        self._show()

    async def _drop(self, shard: Shard) -> None:
        """A file that was not uploaded."""
        # What cannot be recorded now is forgotten by the next run.
        with suppress(OutputError):
            shard.discard()
            await self._ledger.forget(shard.batch)

    def _refusal(self, refused: Refused) -> AccountError:
        if refused.failure.status in (404, 405, 501):
            return AccountError(f"{self._host} takes no batches ({refused}); use mode: online")
        return AccountError(f"{self._host} refused the batch: {refused}; mend that and run again")

    def _has_room(self, model: str, tokens: int) -> bool:
        """Whether the queue of a model takes so many tokens more. What is known of it is what it took when it was full; what
        it has taken since lets it grow."""
        full = max((batch.number for batch in self._of(model) if batch.room is not None), default=None)
        if full is None:
            return True
        since = [each for each in self._of(model) if each.number > full and each.status not in _UNPROVEN]
        room = (self._known[full].room or 0) + sum(each.tokens for each in since) // 2
        taken = sum(each.tokens for each in self._of(model) if each.closed_at is None)
        taken += sum(shard.tokens for shard in self._shards.values() if shard.batch.model == model)
        return not taken or taken + tokens <= room

    def _of(self, model: str) -> list[Batch]:
        return [batch for batch in self._known.values() if batch.model == model]

    # -- looking ---------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        self._known = {batch.number: batch for batch in await self._ledger.batches()}
        for batch in self._open():
            found = await self._found(batch)
            if found is not None:
                await self._look(found)
        self._show()
        if self._trouble is not None:
            raise self._trouble

    async def _wait(self) -> None:
        pause, before = FIRST_LOOK, len(self._open())
        while True:
            # A queue that is full, and not of batches of this job, empties in its own time.
            await self._server.sleep(pause if before else LAST_LOOK)
            await self._settle()
            if len(self._open()) < before or not before:
                return
            pause = min(pause * GROWTH, LAST_LOOK)

    async def _found(self, batch: Batch, *, give_up: bool = False) -> Batch | None:
        """A batch that is at the server. None, and forgotten, where there is none; None where that cannot be known, which
        stops the run, or with `give_up` is as if there were none."""
        if batch.id is not None:
            return batch
        try:
            told = await self._server.find(batch) if batch.file is not None else None
        except Refused as refused:
            if not give_up:
                self._stop_with(self._server.unlisted(refused))
                return None
            told = None
        if told is not None:
            return await self._seen(batch, told)
        del self._known[batch.number]
        await self._ledger.forget(batch)
        return None

    async def _look(self, batch: Batch, *, give_up: bool = False) -> None:
        """See how a batch stands, and collect what it brought if it has ended; with `give_up` what is gone is gone."""
        try:
            told = await self._server.look(batch)
        except Refused as refused:
            if give_up:
                await self._close(replace(batch, status="gone"))
            else:
                self._stop_with(self._gone(f"does not know the batch {batch.id} ({refused})"))
            return
        batch = await self._seen(batch, told)
        if batch.status not in ENDED:
            return
        self._show()
        try:
            await self._collector.collect(batch)
        except Refused as refused:
            if not give_up:
                self._stop_with(self._gone(f"has not all answers of the batch {batch.id} ({refused})"))
                return
        if batch.status == "failed":
            batch = await self._failed(batch, _errors(told))
        await self._close(batch)
        if batch.status == "cancelled" and _ASKED not in batch.seen:
            why = f"the batch {batch.id} was cancelled at {self._host}"
            self._stop_with(AccountError(f"{why}; run again to send the rest of it"))

    async def _failed(self, batch: Batch, errors: Sequence[Json]) -> Batch:
        """Record why a batch failed: because of its rows, because the queue was full, or because of the account."""
        refused = await self._collector.refused(batch, errors)
        if any(each.get("code") == _FULL for each in errors):
            others = (each for each in self._of(batch.model) if each.closed_at is None and each.number != batch.number)
            proven = sum(each.tokens for each in others if each.status not in _UNPROVEN)
            return replace(batch, room=proven + batch.tokens // 2)
        if not refused:
            # Sent again as it is, it would fail again.
            told = self._collector.worded(errors[0]) if errors else "it does not say why"
            self._stop_with(AccountError(f"{self._host} refused the batch {batch.id}: {told}"))
        return batch

    async def _close(self, batch: Batch) -> None:
        batch = replace(batch, closed_at=time.time())
        self._known[batch.number] = batch
        await self._ledger.close(batch)
        counts = counts_of(batch)
        full = "; the queue of its model is full, what waits is sent later" * (batch.room is not None)
        self._tell(f"batch {batch.id}: {batch.status}: {counts[0]:,} of {batch.requests:,} answered{full}")

    async def _seen(self, batch: Batch, told: Json) -> Batch:
        """A batch as the server shows it, on record."""
        seen = {name: value for name in LOOKED_AT if (value := _READ[name](told.get(name))) is not None}
        if _ASKED in batch.seen:
            seen[_ASKED] = True
        now = replace(batch, id=batch.id or told["id"], status=_word(told.get("status")) or "unknown", seen=seen)
        self._known[batch.number] = now
        if now != batch:
            await self._ledger.note(now)
        return now

    def _stop_with(self, why: BatchgenError) -> None:
        """Stop when all that may be done is done. The first reason stays."""
        self._trouble = self._trouble or why

    def _gone(self, what: str) -> AccountError:
        remedy = "run again later, or with the key and project that it was sent with, or give it up: batchgen cancel"
        return AccountError(f"{self._host} {what}; {remedy}")

    def _judge(self, failure: Failure, batch: Batch) -> Failure | None:
        """What a failure means for its row; None where it means the account."""
        own = {"model": self._rules.own_model, "service_tier": self._rules.own_tier}
        if failure.meaning != "account":
            return failure
        if own.get(failure.reason):
            return replace(failure, meaning="row")
        self._stop_with(account_error(failure, self._host, batch.model))
        return None

    # -- cancelling ------------------------------------------------------------------------------------------------

    async def _cancel(self) -> None:
        self._known = {batch.number: batch for batch in await self._ledger.batches()}
        for batch in self._open():
            found = await self._found(batch, give_up=True)
            if found is not None:
                found = replace(found, seen={**found.seen, _ASKED: True})
                await self._ledger.note(found)
                # One that has ended, or is unknown, cannot be cancelled; the look that follows tells.
                with suppress(Refused):
                    await self._server.cancel(found)
                await self._look(found, give_up=True)
        if self._open():
            await self._server.sleep(FIRST_LOOK)
            for batch in self._open():
                await self._look(batch, give_up=True)
        self._show()

    def _show(self) -> None:
        """What a progress line shows of the batches that have not ended."""
        found = [batch for batch in self._open() if batch.status not in ENDED]
        done, total = sum(counts_of(batch)[0] for batch in found), sum(batch.requests for batch in found)
        self._progress.away = done
        word = "batch" if len(found) == 1 else "batches"
        self._progress.waiting_for = f"{len(found)} {word} ({done:,} of {total:,} answered)" if found else ""


def _word(value: Any) -> str | None:
    """A text that can be shown and kept; None for anything else."""
    return "".join(each if each.isprintable() else "?" for each in value[:LONGEST]) if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    """A count, or a time in seconds since 1970; None for anything else."""
    return int(value) if type(value) in (int, float) and 0 <= value < MOST else None


def _counts(value: Any) -> dict[str, int] | None:
    """The counts of requests, of which some may be missing; None for no object of them."""
    if not isinstance(value, Mapping):
        return None
    found = {name: _number(value.get(name)) for name in COUNTS}
    return {name: count for name, count in found.items() if count is not None}


# How each part of a batch object is read.
_READ: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(LOOKED_AT, _number),
    "request_counts": _counts,
    "output_file_id": _word,
    "error_file_id": _word,
}


def _errors(told: Json) -> list[Json]:
    """What the object of a batch that failed says is wrong with it."""
    errors = told.get("errors")
    data = errors.get("data") if isinstance(errors, Mapping) else None
    return [each for each in data if isinstance(each, Mapping)] if isinstance(data, list) else []
