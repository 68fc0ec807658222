"""Records attempts and outcomes in the journal: a backend's dispatch.Recorder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchgen.dispatch import Attempt, Outcome, Received
from batchgen.journal import (
    Change,
    Writer,
    record_attempt,
    record_outcome,
    reserve_cost,
    together,
    withdraw_failure,
)
from batchgen.recorder.reader import FolderReplyReader
from batchgen.recorder.source import RequestSource
from batchgen.requests import Request


class JournalRecorder:
    """A dispatch.Recorder for one run of one job; an async method returns when all is durable."""

    def __init__(
        self, source: RequestSource, reader: FolderReplyReader, writer: Writer, run: int
    ) -> None:
        self._source, self._reader, self._writer, self._run = source, reader, writer, run
        # The requests whose cost is reserved in the journal.
        self._reserved: set[tuple[str, bytes]] = set()

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        """Read a reply and store its pictures: they are whole before an outcome names them.

        Raises UnreadableReplyError when it is not an answer, OutputError for a full disk.
        """
        return await self._reader.receive(request, body, reply)

    async def reserve(self, request: Request, number: int, at: float, cost: int) -> None:
        """Record a call that is about to be sent under a cap on money.

        Args:
            request: what is sent.
            number: of the attempt, within the run.
            at: seconds since 1970.
            cost: the most it may cost, in nano-dollars.
        """
        identity = (request.outcome_id, request.fingerprint)
        self._reserved.add(identity)
        await self._writer.commit(
            reserve_cost(*identity, run=self._run, number=number, at=at, cost=cost)
        )

    async def attempt(self, request: Request, attempt: Attempt) -> None:
        """Record a call that failed and did not end its request."""
        await self._writer.commit(self._attempt(request, attempt))

    def abandoned(self, request: Request, attempt: Attempt) -> None:
        """Record a call that was cancelled in flight.

        Returns at once; the writer commits it before it closes.
        """
        self._writer.put(self._attempt(request, attempt))

    async def outcome(self, outcome: Outcome, attempt: Attempt) -> bool:
        """Record how a request ended, with its last call: the commit point.

        Returns whether its thread's next request is its correction.
        """
        call = self._attempt(outcome.request, attempt)
        await self._writer.commit(together(call, self._outcome(outcome)))
        await self._reader.publish(outcome.files)
        return await self._source.corrections.follows(outcome)

    async def publish(self, outcomes: Sequence[Outcome]) -> None:
        """Give the pictures of recorded answers their names. Raises OutputError."""
        await self._reader.publish([file for outcome in outcomes for file in outcome.files])

    async def withdraw(self, request: Request) -> None:
        """Take back a failure recorded in this run that was not the row's: it is pending again."""
        await self._writer.commit(
            withdraw_failure(request.outcome_id, request.fingerprint, run=self._run)
        )

    async def unsent(self, outcome: Outcome) -> None:
        """Record a request that ended without another call."""
        await self._writer.commit(self._outcome(outcome))

    def take_columns_digest(self, request: Request) -> bytes:
        """Return the digest of the cells that a request was made of, and forget it.

        Call it once, when the request ends or leaves the run.
        """
        return self._source.take_columns_digest(request)

    def _attempt(self, request: Request, attempt: Attempt) -> Change:
        identity = (request.outcome_id, request.fingerprint)
        reserved = identity in self._reserved
        self._reserved.discard(identity)
        return record_attempt(*identity, attempt, run=self._run, reserved=reserved)

    def _outcome(self, outcome: Outcome) -> Change:
        digest = self._source.take_columns_digest(outcome.request)
        return record_outcome(
            outcome.request.outcome_id,
            digest,
            outcome,
            run=self._run,
            corrections=self._source.corrections.most(outcome),
        )
