"""Each open batch from `create` to `close`: found at the server, polled, collected, closed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from batchgen.dispatch.batches import queue_limit
from batchgen.dispatch.batches.client import (
    BatchClient,
    Json,
    RequestRejectedError,
    ServerUnresponsiveError,
)
from batchgen.dispatch.batches.collect import Collector
from batchgen.dispatch.batches.file_counts import FileCounts
from batchgen.dispatch.batches.records import Batch
from batchgen.dispatch.batches.refused import refusal_error
from batchgen.dispatch.batches.registry import GIVEN_UP, BatchRegistry, errors_of
from batchgen.errors import AccountError, LimitError

# Seconds between two polls: at first (also after a cancel request), the factor by which they grow,
# and the most.
FIRST_POLL = 2.0
GROWTH = 1.5
LONGEST_POLL = 60.0

# How often in a row a batch that exceeds the queue is cut smaller and sent at once. After that the
# run waits before it sends again. The wait begins with FULL_AT_FIRST seconds, and doubles up to
# FULL_AT_LAST.
FULL_AT_ONCE = 3
FULL_AT_FIRST = 60.0
FULL_AT_LAST = 1800.0

# Seconds for which the result files of an ended batch are fetched again while they lack answers
# that the server counts: those are paid for, and may still come. Files with nothing of the batch in
# them are most likely not its files, and a user has longer to see to it.
SOME_LACKING = 600.0
ALL_LACKING = 24 * 3600.0


class Poller:
    """Polls the open batches of a job, and collects and closes those that have ended.

    server: the Batch API
    registry: the batches
    collector: records their answers
    give_up_after: seconds without a reply from the server that end a wait
    keep_files: whether the files of collected batches stay at the server
    say: shows a sentence to the user for each batch that ends
    """

    def __init__(
        self,
        *,
        server: BatchClient,
        registry: BatchRegistry,
        collector: Collector,
        give_up_after: float,
        keep_files: bool,
        say: Callable[[str], None],
    ) -> None:
        self._server, self._registry, self._collector = server, registry, collector
        self._give_up_after, self._keep_files, self._say = give_up_after, keep_files, say
        # How many polls in a row found that a queue was full, and whether the current one did.
        self._full_polls = 0
        self._queue_is_full = False
        # The numbers of the batches of which was shown that their files lack answers.
        self._shown_lacking: set[int] = set()

    async def poll_all(self) -> None:
        """Poll every open batch once.

        Raises what stops the run, when all that have ended are collected.
        """
        await self._registry.load()
        self._queue_is_full = False
        unresponsive: ServerUnresponsiveError | None = None
        for batch in self._registry.open:
            # A batch that cannot be polled must not keep the others from being collected.
            try:
                existing = await self.find(batch)
                if existing is not None:
                    await self.poll(existing)
            except ServerUnresponsiveError as error:
                unresponsive = unresponsive or error
        self._full_polls += self._queue_is_full
        self._registry.show_progress()
        if why := self._registry.stop_error or unresponsive:
            raise why

    async def wait(self) -> None:
        """Poll until one more batch has ended. Raises what stops the run."""
        pause, open_before, replied_at = FIRST_POLL, len(self._registry.open), time.monotonic()
        silent = ("", "")
        while open_before:
            await self._server.sleep(pause, *silent)
            try:
                await self.poll_all()
                replied_at, silent = time.monotonic(), ("", "")
            except ServerUnresponsiveError as error:
                silent = ("outage", f"{error}".removesuffix("; run again later"))
                # A wait may last a day, and goes on for an hour without a network.
                if time.monotonic() - replied_at > self._give_up_after:
                    raise
            if len(self._registry.open) < open_before:
                break
            pause = min(pause * GROWTH, LONGEST_POLL)
        # A batch that is too large for its queue is cut smaller at once. A queue that batches of
        # others fill needs time.
        delays = self._full_polls - FULL_AT_ONCE
        if delays > 0 or not open_before:
            seconds = FULL_AT_FIRST * 2 ** min(max(0, delays - 1), 10)
            await self._server.sleep(
                min(seconds, FULL_AT_LAST), "queue", "the queue for batches at the server is full"
            )

    async def find(self, batch: Batch, *, give_up: bool = False) -> Batch | None:
        """A batch with its id at the server.

        Returns None, and forgets the batch, if the server certainly has none. Returns None as well
        if that cannot be known: this stops the run, or with `give_up` gives the batch up.
        """
        if batch.id is not None:
            return batch
        batch_object: Json | None = None
        if batch.file is not None:
            try:
                batch_object = await self._server.find(batch)
                if batch_object is None:
                    # With another key or project the server shows other files, and other batches.
                    await self._server.check_file(batch)
            except RequestRejectedError as rejected:
                if give_up:
                    await self.give_up(batch)
                else:
                    self._registry.stop_with(self._server.unknown_batch_error(rejected))
                return None
        if batch_object is not None:
            return await self._registry.record_object(batch, batch_object)
        await self._registry.forget(batch)
        return None

    async def poll(self, batch: Batch, *, give_up: bool = False) -> None:
        """Fetch the status of a batch, and collect and close it if it has ended.

        A batch or result file that the server does not have stops the run; with `give_up` it gives
        the batch up.
        """
        try:
            batch_object = await self._server.retrieve(batch)
        except RequestRejectedError as rejected:
            await self._missing(batch, f"does not know the batch {batch.id} ({rejected})", give_up)
            return
        batch = await self._registry.record_object(batch, batch_object)
        if batch.cancel_requested and not batch.has_ended and batch.status != "cancelling":
            # The request was lost.
            await self.request_cancel(batch)
        if not batch.has_ended:
            return
        self._registry.show_progress()
        try:
            found = await self._collector.collect(batch)
        except RequestRejectedError as rejected:
            what = f"does not have all answers of the batch {batch.id} ({rejected})"
            await self._missing(batch, what, give_up)
            return
        if not give_up and await self._may_still_come(batch, found):
            return
        lost = found.without_answer(batch)
        await self._collector.fail_unanswered(batch, lost)
        if batch.status == "failed":
            batch = await self._record_failure(batch, errors_of(batch_object))
        await self._registry.close(batch)
        self._report_end(batch, len(found.answered), len(lost))
        # Files that lack answers, or of a batch that was refused, are what a user asks about.
        if not self._keep_files and not lost and batch.status != "failed":
            for file in batch.server_files:
                await self._server.delete_file(file)

    async def _may_still_come(self, batch: Batch, found: FileCounts) -> bool:
        """Whether the result files lack answers that a later poll may find; then it stays open."""
        if not found.lacking(batch):
            return False
        # After a clock was set back, the time begins anew.
        if batch.lacking_since is None or batch.lacking_since > time.time():
            batch = await self._registry.record_lack(batch)
        since, nothing = batch.lacking_since or 0.0, found.has_nothing(batch)
        if time.time() - since >= (ALL_LACKING if nothing else SOME_LACKING):
            return False
        have = f"{len(found.answered):,} of {len(found.answered) + found.lacking(batch):,}"
        if nothing:
            what = f"does not have all answers of the batch {batch.id} (its files have {have})"
            await self._missing(batch, what, give_up=False)
        elif batch.number not in self._shown_lacking:
            self._shown_lacking.add(batch.number)
            left = math.ceil((since + SOME_LACKING - time.time()) / 60)
            self._say(
                f"batch {batch.id}: {batch.status}: its files have {have} answers;"
                f" they are fetched again for {left} min before the rest is sent again"
            )
        return True

    async def give_up(self, batch: Batch) -> None:
        """Close a batch whose answers cannot be fetched; its members fail, and may have cost."""
        await self._collector.give_up(batch)
        await self._registry.close(replace(batch, status=GIVEN_UP))
        self._say(f"batch {batch.id or batch.tag}: given up")

    async def request_cancel(self, batch: Batch) -> None:
        """Ask the server to cancel a batch."""
        # It refuses for a batch that has ended or that it does not know: the next poll shows which.
        with suppress(RequestRejectedError):
            await self._server.cancel(batch)

    async def _missing(self, batch: Batch, what: str, give_up: bool) -> None:
        if give_up:
            await self.give_up(batch)
            return
        remedy = (
            "run again later, or with the key and project that it was sent with,"
            " or give it up: batchgen cancel"
        )
        self._registry.stop_with(AccountError(f"{self._server.host} {what}; {remedy}"))

    async def _record_failure(self, batch: Batch, errors: Sequence[Json]) -> Batch:
        """Record why a batch failed: because of its rows, a full queue, or the account."""
        failed_rows = await self._collector.record_line_errors(batch, errors)
        full = queue_limit.with_room(self._registry.batches, batch, errors)
        host = self._server.host
        if full is not None:
            self._queue_is_full = True
            if batch.requests == 1 and batch.tokens > (full.room or 0):
                why = f"the queue of {batch.model} at {host} has no room for even one request"
                self._registry.stop_with(
                    LimitError(f"{why}; run again later, or send it with --mode online")
                )
            return full
        if not failed_rows:
            # Sent again unchanged, the batch would fail again.
            why = self._collector.classified(errors[0]).message if errors else "it does not say why"
            self._registry.stop_with(refusal_error(host, why, None, f"the batch {batch.id}"))
        return batch

    def _report_end(self, batch: Batch, answered: int, lost: int) -> None:
        """Say how a batch ended; stop the run if a user must decide whether to send the rest.

        answered: how many of its requests have a reply in its files
        lost: how many others may have been executed
        """
        note = f"; {lost:,} without an answer, which a later batch sends again" if lost else ""
        if batch.room is not None:
            note = "; the queue of its model is full: a later batch sends the rest"
        self._say(
            f"batch {batch.id}: {batch.status}: {answered:,} of {batch.requests:,} answered{note}"
        )
        if answered:
            self._full_polls = 0
        if batch.status == "cancelled" and not batch.cancel_requested:
            why = f"the batch {batch.id} was cancelled at {self._server.host}"
            self._registry.stop_with(AccountError(f"{why}; run again to send the rest of it"))
        elif batch.status == "expired" and not answered:
            why = f"the batch {batch.id} expired without an answer"
            self._registry.stop_with(AccountError(f"{why}; run again to send it once more"))
