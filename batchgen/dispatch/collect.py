"""What an ended batch brought -> outcomes: its files are fetched to disk and read line by line, in any order.

A line's custom_id is the number of its request. Lines that are no results, or of requests that are not in the batch (any
more), change nothing: a collection that was broken off goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from batchgen.batchlines import Result, result_of
from batchgen.disk import scratch, telling
from batchgen.dispatch import Attempt, Batch, BatchLedger, Ending, Failure, Member, Outcome, Progress, Received
from batchgen.dispatch.batchserver import BatchCaller, BatchServer, Json
from batchgen.dispatch.call import audit, understood
from batchgen.dispatch.retry import classify
from batchgen.dispatch.wire import MAX_PICTURE_REPLY, Reply
from batchgen.pricing import Prices, in_batch

# Lines, and bytes of them, that are recorded together.
GROUP = 250
GROUP_BYTES = 4 * 1024 * 1024

# What the error file says of requests that were never executed.
UNANSWERED = frozenset({"batch_expired", "batch_cancelled"})

# The files of a batch object.
_FILES = ("output_file_id", "error_file_id")
_ENDS = ("completed_at", "failed_at", "expired_at", "cancelled_at")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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

    async def collect(self, batch: Batch) -> None:
        """Record all that an ended batch brought. Raises Refused for a file that is gone, OutputError."""
        self._kept = False
        for name in _FILES:
            file = batch.seen.get(name)
            if isinstance(file, str) and file:
                await self._bring(batch, file)
        if batch.status == "completed":
            await self._complete(batch)

    async def refused(self, batch: Batch, errors: Sequence[Json]) -> None:
        """Record what was found wrong with lines of a batch that failed before it began."""
        self._kept = False
        found = {each["line"]: each for each in errors}
        lines = list(found)
        for at in range(0, len(lines), GROUP):
            members = await self._ledger.members(batch, lines[at : at + GROUP])
            await self._end(
                self._failed(batch, member, self._meant(_complaint(found[line]))) for line, member in members.items()
            )

    async def _bring(self, batch: Batch, file: str) -> None:
        path = scratch(self._folder, "answers")
        try:
            await self._server.download(file, path)
            groups = _groups(path, self._client.keyless)
            while (group := await asyncio.to_thread(next, groups, None)) is not None:
                self._server.go_on()
                members = await self._ledger.members(batch, group)
                await self._end([await self._ending(batch, member, group[line]) for line, member in members.items()])
        finally:
            with telling(path):
                path.unlink(missing_ok=True)

    async def _ending(self, batch: Batch, member: Member, told: _Told) -> Ending | None:
        reply = told.reply
        if reply is None:
            return None
        if not 200 <= reply.status < 300:
            return self._failed(batch, member, self._meant(reply))
        received = await understood(self._ledger, self._client, member.request, told.body, reply)
        if isinstance(received, Failure):
            return self._failed(batch, member, received)
        cost = in_batch(self._prices.of_answer(member.request, received.answer))
        if cost is None and self._capped:
            cost = member.cost
        return _ending(batch, member, received, reply, cost)

    def worded(self, error: Json) -> str:
        """What the server says is wrong, without what looks like a key."""
        return self._meant(_complaint(error)).message

    def _meant(self, reply: Reply) -> Failure:
        return self._client.clean(classify(reply.status, reply.body, reply.headers))

    def _failed(self, batch: Batch, member: Member, failure: Failure) -> Ending | None:
        judged = self._judge(failure, batch)
        if judged is None:
            # It stays in the batch, and is to be sent again when that is closed.
            self._kept = True
            return None
        cost = member.cost if judged.unknown and self._capped else None if judged.unknown else 0
        return _ending(batch, member, judged, judged, cost)

    async def _end(self, endings: Iterable[Ending | None]) -> None:
        found = [ending for ending in endings if ending is not None]
        if not found:
            return
        await self._ledger.ended(found)
        for ending in found:
            answer = ending.outcome.answer
            ended = answer is not None and (answer.ended or answer.finish_reason in self._accept)
            self._progress.done += ended
            self._progress.incomplete += answer is not None and not ended
            self._progress.failed += answer is None
            # What a failure may have cost is no more than a guess.
            self._progress.cost += (ending.outcome.cost or 0) if answer is not None else 0

    async def _complete(self, batch: Batch) -> None:
        """A batch that completed has a line for each request; where one is missing, nobody knows what became of it."""
        message = "the batch completed, and brought nothing for this request"
        failure = Failure(meaning="transient", reason="invalid_response", message=message, unknown=True)
        while not self._kept and (left := await self._ledger.members(batch)):
            await self._end(self._failed(batch, member, failure) for member in left.values())


class _Told(NamedTuple):
    """What a line says of its request: the reply that the online API would have sent, and its JSON; None where the request
    was never executed."""

    reply: Reply | None
    body: Any


def _groups(path: Path, keyless: Callable[[bytes], bytes]) -> Iterator[dict[int, _Told]]:
    """What the lines of a file say, by request, as many at a time as are recorded together."""
    with telling(path), path.open("rb") as file:
        while (group := _group(file, keyless)) is not None:
            yield group


def _group(file: IO[bytes], keyless: Callable[[bytes], bytes]) -> dict[int, _Told] | None:
    """What the next lines say, or None after the last. A line beyond the largest reply is read in parts, which say nothing."""
    group: dict[int, _Told] = {}
    lines = size = 0
    while lines < GROUP and size < GROUP_BYTES and (line := file.readline(MAX_PICTURE_REPLY)):
        lines += 1
        size += len(line)
        try:
            result = result_of(keyless(line))
            if result.custom_id.isdecimal() and len(result.custom_id) < 10:
                group.setdefault(int(result.custom_id), _told(result))
        except (ValueError, RecursionError):
            continue
    return group if lines else None


def _told(result: Result) -> _Told:
    """Raises RecursionError for a body that is nested too deep to be kept."""
    if result.status is not None:
        return _Told(_reply(result.status, result.body, result.request_id), result.body)
    error = result.error or {}
    if error.get("code") in UNANSWERED:
        return _Told(None, None)
    body = {"error": error}
    return _Told(_reply(200, body, None), body)


def _complaint(error: Json) -> Reply:
    """What is wrong with a request, as the online API would have said it."""
    return _reply(400, {"error": dict(error)}, None)


def _reply(status: int, body: Any, request_id: str | None) -> Reply:
    """A line's response as the online API would have sent it."""
    headers = {"x-request-id": request_id} if request_id else {}
    text = _encode(body)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair: JSON's ASCII can say it, UTF-8 cannot.
        data = json.dumps(body).encode()
    return Reply(status=status, headers=headers, body=data)


def ended_at(seen: Mapping[str, Any]) -> float:
    """When a batch ended, in seconds since 1970; now, where the server does not say."""
    told = [seen[name] for name in _ENDS if type(seen.get(name)) in (int, float)]
    return float(told[0]) if told else time.time()


def _ending(
    batch: Batch, member: Member, result: Received | Failure, reply: Reply | Failure, cost: int | None
) -> Ending:
    at = ended_at(batch.seen)
    elapsed = max(0.0, at - batch.made_at)
    attempt = Attempt(number=1, started_at=batch.made_at, wait=0.0, elapsed=elapsed, cost=cost, **audit(result, reply))
    received = result if isinstance(result, Received) else None
    outcome = Outcome(
        request=member.request,
        attempts=1,
        elapsed=elapsed,
        answered_at=at,
        answer=received.answer if received else None,
        reply=received.reply if received else b"",
        files=received.files if received else (),
        failure=result if isinstance(result, Failure) else None,
        request_id=attempt.request_id,
        cost=cost,
    )
    return Ending(member=member, outcome=outcome, attempt=attempt)
