"""What is known of a job's batches: read from what the server says, kept on record, and how much a model's queue takes.

The queue of a model holds so many input tokens at one time, of all batches of an account (the API's guide on rate limits). A
batch for which there is no room fails soon after it was taken, and that is all that is ever said of the limit; some servers
name it in the message.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchgen.dispatch import Progress
from batchgen.dispatch.batches.records import (
    CANCEL_REQUESTED,
    ENDED,
    KEPT_FIELDS,
    Batch,
    BatchRecorder,
    counts_of,
)
from batchgen.errors import BatchgenError

Json = Mapping[str, Any]

# The status of a batch of which nothing more will be known.
GIVEN_UP = "given up"

# A batch that the server has not yet found to be sound, or never did: it says nothing of the queue's room.
_UNPROVEN = frozenset({"made", "uploaded", "validating", "failed", "unknown", GIVEN_UP})

# The error of a batch that does not fit into the queue of its model, and the limit in its message.
_FULL = "token_limit_exceeded"
_LIMIT = re.compile(r"\blimit: ?(\d[\d,]{0,15})\b", re.IGNORECASE)

# What share of a limit that is named is used: what a request sends is only about known.
_SHARE = 0.9

# What is kept of a server's words: characters, and the counts of requests; and of its numbers, those that are such counts,
# or times before the year 10000.
LONGEST = 1000
COUNTS = ("total", "completed", "failed")
MOST = 253_402_300_800


class BatchRegistry:
    """The batches of a job, and what stops its run when all that may be done is done."""

    def __init__(self, recorder: BatchRecorder, progress: Progress) -> None:
        self._recorder, self._progress = recorder, progress
        self._batches: dict[int, Batch] = {}
        self.trouble: BatchgenError | None = None

    async def load(self) -> None:
        """Know what is on record."""
        self._batches = {batch.number: batch for batch in await self._recorder.batches()}

    @property
    def open(self) -> list[Batch]:
        """The batches that are not closed, oldest first."""
        return [batch for batch in self._batches.values() if batch.closed_at is None]

    def stop_with(self, why: BatchgenError) -> None:
        """Have the run end with this, later. The first reason stays."""
        self.trouble = self.trouble or why

    async def see(self, batch: Batch, told: Json) -> Batch:
        """A batch as the server shows it; `told` is a batch object with an id."""
        seen = {
            name: value
            for name in KEPT_FIELDS
            if (value := _READ[name](told.get(name))) is not None
        }
        if CANCEL_REQUESTED in batch.seen:
            seen[CANCEL_REQUESTED] = True
        now = replace(
            batch,
            id=batch.id or told["id"],
            status=_word(told.get("status")) or "unknown",
            seen=seen,
        )
        if now != batch:
            await self._recorder.note(now)
        self._batches[batch.number] = now
        return now

    async def ask(self, batch: Batch) -> Batch:
        """A batch is about to be cancelled because somebody asked for it."""
        asked = replace(batch, seen={**batch.seen, CANCEL_REQUESTED: True})
        await self._recorder.note(asked)
        self._batches[batch.number] = asked
        return asked

    async def forget(self, batch: Batch) -> None:
        """A batch does not exist at the server."""
        await self._recorder.forget(batch)
        self._batches.pop(batch.number, None)

    async def close(self, batch: Batch) -> None:
        """All that a batch brings is on record."""
        closed = replace(batch, closed_at=time.time())
        await self._recorder.close(closed)
        self._batches[batch.number] = closed

    def show(self) -> None:
        """Have a progress line show the batches that have not ended."""
        found = [batch for batch in self.open if batch.status not in ENDED]
        done, total = (
            sum(counts_of(batch)[0] for batch in found),
            sum(batch.requests for batch in found),
        )
        self._progress.answered_remotely = done
        word = "batch" if len(found) == 1 else "batches"
        self._progress.waiting_for = (
            f"{len(found)} {word} ({done:,} of {total:,} answered)" if found else ""
        )

    # -- the queue of a model --------------------------------------------------------------------------------------

    def has_room(self, model: str, tokens: int, beside: int) -> bool:
        """Whether the queue of a model takes so many tokens more, `beside` those that are about to go. What it took when it
        was full is known; what it has taken since lets that grow. What is alone is always tried."""
        full = max(
            (batch.number for batch in self._of(model) if batch.room is not None), default=None
        )
        if full is None:
            return True
        since = [
            each for each in self._of(model) if each.number > full and each.status not in _UNPROVEN
        ]
        room = (self._batches[full].room or 0) + sum(each.tokens for each in since) // 2
        taken = beside + sum(each.tokens for each in self._of(model) if each.closed_at is None)
        return not taken or taken + tokens <= room

    def without_room(self, batch: Batch, errors: Sequence[Json]) -> Batch | None:
        """A batch that failed with these errors because the queue of its model was full, and the room that there may be; None
        where that is not why."""
        error = next((each for each in errors if each.get("code") == _FULL), None)
        if error is None:
            return None
        others = (
            each for each in self.open if each.model == batch.model and each.number != batch.number
        )
        proven = sum(each.tokens for each in others if each.status not in _UNPROVEN)
        tried, named = proven + batch.tokens, _LIMIT.search(str(error.get("message")))
        room = proven + batch.tokens // 2
        if named is not None:
            most = int(int(named[1].replace(",", "")) * _SHARE)
            # What would have fitted met batches of others, or is more than it seems.
            room = most if tried > most else max(most // 2, tried * 3 // 4)
        # What it has taken at one time it takes again, whatever is counted otherwise there.
        best = max(
            (each.tokens for each in self._of(batch.model) if each.status not in _UNPROVEN),
            default=0,
        )
        return replace(batch, room=max(room, min(best, tried * 3 // 4)))

    def _of(self, model: str) -> list[Batch]:
        return [batch for batch in self._batches.values() if batch.model == model]


def errors_of(told: Json) -> list[Json]:
    """What the object of a batch that failed says is wrong with it."""
    errors = told.get("errors")
    data = errors.get("data") if isinstance(errors, Mapping) else None
    return [each for each in data if isinstance(each, Mapping)] if isinstance(data, list) else []


def _word(value: Any) -> str | None:
    """A text that can be shown and kept; None for anything else."""
    return (
        "".join(each if each.isprintable() else "?" for each in value[:LONGEST])
        if isinstance(value, str)
        else None
    )


def _number(value: Any) -> int | None:
    """A count, or a time in seconds since 1970; None for anything else."""
    return int(value) if type(value) in (int, float) and 0 <= value < MOST else None


def _counts(value: Any) -> dict[str, int] | None:
    """The counts of requests, of which some may be missing; None for no object of them."""
    if not isinstance(value, Mapping):
        return None
    found = {name: _number(value.get(name)) for name in COUNTS}
    return {name: count for name, count in found.items() if count is not None}


# How each part of a batch object is read.
_READ: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(KEPT_FIELDS, _number),
    "request_counts": _counts,
    "output_file_id": _word,
    "error_file_id": _word,
}
