"""How many input tokens the queue of a model takes, learned from what it accepts and refuses.

The API limits the input tokens that all batches of an account may have in a model's queue at one
time (its guide on rate limits). It accepts a batch that exceeds the limit, and fails it soon after;
it does not tell the limit in advance, and only some servers name it in the error's message.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from batchgen.dispatch.batches.records import Batch
from batchgen.dispatch.batches.registry import GIVEN_UP
from batchgen.dispatch.batches.retrying import Json

# A batch with one of these statuses was not accepted by the queue yet, or never: it proves nothing
# about the limit.
_UNPROVEN = frozenset({"made", "uploaded", "validating", "failed", "unknown", GIVEN_UP})

# The error code of a batch that exceeds the limit, and the limit in its message.
_EXCEEDED = "token_limit_exceeded"
_LIMIT = re.compile(r"\blimit: ?(\d[\d,]{0,15})\b", re.IGNORECASE)

# The share of a named limit that is used: the tokens of a request are only estimated.
_SHARE = 0.9


def has_room(batches: Collection[Batch], model: str, tokens: int, unsent: int) -> bool:
    """Whether the queue of a model takes more tokens.

    batches: the open and recent batches of the job
    model: whose queue it is
    tokens: to be added
    unsent: tokens that wait in input files, and will be in the queue too

    Until the queue has refused a batch there is no limit. After that the limit is what was
    concluded then, plus half of what the queue has accepted since, so that it grows again. A batch
    that would be alone is always tried.
    """
    own = _of(batches, model)
    refused = max((batch for batch in own if batch.room is not None), key=_number, default=None)
    if refused is None:
        return True
    accepted = sum(
        each.tokens for each in own if each.number > refused.number and each.status not in _UNPROVEN
    )
    room = (refused.room or 0) + accepted // 2
    queued = unsent + sum(each.tokens for each in own if each.closed_at is None)
    return not queued or queued + tokens <= room


def with_room(batches: Collection[Batch], batch: Batch, errors: Sequence[Json]) -> Batch | None:
    """A batch that failed because its queue was full, with the room there may be, or None.

    batches: the open and recent batches of the job
    batch: one that failed
    errors: of its batch object
    """
    error = next((each for each in errors if each.get("code") == _EXCEEDED), None)
    if error is None:
        return None
    own = _of(batches, batch.model)
    proven = sum(
        each.tokens
        for each in own
        if each.closed_at is None and each.number != batch.number and each.status not in _UNPROVEN
    )
    tried, limit = proven + batch.tokens, _LIMIT.search(str(error.get("message")))
    room = proven + batch.tokens // 2
    if limit is not None:
        usable = int(int(limit[1].replace(",", "")) * _SHARE)
        # It failed below the named limit: batches of others are in the queue, or the tokens are
        # estimated too low.
        room = usable if tried > usable else max(usable // 2, tried * 3 // 4)
    # What the queue accepted once it accepts again, however the tokens are estimated.
    largest = max((each.tokens for each in own if each.status not in _UNPROVEN), default=0)
    return replace(batch, room=max(room, min(largest, tried * 3 // 4)))


def _of(batches: Collection[Batch], model: str) -> list[Batch]:
    return [batch for batch in batches if batch.model == model]


def _number(batch: Batch) -> int:
    return batch.number
