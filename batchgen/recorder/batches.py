"""What the batch backend needs of the journal: batches, their members and their answers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from batchgen.dispatch import Outcome, Received
from batchgen.dispatch.batches.records import Batch, Member, MemberResult
from batchgen.journal import Journal, Writer, batches, record_attempt, record_outcome, together
from batchgen.recorder.corrections import Corrections
from batchgen.recorder.recorder import JournalRecorder
from batchgen.requests import Request


class JournalBatchRecorder:
    """The batches of one job in one run of it: a dispatch.batches.records.BatchRecorder.

    recorder: takes requests out of the run, and reads replies
    corrections: how often and when requests are sent again
    journal: is read
    writer: commits
    run: the number of the run
    """

    def __init__(
        self,
        recorder: JournalRecorder,
        corrections: Corrections,
        journal: Journal,
        writer: Writer,
        run: int,
    ) -> None:
        self._recorder, self._journal, self._writer, self._run = recorder, journal, writer, run
        self._corrections = corrections
        self._next_number = batches.next_number(journal)

    async def recent_batches(self) -> list[Batch]:
        """The open batches, and those closed in the last day, oldest first."""
        return await asyncio.to_thread(batches.recent_batches, self._journal)

    async def begin(self, endpoint: str, model: str) -> Batch:
        """Record a new batch, of which nothing is sent yet."""
        batch = Batch(
            number=self._next_number,
            tag=f"batchgen-{uuid.uuid4().hex}",
            endpoint=endpoint,
            model=model,
            made_at=time.time(),
        )
        self._next_number += 1
        await self._writer.commit(batches.record_batch(batch, self._run))
        return batch

    async def add_members(self, batch: Batch, members: Sequence[Member]) -> None:
        """Record that requests are in a batch. No other batch or call sends them from now on."""
        await self._writer.commit(batches.record_members(batch, members))

    def take(self, request: Request) -> bytes:
        """Take a request that is batched or deferred out of this run; returns its cells' digest."""
        return self._recorder.take_columns_digest(request)

    async def update(self, batch: Batch) -> None:
        """Record a batch as it is now."""
        await self._writer.commit(batches.update_batch(batch))

    async def forget(self, batch: Batch) -> None:
        """Delete a batch that does not exist at the server: its requests are pending again."""
        await self._writer.commit(batches.forget_batch(batch))

    async def members(
        self, batch: Batch, lines: Collection[int] | None = None
    ) -> dict[int, Member]:
        """The members without an outcome, by line: those of `lines`, or (None) a first page."""
        return await asyncio.to_thread(batches.members, self._journal, batch, lines)

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        """Read a reply and store its pictures.

        Raises UnreadableReplyError if it is not an answer, OutputError if the disk is full.
        """
        return await self._recorder.receive(request, body, reply)

    async def record_results(self, results: Sequence[MemberResult]) -> list[MemberResult]:
        """Record how requests ended and take them out of their batch: their commit point.

        Returns those that no correction follows.
        """
        changes = [batches.remove_members([each.outcome.request for each in results])]
        for each in results:
            request = each.outcome.request
            changes.append(
                record_attempt(request.outcome_id, request.fingerprint, each.attempt, run=self._run)
            )
            changes.append(
                record_outcome(
                    request.outcome_id,
                    each.member.columns_digest,
                    each.outcome,
                    run=self._run,
                    corrections=self._corrections.most(each.outcome),
                )
            )
        await self._writer.commit(together(*changes))
        await self._recorder.publish([each.outcome for each in results])
        return [each for each in results if not await self._corrections.follows(each.outcome)]

    async def unsent(self, outcome: Outcome) -> None:
        """Record a request that ended without being sent."""
        await self._recorder.unsent(outcome)

    async def close(self, batch: Batch) -> None:
        """Close a batch whose answers are on record; members without one are pending again."""
        await self._writer.commit(batches.close_batch(batch))
