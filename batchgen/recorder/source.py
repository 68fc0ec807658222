"""What is sent next: threads of requests, made from the rows of the journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from batchgen.dispatch import Failure, Outcome, Thread
from batchgen.job import Job
from batchgen.journal import (
    Journal,
    Row,
    Scope,
    Writer,
    record_outcome,
    reread,
    thread_heads,
    turns_of,
)
from batchgen.recorder.corrections import Corrections
from batchgen.recorder.past import NO_PAST, Past, past_after, render_unchanged
from batchgen.requests import Renderer, Request, RequestError, with_history


class RequestSource:
    """The threads of one run of one job."""

    def __init__(
        self,
        job: Job,
        renderer: Renderer,
        journal: Journal,
        writer: Writer,
        corrections: Corrections,
        *,
        run: int,
        scope: Scope,
    ) -> None:
        """Read nothing yet.

        Args:
            job: the job that the rows were staged from.
            renderer: makes its requests.
            journal: holds its rows.
            writer: records rows that cannot be made into requests any more.
            corrections: make the requests of rows whose answers do not fit.
            run, scope: the number of the run, and the rows that it sends.
        """
        self._job, self._renderer, self._journal, self._writer = job, renderer, journal, writer
        self._run, self._scope, self.corrections = run, scope, corrections
        self._columns_digests: dict[tuple[str, bytes], bytes] = {}

    async def threads(self) -> AsyncIterator[Thread]:
        """Everything that is to be sent, in the prompts file's order. Raises DamagedError."""
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

    def take_columns_digest(self, request: Request) -> bytes:
        """Return the digest of the cells that a request was made of, and forget it.

        Call it once, when the request ends or leaves the run.
        """
        return self._columns_digests.pop((request.outcome_id, request.fingerprint))

    def _page(self, after: int) -> list[_Head]:
        """The next page of threads, after the row with the seq `after`."""
        rows = thread_heads(self._journal, after, self._scope)
        # One call in a thread makes many requests, which is cheaper than a call for each. Requests
        # with files may hold pictures, so they are made when they are sent.
        return [
            _Head(row, None if row.turn or self._renderer.reads_files else self._made(row))
            for row in rows
        ]

    def _made(self, row: Row, previous: bytes = b"") -> Request | RequestError:
        """The request of a row, or why it cannot be made any more."""
        try:
            return render_unchanged(self._job, self._renderer, row, previous)
        except RequestError as error:
            return error

    async def turns(self, head: Row) -> list[Row]:
        """The turns of a conversation that are in scope, in order, with their present statuses."""
        rows = await asyncio.to_thread(turns_of, self._journal, head)
        return [row for row in rows if self._scope.holds(row.n)]

    async def reread(self, row: Row) -> Row:
        """A row with its present status."""
        return await asyncio.to_thread(reread, self._journal, row)

    async def request(self, row: Row, past: Past = NO_PAST) -> Request | None:
        """The request of a row. If it can no longer be made, record that and return None."""
        make = partial(self._made, row, past.fingerprint)
        made = await asyncio.to_thread(make) if self._renderer.reads_files else make()
        return await self.register(row, made, past)

    async def register(
        self, row: Row, made: Request | RequestError, past: Past = NO_PAST
    ) -> Request | None:
        """Note that a row's request is about to be sent, and return it as it is sent.

        If it could not be made, record that and return None.
        """
        if isinstance(made, RequestError):
            await self._record_unmade(row, str(made))
            return None
        self._columns_digests[row.outcome_id, row.fingerprint] = row.columns_digest
        if past.follows is not None:
            made = replace(with_history(made, past.messages), follows=past.follows)
        return await self.corrections.applied(row, made)

    async def _record_unmade(self, row: Row, message: str) -> None:
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
        # Passing: pass 1 of the next run reads the files again, and may make the request.
        failure = Failure(meaning="transient", reason="input", message=message)
        outcome = Outcome(
            request=request, attempts=0, elapsed=0.0, answered_at=0.0, failure=failure
        )
        await self._writer.commit(
            record_outcome(row.outcome_id, row.columns_digest, outcome, run=self._run)
        )

    def past_after(self, past: Past, row: Row) -> Past:
        """The conversation after an answered turn.

        Raises RequestError if a picture that the turn was asked with is gone or has changed.
        """
        return past_after(self._job, self._renderer, self._journal, past, row)


class _Head(NamedTuple):
    """The first row of a thread.

    made: its request, or why it cannot be made; None: it is made when it is sent.
    """

    row: Row
    made: Request | RequestError | None


class _Single:
    """A row that is a thread of its own."""

    def __init__(self, source: RequestSource, head: _Head) -> None:
        self._source = source
        self._head: _Head | None = head
        self._row = head.row

    async def next(self) -> Request | None:
        head, self._head = self._head, None
        if head is None:
            if not self._source.corrections.take_due(self._row):
                return None
            return await self._source.request(await self._source.reread(self._row))
        if head.made is None:
            return await self._source.request(head.row)
        return await self._source.register(head.row, head.made)


class _Conversation:
    """A conversation. Call `next` again when the outcome of the turn before is recorded."""

    def __init__(self, source: RequestSource, head: Row) -> None:
        self._source = source
        self._head = head
        # The turns that are not answered yet; None until they are read.
        self._turns: list[Row] | None = None
        self._past = NO_PAST

    async def next(self) -> Request | None:
        if self._turns is None:
            self._turns = await self._source.turns(self._head)
        elif self._turns:
            self._turns[0] = await self._source.reread(self._turns[0])
        unmade = await self._pass_answered(self._turns)
        if not self._turns:
            return None
        # When the conversation was read, this turn may have been blocked by one that has succeeded
        # since.
        turn = await self._source.reread(self._turns[0])
        if not turn.to_send:
            return None
        if unmade is not None:
            return await self._source.register(turn, unmade)
        return await self._source.request(turn, self._past)

    async def _pass_answered(self, turns: list[Row]) -> RequestError | None:
        """Take answered turns into the history; returns why that of the next cannot be made."""
        unmade = None
        while turns and turns[0].status == "succeeded":
            turn = turns.pop(0)
            try:
                self._past = await asyncio.to_thread(self._source.past_after, self._past, turn)
            except RequestError as error:
                unmade = unmade or error
        return unmade
