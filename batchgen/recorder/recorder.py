"""What dispatch needs of the rest: threads read from the journal, replies read and stored, outcomes committed.

A reply becomes an answer, its pictures become files, whole, and then its outcome is committed: in that order.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from batchgen.dispatch import LARGE_REPLY, Attempt, Failure, Outcome, Received, Thread
from batchgen.images import PictureFolder, file_stem, stored
from batchgen.job import Job
from batchgen.journal import (
    Change,
    Journal,
    Row,
    Writer,
    outcome_of,
    record_attempt,
    record_outcome,
    reread,
    reserve_cost,
    thread_heads,
    together,
    turns_of,
    withdraw_failure,
)
from batchgen.journal.records import encodable
from batchgen.kinds import AT
from batchgen.replies import UnreadableReplyError, reply_message, transcript_of
from batchgen.requests import Renderer, Request, RequestError, own_messages, with_history

History = Sequence[Mapping[str, Any]]


class JournalRecorder:
    """The ledger of one run of one job. `scope` limits it to the prompts' first rows (None: all)."""

    def __init__(
        self,
        job: Job,
        journal: Journal,
        writer: Writer,
        renderer: Renderer,
        pictures: PictureFolder,
        scope: int | None,
        run: int,
    ) -> None:
        self._journal, self._writer, self._renderer = journal, writer, renderer
        self._job, self._pictures, self._scope = job, pictures, scope
        self._digests: dict[tuple[str, bytes], bytes] = {}
        self._run = run
        # What has money reserved in the journal.
        self._reserved: set[tuple[str, bytes]] = set()

    async def threads(self) -> AsyncIterator[Thread]:
        """Everything that is to be sent, in the prompts file's order, a page at a time."""
        page = await asyncio.to_thread(self._page, 0)
        while page:
            # The next page is read while this one is sent.
            following = asyncio.create_task(asyncio.to_thread(self._page, page[-1].row.seq))
            try:
                for head in page:
                    yield (
                        _Single(self, head) if head.row.turn == 0 else _Conversation(self, head.row)
                    )
                page = await following
            finally:
                following.cancel()

    def _page(self, after: int) -> list[_Head]:
        """The next page of threads, after the row `after`. Requests are made here, many at a time, unless they are as large
        as the pictures in them."""
        rows = thread_heads(self._journal, after, self._scope)
        return [
            _Head(row, None if row.turn or self._renderer.reads_files else self._made(row))
            for row in rows
        ]

    def _made(self, row: Row, previous: bytes = b"") -> Request | RequestError:
        """The request of a row, after the turn whose key is `previous`; or why it cannot be made any more."""
        try:
            request = rendered(self._job, self._renderer, row, previous)
        except RequestError as fault:
            return fault
        if request.fingerprint != row.fingerprint:
            return RequestError(
                ("request",), "a file that it is made of has changed since the run began; run again"
            )
        return request

    async def turns(self, head: Row) -> list[Row]:
        """The turns of a conversation that are in scope, in order, as they stand now."""
        rows = await asyncio.to_thread(turns_of, self._journal, head)
        return [row for row in rows if self._scope is None or row.n <= self._scope]

    async def now(self, row: Row) -> Row:
        """A row as it stands now."""
        return await asyncio.to_thread(reread, self._journal, row)

    async def request(
        self, row: Row, history: History = (), previous: bytes = b""
    ) -> Request | None:
        """The request of a row, after the conversation so far and the turn whose key is `previous`; None when it cannot
        be made any more."""
        make = partial(self._made, row, previous)
        made = await asyncio.to_thread(make) if self._renderer.reads_files else make()
        request = await self.checked(row, made)
        return with_history(request, history) if request and history else request

    async def checked(self, row: Row, made: Request | RequestError) -> Request | None:
        """A row's request on its way to be sent; None, when that is recorded, for one that could not be made."""
        self._digests[row.outcome_id, row.fingerprint] = row.columns_digest
        if isinstance(made, RequestError):
            await self._unmade(row, str(made))
            return None
        return made

    def said(self, row: Row, previous: bytes, *, first: bool) -> History:
        """What an answered turn adds to its conversation: its own messages, then the reply to it."""
        given = rendered(self._job, self._renderer, row, previous).body["messages"]
        recorded = outcome_of(self._journal, row.outcome_id, row.fingerprint)
        assert recorded is not None  # a turn is sent only after the turns before it have succeeded
        return [*(given if first else own_messages(given)), _reply(json.loads(recorded.response))]

    async def _unmade(self, row: Row, message: str) -> None:
        failure = Failure(meaning="transient", reason="input", message=message)
        request = Request(
            id=row.id,
            outcome_id=row.outcome_id,
            fingerprint=row.fingerprint,
            endpoint="",
            body={},
            input_bound=0,
            answer_bound=0,
            pictures=0,
        )
        await self.unsent(
            Outcome(request=request, attempts=0, elapsed=0.0, answered_at=0.0, failure=failure)
        )

    async def reserve(self, request: Request, number: int, at: float, cost: int) -> None:
        """A call that may cost up to `cost` nano-dollars is about to be sent."""
        self._reserved.add((request.outcome_id, request.fingerprint))
        await self._writer.commit(
            reserve_cost(
                request.outcome_id,
                request.fingerprint,
                run=self._run,
                number=number,
                at=at,
                cost=cost,
            )
        )

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        """Read a reply and store its pictures. Raises UnreadableReplyError when it is no answer, OutputError for a full disk."""
        kind = AT[request.endpoint]
        read = partial(kind.read, body, request.body)
        answer = await asyncio.to_thread(read) if len(reply) > LARGE_REPLY else read()
        if kind.draws and len(answer.pictures) != len(answer.choices):
            raise UnreadableReplyError(
                "the reply names a stored picture, and only batchgen stores pictures"
            )
        if not answer.pictures:
            return Received(answer=answer, reply=reply)
        stem = file_stem(request.id, request.axes)
        pictures = await asyncio.to_thread(self._pictures.save, list(answer.pictures), stem)
        items = [
            stored(item, picture) for item, picture in zip(body["data"], pictures, strict=True)
        ]
        kept = json.dumps({**body, "data": items}).encode()
        return Received(
            answer=answer, reply=kept, files=tuple(asdict(picture) for picture in pictures)
        )

    async def attempt(self, request: Request, attempt: Attempt) -> None:
        """A call failed and its request has not ended."""
        await self._writer.commit(self._attempt(request, attempt))

    def abandoned(self, request: Request, attempt: Attempt) -> None:
        """A call was given up while it was in flight; the writer records it before it ends."""
        self._writer.put(self._attempt(request, attempt))

    async def outcome(self, outcome: Outcome, attempt: Attempt) -> None:
        """The last call of a request in this run: the commit point."""
        audit = self._attempt(outcome.request, attempt)
        await self._writer.commit(together(audit, self._change(outcome)))

    async def withdraw(self, request: Request) -> None:
        """A failure that was recorded in this run says nothing of its row: it is pending again."""
        await self._writer.commit(
            withdraw_failure(request.outcome_id, request.fingerprint, run=self._run)
        )

    async def unsent(self, outcome: Outcome) -> None:
        """A request that ended without being sent."""
        await self._writer.commit(self._change(outcome))

    def _change(self, outcome: Outcome) -> Change:
        digest = self.asked_of(outcome.request)
        return record_outcome(outcome.request.outcome_id, digest, outcome, run=self._run)

    def _attempt(self, request: Request, attempt: Attempt) -> Change:
        which = (request.outcome_id, request.fingerprint)
        reserved = which in self._reserved
        self._reserved.discard(which)
        return record_attempt(*which, attempt, run=self._run, reserved=reserved)

    def asked_of(self, request: Request) -> bytes:
        """The digest of the cells that a request was made of, once: it is on its way out of this run."""
        return self._digests.pop((request.outcome_id, request.fingerprint))


