"""What an ended batch brought -> outcomes: its files are fetched to disk and read line by line, in any order.

A line's custom_id is the number of its request. Lines that are no results, or of requests that are not in the batch (any
more), change nothing: a collection that was broken off goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from batchgen.batch_format import Result, encoded, parse_result
from batchgen.disk import temporary_path, translating_errors
from batchgen.dispatch import Attempt, Failure, Outcome, Progress, Received
from batchgen.dispatch.api.errors import classify
from batchgen.dispatch.api.http import MAX_PICTURE_REPLY, MAX_TEXT_REPLY, Reply
from batchgen.dispatch.api.replies import attempt_fields, interpret
from batchgen.dispatch.batches.client import BatchClient, BatchTransport, Json, RequestRejectedError
from batchgen.dispatch.batches.records import Batch, BatchRecorder, Member, MemberResult
from batchgen.kinds import AT
from batchgen.pricing import Prices, in_batch

# Lines, and bytes of them, that are recorded together.
GROUP = 250
GROUP_BYTES = 4 * 1024 * 1024

# So often the files of a batch are fetched while they have less than they should, with so many seconds between.
FETCHES = 3
BETWEEN_FETCHES = 2.0

# The files of a batch object.
_FILES = ("output_file_id", "error_file_id")
_ENDS = ("completed_at", "failed_at", "expired_at", "cancelled_at")


class Collector:
    """Records what batches brought. `judge` says what a failure means for its row, or (None) that it is none of the row's;
    with `capped` what may have been paid counts at its worst."""

    def __init__(
        self,
        *,
        transport: BatchTransport,
        server: BatchClient,
        recorder: BatchRecorder,
        prices: Prices,
        progress: Progress,
        folder: Path,
        accept: frozenset[str],
        capped: bool,
        judge: Callable[[Failure, Batch], Failure | None],
    ) -> None:
        self._transport, self._server, self._recorder, self._prices = (
            transport,
            server,
            recorder,
            prices,
        )
        self._progress, self._folder, self._accept, self._capped = progress, folder, accept, capped
        self._judge = judge
        self._kept = False
        # The lines of a batch's file that its answers name.
        self._brought: set[int] = set()

    async def collect(self, batch: Batch) -> None:
        """Record all that an ended batch brought. Raises RequestRejectedError for a file that is gone, or for fewer answers than the batch
        is said to have, and OutputError."""
        self._kept, self._brought = False, set()
        gone = await self._bring_all(batch)
        for _ in range(FETCHES - 1):
            if gone is not None and gone.failure.is_passing:
                await self._server.sleep(BETWEEN_FETCHES)
                gone = await self._bring_all(batch)
        if gone is not None:
            raise gone
        if batch.status == "completed" and not self._kept:
            # A batch that completed has a line for each request; where one is missing, nobody knows what became of it.
            await self.give_up(batch, "the batch completed, and brought nothing for this request")

    async def _bring_all(self, batch: Batch) -> RequestRejectedError | None:
        """Record what the files of a batch hold; returns what kept that from being all."""
        gone: RequestRejectedError | None = None
        for name in _FILES:
            if file := batch.seen.get(name):
                try:
                    await self._bring(batch, file)
                except RequestRejectedError as refused:
                    gone = gone or refused
        promised, brought = _promised(batch), len(self._brought)
        if gone is None and brought < promised:
            # What is missing was paid for. It may come; sent again, it would be paid for twice.
            message = f"its files have {brought:,} of {promised:,}"
            gone = RequestRejectedError(
                Failure(meaning="transient", reason="invalid_response", message=message)
            )
        return gone

    async def give_up(self, batch: Batch, why: str) -> None:
        """Nothing more will be known of what is left of a batch: it may have been executed, and is to be asked again."""
        failure = Failure(
            meaning="transient", reason="invalid_response", message=why, may_be_billed=True
        )
        while left := await self._recorder.members(batch):
            await self._end(self._failed(batch, member, failure) for member in left.values())

    async def refused(self, batch: Batch, errors: Sequence[Json]) -> int:
        """Record what was found wrong with lines of a batch that failed before it began; returns with how many of them."""
        self._kept = False
        found = {
            line: each
            for each in errors
            if type(line := each.get("line")) is int and 0 < line <= batch.requests
        }
        lines, recorded = list(found), 0
        for at in range(0, len(lines), GROUP):
            members = await self._recorder.members(batch, lines[at : at + GROUP])
            await self._end(
                self._failed(batch, member, self._meant(_complaint(found[line])))
                for line, member in members.items()
            )
            recorded += len(members)
        return recorded

    def worded(self, error: Json) -> str:
        """What the server says is wrong, without what looks like a key."""
        return self._meant(_complaint(error)).message

    async def _bring(self, batch: Batch, file: str) -> None:
        path = temporary_path(self._folder, "answers")
        most = MAX_PICTURE_REPLY if AT[batch.endpoint].draws else MAX_TEXT_REPLY
        try:
            await self._server.download(file, path)
            groups = _groups(path, batch.requests, most, self._transport.without_key)
            while (group := await asyncio.to_thread(next, groups, None)) is not None:
                self._server.go_on()
                self._brought.update(line for line, told in group.items() if told.reply is not None)
                members = await self._recorder.members(batch, group)
                await self._end(
                    [
                        await self._ending(batch, member, group[line])
                        for line, member in members.items()
                    ]
                )
        finally:
            with translating_errors(path):
                path.unlink(missing_ok=True)

    async def _ending(self, batch: Batch, member: Member, told: _Told) -> MemberResult | None:
        reply = told.reply
        if reply is None:
            return None
        if not 200 <= reply.status < 300:
            return self._failed(batch, member, self._meant(reply))
        received = await interpret(
            self._recorder, self._transport, member.request, told.body, reply
        )
        if isinstance(received, Failure):
            return self._failed(batch, member, received)
        cost = in_batch(self._prices.of_answer(member.request, received.answer))
        if cost is None and self._capped:
            cost = member.cost
        return _ended(batch, member, received, reply, cost)

    def _meant(self, reply: Reply) -> Failure:
        return self._transport.redact_failure(classify(reply.status, reply.body, reply.headers))

    def _failed(self, batch: Batch, member: Member, failure: Failure) -> MemberResult | None:
        judged = self._judge(failure, batch)
        if judged is None:
            # It stays in the batch, and is to be sent again when that is closed.
            self._kept = True
            return None
        cost = (
            member.cost
            if judged.may_be_billed and self._capped
            else None
            if judged.may_be_billed
            else 0
        )
        return _ended(batch, member, judged, judged, cost)

    async def _end(self, endings: Iterable[MemberResult | None]) -> None:
        found = [ending for ending in endings if ending is not None]
        if not found:
            return
        await self._recorder.ended(found)
        for ending in found:
            answer = ending.outcome.answer
            ended = answer is not None and (answer.ended or answer.finish_reason in self._accept)
            self._progress.done += ended
            self._progress.incomplete += answer is not None and not ended
            # What passes is tried again, by another batch.
            self._progress.failed += (
                ending.outcome.failure is not None and not ending.outcome.failure.is_passing
            )
            # What a failure may have cost is no more than a guess.
            self._progress.cost += (ending.outcome.cost or 0) if answer is not None else 0


class _Told(NamedTuple):
    """What a line says of its request: the reply that the online API would have sent, and its JSON; None where the request
    was never executed."""

    reply: Reply | None
    body: Any


def _groups(
    path: Path, requests: int, most: int, without_key: Callable[[bytes], bytes]
) -> Iterator[dict[int, _Told]]:
    """What the lines of a file say, by request, of which there are so many; as many at a time as are recorded together. A line
    beyond `most` bytes says nothing."""
    with translating_errors(path), path.open("rb") as file:
        while lines := _lines(file, most):
            group: dict[int, _Told] = {}
            for line in lines:
                with suppress(ValueError, RecursionError):
                    result = parse_result(without_key(line))
                    number = _number(result.custom_id)
                    if number is not None and number <= requests:
                        group.setdefault(number, _told(result))
            yield group


def _lines(file: IO[bytes], most: int) -> list[bytes]:
    """The next lines, none after the last; an empty one in place of one beyond `most` bytes."""
    lines: list[bytes] = []
    size = 0
    while len(lines) < GROUP and size < GROUP_BYTES and (line := file.readline(most)):
        if len(line) == most and not line.endswith(b"\n"):
            while (rest := file.readline(most)) and not rest.endswith(b"\n"):
                pass
            line = b""
        lines.append(line)
        size += len(line)
    return lines


def _number(custom_id: str) -> int | None:
    """The number that a custom_id is, written as this program does; None for any other."""
    number = int(custom_id) if custom_id.isdecimal() and len(custom_id) < 10 else 0
    return number if str(number) == custom_id else None


def _told(result: Result) -> _Told:
    """Raises RecursionError for a body that is nested too deep to be kept."""
    if result.status is not None:
        return _Told(_reply(result.status, result.body, result.request_id), result.body)
    if not result.answered:
        return _Told(None, None)
    body = {"error": result.error}
    return _Told(_reply(200, body, None), body)


def _complaint(error: Json) -> Reply:
    """What is wrong with a request, as the online API would have said it."""
    return _reply(400, {"error": dict(error)}, None)


def _reply(status: int, body: Any, request_id: str | None) -> Reply:
    """A line's response as the online API would have sent it."""
    return Reply(
        status=status,
        headers={"x-request-id": request_id} if request_id else {},
        body=encoded(body),
    )


def _promised(batch: Batch) -> int:
    """How many requests a batch that ended has answered, by what is said of it; all, where a completed one has no count."""
    told: int | None = batch.seen.get("request_counts", {}).get("completed")
    if told is None:
        told = batch.requests if batch.status == "completed" else 0
    return min(told, batch.requests)


def _ended_at(seen: Mapping[str, Any]) -> float:
    """When a batch ended, in seconds since 1970; now, where the server does not say, or says that it is to come."""
    told = [float(seen[name]) for name in _ENDS if name in seen]
    return min([*told[:1], time.time()])


def _ended(
    batch: Batch,
    member: Member,
    result: Received | Failure,
    reply: Reply | Failure,
    cost: int | None,
) -> MemberResult:
    at = _ended_at(batch.seen)
    elapsed = max(0.0, at - batch.made_at)
    attempt = Attempt(
        number=1,
        started_at=batch.made_at,
        wait=0.0,
        elapsed=elapsed,
        cost=cost,
        batch=batch.number,
        **attempt_fields(result, reply),
    )
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
    return MemberResult(member=member, outcome=outcome, attempt=attempt)
