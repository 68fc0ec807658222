"""What an ended batch brought -> outcomes: its files are fetched to disk and read line by line, in any order.

A line's custom_id is the number of its request. Lines that are no results, or of requests that are not in the batch (any
more), change nothing: a collection that was broken off goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchgen.batchlines import Result, encoded, result_of
from batchgen.disk import scratch, telling
from batchgen.dispatch import Attempt, Batch, BatchLedger, Failure, Member, Outcome, Progress, Received
from batchgen.dispatch.batchserver import BatchCaller, BatchServer, Json, Refused
from batchgen.dispatch.call import audit, read
from batchgen.dispatch.retry import classify
from batchgen.dispatch.wire import MAX_PICTURE_REPLY, MAX_TEXT_REPLY, Reply
from batchgen.kinds import AT
from batchgen.pricing import Prices, in_batch

# Lines, and bytes of them, that are recorded together.
GROUP = 250
GROUP_BYTES = 16 * 1024 * 1024

# The files of a batch object.
_FILES = ("output_file_id", "error_file_id")
_ENDS = ("completed_at", "failed_at", "expired_at", "cancelled_at")


class Collector:
    """Records what batches brought. `judge` says what a failure means for its row, or (None) that it is none of the row's;
    with `capped` what may have been paid counts at its worst."""

    def __init__(
        self,
        *,
        client: BatchCaller,
        server: BatchServer,
        ledger: BatchLedger,
        prices: Prices,
        progress: Progress,
        folder: Path,
        accept: frozenset[str],
        capped: bool,
        judge: Callable[[Failure, Batch], Failure | None],
    ) -> None:
        self._client, self._server, self._ledger, self._prices = client, server, ledger, prices
        self._progress, self._folder, self._accept, self._capped = progress, folder, accept, capped
        self._judge = judge
        self._kept = False
        # The lines of a batch's file that its answers name.
        self._brought: set[int] = set()

    async def collect(self, batch: Batch) -> None:
        """Record all that an ended batch brought. Raises Refused for a file that is gone, or for fewer answers than the batch
        is said to have, and OutputError."""
        self._kept, self._brought = False, set()
        for name in _FILES:
            file = batch.seen.get(name)
            if isinstance(file, str) and file:
                await self._bring(batch, file)
        promised, brought = _promised(batch), len(self._brought)
        if brought < promised:
            # What is missing was paid for. It may come; sent again, it would be paid for twice.
            message = f"its files have {brought:,} of {promised:,}"
            raise Refused(Failure(meaning="transient", reason="invalid_response", message=message))
        if batch.status == "completed":
            await self._complete(batch)

    async def refused(self, batch: Batch, errors: Sequence[Json]) -> int:
        """Record what was found wrong with lines of a batch that failed before it began; returns with how many of them."""
        self._kept = False
        found = {line: each for each in errors if type(line := each.get("line")) is int and 0 < line <= batch.requests}
        lines, recorded = list(found), 0
        for at in range(0, len(lines), GROUP):
            for line, member in (await self._ledger.members(batch, lines[at : at + GROUP])).items():
                await self._failed(batch, member, self._meant(400, {"error": dict(found[line])}, None))
                recorded += 1
        return recorded

    async def _bring(self, batch: Batch, file: str) -> None:
        path = scratch(self._folder, "answers")
        try:
            await self._server.download(file, path)
            groups = _groups(path, MAX_PICTURE_REPLY if AT[batch.endpoint].draws else MAX_TEXT_REPLY)
            while group := await asyncio.to_thread(next, groups, None):
                self._server.go_on()
                await self._record(batch, group)
        finally:
            with telling(path):
                path.unlink(missing_ok=True)

    async def _record(self, batch: Batch, lines: Sequence[bytes]) -> None:
        results: dict[int, Result] = {}
        for line in lines:
            try:
                result = result_of(self._client.keyless(line))
            except ValueError:
                continue
            number = _number(result.custom_id)
            if number is not None and number <= batch.requests:
                results.setdefault(number, result)
        self._brought.update(line for line, result in results.items() if result.answered)
        members = await self._ledger.members(batch, results)
        # Committed together: one after the other, each would wait for the disk.
        await asyncio.gather(*(self._answer(batch, member, results[line]) for line, member in members.items()))

    async def _answer(self, batch: Batch, member: Member, result: Result) -> None:
        if result.error is not None:
            if result.answered:
                await self._failed(batch, member, self._meant(200, {"error": dict(result.error)}, None))
            return
        assert result.status is not None
        if not 200 <= result.status < 300:
            await self._failed(batch, member, self._meant(result.status, result.body, result.request_id))
            return
        reply = _reply(200, result.body, result.request_id)
        received = await read(self._ledger, self._client, member.request, reply)
        if isinstance(received, Failure):
            await self._failed(batch, member, received)
        else:
            await self._succeeded(batch, member, received, reply)

    def worded(self, error: Json) -> str:
        """What the server says is wrong, without what looks like a key."""
        return self._meant(400, {"error": dict(error)}, None).message

    def _meant(self, status: int, body: Any, request_id: str | None) -> Failure:
        reply = _reply(status, body, request_id)
        return self._client.clean(classify(reply.status, reply.body, reply.headers))

    async def _succeeded(self, batch: Batch, member: Member, received: Received, reply: Reply) -> None:
        cost = in_batch(self._prices.of_answer(member.request, received.answer))
        if cost is None and self._capped:
            cost = member.cost
        attempt = _attempt(batch, cost=cost, **audit(received, reply))
        outcome = _outcome(batch, member, attempt, received=received)
        await self._ledger.answered(member, outcome, attempt)
        ended = received.answer.ended or received.answer.finish_reason in self._accept
        self._progress.done += ended
        self._progress.incomplete += not ended
        self._progress.cost += cost or 0

    async def _failed(self, batch: Batch, member: Member, failure: Failure) -> None:
        judged = self._judge(failure, batch)
        if judged is None:
            # It stays in the batch, and is to be sent again when that is closed.
            self._kept = True
            return
        cost = member.cost if judged.unknown and self._capped else None if judged.unknown else 0
        attempt = _attempt(batch, cost=cost, **audit(judged, judged))
        await self._ledger.answered(member, _outcome(batch, member, attempt, failure=judged), attempt)
        self._progress.failed += 1

    async def _complete(self, batch: Batch) -> None:
        """A batch that completed has a line for each request; where one is missing, nobody knows what became of it."""
        message = "the batch completed, and brought nothing for this request"
        failure = Failure(meaning="transient", reason="invalid_response", message=message, unknown=True)
        while not self._kept and (left := await self._ledger.members(batch)):
            await asyncio.gather(*(self._failed(batch, member, failure) for member in left.values()))


def _groups(path: Path, most: int) -> Iterator[list[bytes]]:
    """The lines of a file, as many at a time as are recorded together; of a line beyond `most` bytes nothing."""
    with telling(path), path.open("rb") as file:
        group: list[bytes] = []
        size = 0
        while line := file.readline(most):
            if len(line) == most and not line.endswith(b"\n"):
                while (rest := file.readline(most)) and not rest.endswith(b"\n"):
                    pass
                continue
            group.append(line)
            size += len(line)
            if len(group) >= GROUP or size >= GROUP_BYTES:
                yield group
                group, size = [], 0
        if group:
            yield group


def _number(custom_id: str) -> int | None:
    """The number that a custom_id is, written as this program does; None for any other."""
    number = int(custom_id) if custom_id.isdecimal() and len(custom_id) < 10 else 0
    return number if str(number) == custom_id else None


def _promised(batch: Batch) -> int:
    """How many requests a batch that ended has answered, by what is said of it; all, where a completed one has no count."""
    counts = batch.seen.get("request_counts")
    told = counts.get("completed") if isinstance(counts, Mapping) else None
    if type(told) is not int:
        told = batch.requests if batch.status == "completed" else 0
    return min(told, batch.requests)


def _reply(status: int, body: Any, request_id: str | None) -> Reply:
    """A line's response as the online API would have sent it."""
    return Reply(status=status, headers={"x-request-id": request_id} if request_id else {}, body=encoded(body))


def ended_at(seen: Mapping[str, Any]) -> float:
    """When a batch ended, in seconds since 1970; now, where the server does not say, or says that it is to come."""
    told = [float(seen[name]) for name in _ENDS if type(seen.get(name)) is int]
    return min([*told[:1], time.time()])


def _attempt(batch: Batch, **told: Any) -> Attempt:
    elapsed = max(0.0, ended_at(batch.seen) - batch.made_at)
    return Attempt(number=1, started_at=batch.made_at, wait=0.0, elapsed=elapsed, **told)


def _outcome(
    batch: Batch,
    member: Member,
    attempt: Attempt,
    *,
    received: Received | None = None,
    failure: Failure | None = None,
) -> Outcome:
    return Outcome(
        request=member.request,
        attempts=1,
        elapsed=attempt.elapsed,
        answered_at=ended_at(batch.seen),
        answer=received.answer if received else None,
        reply=received.reply if received else b"",
        files=received.files if received else (),
        failure=failure,
        request_id=attempt.request_id,
        cost=attempt.cost,
    )