class _Head(NamedTuple):
    """The first row of a thread, and its request or why there is none; None where it is made when it is sent."""

    row: Row
    made: Request | RequestError | None


class _Single:
    """A row that is a thread of its own."""

    def __init__(self, ledger: JournalRecorder, head: _Head) -> None:
        self._ledger = ledger
        self._head: _Head | None = head

    async def next(self) -> Request | None:
        head, self._head = self._head, None
        if head is None:
            return None
        row, made = head
        return await (
            self._ledger.request(row) if made is None else self._ledger.checked(row, made)
        )


class _Conversation:
    """A conversation: each turn is asked for when the turn before it is recorded. `_turns` are those not yet answered,
    `_history` what the others said."""

    def __init__(self, ledger: JournalRecorder, head: Row) -> None:
        self._ledger = ledger
        self._head = head
        self._turns: list[Row] | None = None
        self._history: list[Mapping[str, Any]] = []
        self._previous = b""

    async def next(self) -> Request | None:
        if self._turns is None:
            self._turns = await self._ledger.turns(self._head)
        elif self._turns:
            self._turns[0] = await self._ledger.now(self._turns[0])
        while self._turns and self._turns[0].status == "succeeded":
            await self._take_in(self._turns.pop(0))
        if not self._turns:
            return None
        # What stood in the way when the conversation was read is out of it: each turn before this one has succeeded.
        turn = await self._ledger.now(self._turns[0])
        return (
            await self._ledger.request(turn, self._history, self._previous)
            if turn.to_send
            else None
        )

    async def _take_in(self, turn: Row) -> None:
        self._history += await asyncio.to_thread(
            self._ledger.said, turn, self._previous, first=not self._history
        )
        self._previous = turn.fingerprint


def _turn(row: Row, column: str) -> Any:
    """The row's turn in its column of turns. Raises RequestError where the job has changed since the row was staged."""
    turns = row.columns.get(column)
    if not isinstance(turns, list) or not 0 < row.turn <= len(turns):
        raise RequestError(
            ("conversation", "turns"),
            f"the row was read before {column!r} became its turns; run again",
        )
    return turns[row.turn - 1]


def rendered(job: Job, renderer: Renderer, row: Row, previous: bytes = b"") -> Request:
    """The request of a staged row, less what its conversation said before. Raises RequestError."""
    column = job.conversation.turns if job.conversation else None
    return renderer.request(
        row.columns,
        row.axes,
        turn=_turn(row, column) if column else None,
        previous=previous,
        name=row.id,
        outcome_id=row.outcome_id,
        number=row.turn,
    )


def _reply(response: Mapping[str, Any]) -> dict[str, Any]:
    """The assistant's message of a recorded reply, as a later request takes it; there is always something in it."""
    message = reply_message(response)
    kept = {
        name: message[name]
        for name in ("content", "tool_calls", "function_call")
        if message.get(name)
    }
    if not kept and message.get("refusal"):
        # Where a message calls nothing, the API wants content; a refusal is one of its parts.
        kept["content"] = [{"type": "refusal", "refusal": message["refusal"]}]
    elif not kept:
        # A recording is forgotten by the server; what it says is here. An empty reply that was accepted is a text.
        kept["content"] = transcript_of(message)
    said = {"role": message.get("role") or "assistant", **kept}
    # Half a surrogate pair can be received, but not be sent.
    return dict(json.loads(encodable(json.dumps(said, ensure_ascii=False))))
