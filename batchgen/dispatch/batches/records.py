"""A batch and its requests as the journal keeps them, and what the backend needs of a recorder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from batchgen.dispatch import Attempt, Outcome, ReplyReader
from batchgen.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch of the Batch API, as the journal has it.

    tag: of its metadata, by which it is found again; made_at, closed_at: seconds since 1970
    requests: how many it has; tokens: about as many as they send
    file, id: the server's names for it, None until they are known; status: its words, `made` before
    seen: what else the server said of it last (KEPT_FIELDS)
    room: it failed because the queue of its model was full; so many tokens may be in it
    """

    number: int
    tag: str
    endpoint: str
    model: str
    made_at: float
    requests: int = 0
    tokens: int = 0
    file: str | None = None
    id: str | None = None
    status: str = "made"
    seen: Mapping[str, Any] = field(default_factory=dict)
    room: int | None = None
    closed_at: float | None = None


# The statuses with which a batch has ended; every other one, known or not, is looked at again.
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


# What is kept of a batch object, beside its id and status.
KEPT_FIELDS = (
    "created_at",
    "expires_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelled_at",
    "request_counts",
    "output_file_id",
    "error_file_id",
)


# What is said of a batch that this program was asked to cancel, beside what the server says.
CANCEL_REQUESTED = "asked_to_cancel"


def counts_of(batch: Batch) -> tuple[int, int]:
    """How many requests of a batch the server has answered, and how many of these failed."""
    counts = batch.seen.get("request_counts", {})
    failed: int = counts.get("failed", 0)
    return counts.get("completed", 0) + failed, failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One request of a batch: its line in the batch's file, from 1, and the highest it may cost, in nano-dollars. Of one that
    is read back from the journal, the request's body is only what its reply is read by."""

    line: int
    request: Request
    cost: int | None
    columns_digest: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberResult:
    """How a request of a batch ended, and the one call that the batch was for it."""

    member: Member
    outcome: Outcome
    attempt: Attempt


class BatchRecorder(ReplyReader, Protocol):
    """Where the Batch API's backend leaves what happened; every method returns when it is durable."""

    async def batches(self) -> list[Batch]:
        """The batches that are not closed, and those closed in the last day, oldest first."""

    async def begin(self, endpoint: str, model: str) -> Batch:
        """A new batch, of which nothing was sent."""

    async def enlist(self, batch: Batch, members: Sequence[Member]) -> None:
        """These requests are in the batch, and nowhere else from now on."""

    def withhold(self, request: Request) -> bytes:
        """A request leaves this run, in a batch or not at all: the digest of the cells that it was made of."""

    async def note(self, batch: Batch) -> None:
        """A batch as it is now."""

    async def forget(self, batch: Batch) -> None:
        """A batch that does not exist at the server: its requests are to be sent again."""

    async def members(
        self, batch: Batch, lines: Collection[int] | None = None
    ) -> dict[int, Member]:
        """What is left of a batch's requests, by line: those of `lines`, or (None) the first page of all."""

    async def ended(self, endings: Sequence[MemberResult]) -> None:
        """Requests of a batch ended; the commit point of all of them. They are in the batch no more."""

    async def unsent(self, outcome: Outcome) -> None:
        """A request that ended without another call."""

    async def close(self, batch: Batch) -> None:
        """All that a batch brought is on record: what is left of its requests is to be sent again."""
