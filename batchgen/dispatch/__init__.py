"""Request -> Outcome: what every backend takes and gives.

A backend takes threads (one request, or the turns of one conversation), sends what they yield, and hands each attempt and
outcome to the `Ledger`, which makes them durable before the backend goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from batchgen.errors import BatchgenError
from batchgen.kinds import Answer
from batchgen.requests import Request

# What a failure means for the job; see dispatch.retry for which signal is which.
Meaning = Literal["throttled", "transient", "timeout", "network", "row", "account"]

# Failures that another run tries again: they say nothing about the row itself.
PASSING: frozenset[Meaning] = frozenset({"throttled", "transient", "timeout", "network"})

# Replies from this size on (bytes) are read off the event loop.
LARGE_REPLY = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt brought no answer.

    `message` is redacted and at most 500 characters; `retry_after` (seconds) and `ceiling` (requests a minute) are what
    the reply's headers said; `unknown` says that the call may have been executed and billed all the same.
    """

    meaning: Meaning
    reason: str
    message: str
    status: int | None = None
    code: str | None = None
    request_id: str | None = None
    retry_after: float | None = None
    ceiling: float | None = None
    unknown: bool = False

    @property
    def passing(self) -> bool:
        """Whether it says nothing about the row itself, so that another run tries again."""
        return self.meaning in PASSING

    @property
    def outage(self) -> bool:
        """Whether a server that is down or cannot be reached fails like this."""
        return self.meaning in ("network", "timeout") or self.reason == "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call: `number` counts the row's calls in this run from 1, `started_at` is wall time in seconds since 1970,
    `wait` the seconds between ready and sent, `elapsed` those between sent and answered; `cost` in nano-dollars; `batch` is the
    number of the batch that it was in."""

    number: int
    started_at: float
    wait: float
    elapsed: float
    status: int | None = None
    code: str | None = None
    reason: str | None = None
    request_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: int | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended: an answer with the reply it was read from, or a failure; plain data.

    `reply` is the API's JSON as it came, pictures replaced by their path, sha256 and size; `elapsed` the seconds of the
    last call.
    """

    request: Request
    attempts: int
    elapsed: float
    answered_at: float
    answer: Answer | None = None
    reply: bytes = b""
    files: tuple[Mapping[str, Any], ...] = ()
    failure: Failure | None = None
    request_id: str | None = None
    cost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A reply after it was read and its pictures were stored."""

    answer: Answer
    reply: bytes
    files: tuple[Mapping[str, Any], ...] = ()


class Thread(Protocol):
    """The requests that must be sent one after the other: one of them, or a conversation's turns."""

    async def next(self) -> Request | None:
        """The next unanswered request, or None when the thread has ended or is blocked."""


class Receiver(Protocol):
    """What reads replies."""

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        """Read a reply and store its pictures. Raises kinds.Unreadable when it is no answer."""


class Ledger(Receiver, Protocol):
    """Where a backend leaves what happened; every method returns when it is durable."""

    async def reserve(self, request: Request, number: int, at: float, cost: int) -> None:
        """An attempt that may cost up to `cost` nano-dollars is about to be sent."""

    async def attempt(self, request: Request, attempt: Attempt) -> None:
        """An attempt failed and will be followed by another."""

    def abandoned(self, request: Request, attempt: Attempt) -> None:
        """A call was given up while it was in flight. Returns at once; it is durable when the run has ended."""

    async def outcome(self, outcome: Outcome, attempt: Attempt) -> None:
        """The last attempt of a request in this run; the commit point."""

    async def withdraw(self, request: Request) -> None:
        """A failure that was recorded in this run says nothing of its row: it is pending again."""

    async def unsent(self, outcome: Outcome) -> None:
        """A request that ended without another call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch of the Batch API, as the journal has it.

    tag: of its metadata, by which it is found again; made_at, closed_at: seconds since 1970
    requests: how many it has; tokens: about as many as they send
    file, id: the server's names for it, None until they are known; status: its words, `made` before
    seen: what else the server said of it last (LOOKED_AT)
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
LOOKED_AT = (
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
ASKED = "asked_to_cancel"


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
class Ending:
    """How a request of a batch ended, and the one call that the batch was for it."""

    member: Member
    outcome: Outcome
    attempt: Attempt


class BatchLedger(Receiver, Protocol):
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

    async def members(self, batch: Batch, lines: Collection[int] | None = None) -> dict[int, Member]:
        """What is left of a batch's requests, by line: those of `lines`, or (None) the first page of all."""

    async def ended(self, endings: Sequence[Ending]) -> None:
        """Requests of a batch ended; the commit point of all of them. They are in the batch no more."""

    async def unsent(self, outcome: Outcome) -> None:
        """A request that ended without another call."""

    async def close(self, batch: Batch) -> None:
        """All that a batch brought is on record: what is left of its requests is to be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The numbers of a run: ceilings (None: none), seconds, and how many more rows may fail before the job stops.

    `own_model` and `own_tier` say that rows choose them (a template or an axis): a wrong one is then the row's fault, not
    the job's. `accept` are the finish reasons that count as success.
    """

    concurrency: int
    attempts: int
    max_wait: float
    timeout: float
    give_up: float
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    images_per_minute: float | None = None
    max_time: float | None = None
    failures_left: int | None = None
    own_model: bool = False
    own_tier: bool = False
    accept: frozenset[str] = frozenset()


class Backend(Protocol):
    """Something that turns requests into outcomes: the online API, the Batch API, later other machines."""

    async def run(self, threads: AsyncIterator[Thread]) -> BatchgenError | None:
        """Work until the threads end or something stops the job; returns what stopped it."""

    def stop(self, why: BatchgenError, *, drain: float | None = None) -> None:
        """No new work; what is in flight has `drain` seconds (None: its own deadlines) to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a run found out of the server's limits, a minute; None where it did not: the requests that got through when it
    throttled, and the requests and tokens that its headers name."""

    requests: float | None = None
    named_requests: float | None = None
    named_tokens: float | None = None


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a progress line shows while a backend runs; updated in place by the backend. `away` are the requests that batches
    have answered which have not ended, `held` says that some wait for room in a queue, or for money that batches set aside."""

    done: int = 0
    away: int = 0
    held: bool = False
    incomplete: int = 0
    failed: int = 0
    in_flight: int = 0
    waiting_for: str = ""
    cost: int = 0
    learned: Learned = field(default_factory=Learned)
