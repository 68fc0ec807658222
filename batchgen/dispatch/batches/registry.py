"""The batches of a job: what is on record, updated by each batch object that the server sends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from batchgen.dispatch import Progress, Wait
from batchgen.dispatch.batches.records import (
    CANCEL_REQUESTED,
    KEPT_FIELDS,
    LACKING_SINCE,
    Batch,
    BatchRecorder,
    counts_of,
)
from batchgen.dispatch.batches.retrying import Json
from batchgen.errors import BatchgenError

# The status of a batch that a user gave up: its answers are never fetched.
GIVEN_UP = "given up"

# The status of a batch that the server did not make, because of some of its lines.
REFUSED = "refused"

# The bounds on what is kept of a batch object: the characters of a text, the names of the counts,
# and the largest number (the time at the end of the year 9999; no count is as large).
LONGEST = 1000
COUNTS = ("total", "completed", "failed")
LARGEST = 253_402_300_800


class BatchRegistry:
    """The open and recent batches of a job, each change on record before it counts.

    `stop_error` is what the run ends with when everything that it may still do is done.
    """

    def __init__(self, recorder: BatchRecorder, progress: Progress) -> None:
        self._recorder, self._progress = recorder, progress
        self._batches: dict[int, Batch] = {}
        self.stop_error: BatchgenError | None = None

    async def load(self) -> None:
        """Read what is on record."""
        self._batches = {batch.number: batch for batch in await self._recorder.recent_batches()}

    @property
    def batches(self) -> Collection[Batch]:
        """The open batches, and those closed in the last day, oldest first."""
        return self._batches.values()

    @property
    def open(self) -> list[Batch]:
        """The batches that are not closed, oldest first."""
        return [batch for batch in self._batches.values() if batch.closed_at is None]

    def stop_with(self, why: BatchgenError) -> None:
        """Have the run end with `why`, later. Only the first error counts."""
        self.stop_error = self.stop_error or why

    async def record_object(self, batch: Batch, batch_object: Json) -> Batch:
        """Record what a batch object says of a batch; it has an id."""
        seen = {
            name: value
            for name in KEPT_FIELDS
            if (value := _READ[name](batch_object.get(name))) is not None
        }
        for name in (CANCEL_REQUESTED, LACKING_SINCE):
            if name in batch.seen:
                seen[name] = batch.seen[name]
        updated = replace(
            batch,
            id=batch.id or batch_object["id"],
            status=_text(batch_object.get("status")) or "unknown",
            seen=seen,
        )
        if updated != batch:
            await self._recorder.update(updated)
        self._batches[batch.number] = updated
        return updated

    async def record_cancel_request(self, batch: Batch) -> Batch:
        """Record that a user asked to cancel a batch, before the server is asked."""
        return await self._record_seen(batch, CANCEL_REQUESTED, True)

    async def record_lack(self, batch: Batch) -> Batch:
        """Record that the result files of an ended batch lack answers, from now on."""
        return await self._record_seen(batch, LACKING_SINCE, time.time())

    async def _record_seen(self, batch: Batch, name: str, value: Any) -> Batch:
        updated = replace(batch, seen={**batch.seen, name: value})
        await self._recorder.update(updated)
        self._batches[batch.number] = updated
        return updated

    async def forget(self, batch: Batch) -> None:
        """Forget a batch that does not exist at the server: its requests are pending again."""
        await self._recorder.forget(batch)
        self._batches.pop(batch.number, None)

    async def close(self, batch: Batch) -> None:
        """Close a batch of which every answer is on record."""
        closed = replace(batch, closed_at=time.time())
        await self._recorder.close(closed)
        self._batches[batch.number] = closed

    def show_progress(self) -> None:
        """Show on the progress line the batches that have not ended."""
        running = [batch for batch in self.open if not batch.has_ended or batch.lacking_since]
        answered = sum(counts_of(batch)[0] for batch in running)
        total = sum(batch.requests for batch in running)
        self._progress.answered_remotely = answered
        word = "batch" if len(running) == 1 else "batches"
        reason = f"waiting for {len(running)} {word} ({answered:,} of {total:,} answered)"
        self._progress.wait = Wait(cause="batches", reason=reason) if running else None


def errors_of(batch_object: Json) -> list[Json]:
    """The errors that the object of a failed batch lists."""
    errors = batch_object.get("errors")
    data = errors.get("data") if isinstance(errors, Mapping) else None
    return [each for each in data if isinstance(each, Mapping)] if isinstance(data, list) else []


def _text(value: Any) -> str | None:
    """A text that can be shown and kept; None for anything else."""
    if not isinstance(value, str):
        return None
    return "".join(each if each.isprintable() else "?" for each in value[:LONGEST])


def _number(value: Any) -> int | None:
    """A count, or a time in seconds since 1970; None for anything else."""
    return int(value) if type(value) in (int, float) and 0 <= value < LARGEST else None


def _counts(value: Any) -> dict[str, int] | None:
    """The counts of requests, as far as they are numbers; None for anything but an object."""
    if not isinstance(value, Mapping):
        return None
    counts = {name: _number(value.get(name)) for name in COUNTS}
    return {name: count for name, count in counts.items() if count is not None}


# How each field of a batch object is read.
_READ: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(KEPT_FIELDS, _number),
    "request_counts": _counts,
    "output_file_id": _text,
    "error_file_id": _text,
}
