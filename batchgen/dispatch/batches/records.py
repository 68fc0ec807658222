"""A batch and its requests as the journal keeps them, and what the backend needs of a recorder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from batchgen.dispatch import Attempt, Outcome, ReplyReader
from batchgen.requests import Request

# The statuses that end a batch. A batch with any other status, also an unknown one, is polled
# again.
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})

# The fields of a batch object that are kept, beside its id and status.
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

# The keys in `Batch.seen` that batchgen adds itself: a user asked for the batch to be cancelled;
# when its result files first lacked answers, in seconds since 1970.
CANCEL_REQUESTED = "asked_to_cancel"
LACKING_SINCE = "lacking_since"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch of the Batch API, as the journal has it.

    number: its number in this job, from 1
    tag: a unique text in its metadata, by which it is found again
    endpoint, model: of all its requests; the endpoint such as /chat/completions
    made_at, closed_at: seconds since 1970; closed_at is None while it is open
    requests: how many it has
    tokens: about how many input tokens they send
    file, id: the server's ids of its input file and of itself, None until they are known
    status: the server's word; `made` and `uploaded` before it has one
    seen: what else the server last said of it (KEPT_FIELDS)
    room: for a batch that failed because its model's queue was full: the tokens that the queue may
        take
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

    @property
    def has_ended(self) -> bool:
        """Whether the server does nothing more for it."""
        return self.status in ENDED

    @property
    def cancel_requested(self) -> bool:
        """Whether a user asked for it to be cancelled."""
        return CANCEL_REQUESTED in self.seen

    @property
    def server_files(self) -> list[str]:
        """The server's ids of its input file and its result files, as far as they are known."""
        files = (self.file, self.seen.get("output_file_id"), self.seen.get("error_file_id"))
        return [file for file in files if file]

    @property
    def lacking_since(self) -> float | None:
        """When its result files first lacked answers; None if they never did."""
        since: float | None = self.seen.get(LACKING_SINCE)
        return since


def counts_of(batch: Batch) -> tuple[int, int]:
    """How many requests of a batch the server has answered, and how many of these failed.

    Some servers count the failed ones as completed, too: never more than there are.
    """
    counts = batch.seen.get("request_counts", {})
    failed: int = min(counts.get("failed", 0), batch.requests)
    return min(counts.get("completed", 0) + failed, batch.requests), failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One request of a batch.

    line: its line in the batch's input file, from 1
    request: what is sent; read back from the journal, it has only the part of the body that is
        needed to read its reply
    cost: the most that it may cost, in nano-dollars; None for a model without a price
    columns_digest: of the cells that the request was made of
    """

    line: int
    request: Request
    cost: int | None
    columns_digest: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberResult:
    """How a request of a batch ended; the batch counts as one attempt of it."""

    member: Member
    outcome: Outcome
    attempt: Attempt


class BatchRecorder(ReplyReader, Protocol):
    """Makes durable what happens to batches; an async method returns when that is on disk."""

    async def recent_batches(self) -> list[Batch]:
        """The open batches, and those closed in the last day, oldest first."""

    async def begin(self, endpoint: str, model: str) -> Batch:
        """Record a new batch, of which nothing is sent yet."""

    async def add_members(self, batch: Batch, members: Sequence[Member]) -> None:
        """Record that requests are in a batch. No other batch or call sends them from now on."""

    def take(self, request: Request) -> bytes:
        """Take a request that is batched or deferred out of this run; returns its cells' digest."""

    async def update(self, batch: Batch) -> None:
        """Record a batch as it is now."""

    async def forget(self, batch: Batch) -> None:
        """Delete a batch that does not exist at the server: its requests are pending again."""

    async def members(
        self, batch: Batch, lines: Collection[int] | None = None
    ) -> dict[int, Member]:
        """The members without an outcome, by line: those of `lines`, or (None) a first page."""

    async def record_results(self, results: Sequence[MemberResult]) -> list[MemberResult]:
        """Record how requests ended and take them out of their batch: their commit point.

        Returns those that no correction follows.
        """

    async def unsent(self, outcome: Outcome) -> None:
        """Record a request that ended without being sent."""

    async def close(self, batch: Batch) -> None:
        """Close a batch whose answers are on record; members without one are pending again."""
