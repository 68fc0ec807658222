"""What the Batch API's backend needs of the journal: its batches, what is in them, and their answers committed."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from batchgen.dispatch import Outcome, Received
from batchgen.dispatch.batches.records import Batch, Member, MemberResult
from batchgen.journal import Journal, Writer, batches, record_attempt, record_outcome, together
from batchgen.recorder.recorder import JournalRecorder
from batchgen.requests import Request


class JournalBatchRecorder:
    """The batches of one job, in one run of it: a dispatch.BatchRecorder."""

    def __init__(
        self, recorder: JournalRecorder, journal: Journal, writer: Writer, run: int
    ) -> None:
        self._recorder, self._journal, self._writer, self._run = recorder, journal, writer, run
        self._next = batches.next_number(journal)

    async def batches(self) -> list[Batch]:
        """The batches that are not closed, and those closed in the last day, oldest first."""
        return await asyncio.to_thread(batches.recent_batches, self._journal)

    async def begin(self, endpoint: str, model: str) -> Batch:
        """A new batch, of which nothing was sent."""
        tag = f"batchgen-{uuid.uuid4().hex}"
        batch = Batch(
            number=self._next, tag=tag, endpoint=endpoint, model=model, made_at=time.time()
        )
        self._next += 1
        await self._writer.commit(batches.begun(batch, self._run))
        return batch

    async def enlist(self, batch: Batch, members: Sequence[Member]) -> None:
        """These requests are in the batch, and nowhere else from now on."""
        await self._writer.commit(batches.enlisted(batch, members))

    def withhold(self, request: Request) -> bytes:
        """A request leaves this run, in a batch or not at all: the digest of the cells that it was made of."""
        return self._recorder.take_columns_digest(request)

    async def note(self, batch: Batch) -> None:
        """A batch as it is now."""
        await self._writer.commit(batches.noted(batch))

    async def forget(self, batch: Batch) -> None:
        """A batch that does not exist at the server: its requests are to be sent again."""
        await self._writer.commit(batches.forgotten(batch))

    async def members(
        self, batch: Batch, lines: Collection[int] | None = None
    ) -> dict[int, Member]:
        """What is left of a batch's requests, by line: those of `lines`, or (None) the first page of all."""
        return await asyncio.to_thread(batches.members, self._journal, batch, lines)

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        """Read a reply and store its pictures. Raises UnreadableReplyError when it is no answer, OutputError for a full disk."""
        return await self._recorder.receive(request, body, reply)

    async def ended(self, endings: Sequence[MemberResult]) -> None:
        """Requests of a batch ended: the commit point of all of them. They are in the batch no more."""
        changes = [batches.ended([each.outcome.request for each in endings])]
        for each in endings:
            request = each.outcome.request
            changes.append(
                record_attempt(request.outcome_id, request.fingerprint, each.attempt, run=self._run)
            )
            changes.append(
                record_outcome(
                    request.outcome_id, each.member.columns_digest, each.outcome, run=self._run
                )
            )
        await self._writer.commit(together(*changes))

    async def unsent(self, outcome: Outcome) -> None:
        """A request that ended without being sent."""
        await self._recorder.unsent(outcome)

    async def close(self, batch: Batch) -> None:
        """All that a batch brought is on record: what is left of its requests is to be sent again."""
        await self._writer.commit(batches.closed(batch))
