"""Request -> Outcome: what every backend takes and gives.

A backend takes threads (one request, or the turns of one conversation), sends what they yield, and hands each attempt and
outcome to the `Ledger`, which makes them durable before the backend goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from batchgen.errors import BatchgenError
from batchgen.replies import Answer
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
    may_be_billed: bool = False

    @property
    def is_passing(self) -> bool:
        """Whether it says nothing about the row itself, so that another run tries again."""
        return self.meaning in PASSING

    @property
    def is_outage(self) -> bool:
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


class ReplyReader(Protocol):
    """What reads replies."""

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        """Read a reply and store its pictures. Raises kinds.UnreadableReplyError when it is no answer."""


class Recorder(ReplyReader, Protocol):
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
    answered_remotely: int = 0
    deferred: bool = False
    incomplete: int = 0
    failed: int = 0
    in_flight: int = 0
    waiting_for: str = ""
    cost: int = 0
    learned: Learned = field(default_factory=Learned)
