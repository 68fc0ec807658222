"""Request -> Outcome: the types that every backend takes and returns.

A backend takes threads (one request, or the turns of one conversation), sends their requests, and
hands each attempt and outcome to the `Recorder`, which makes it durable before the backend goes on.

- `api`            one exchange with the server, and what the reply means
- `limits`         when a call may be sent
- `online`         requests sent one by one
- `batches`        requests sent in files, by the Batch API
- `retry`          when a failed attempt is repeated
- `failure_limit`  when failed rows stop a run
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from batchgen.errors import BatchgenError
from batchgen.replies import Answer, Usage
from batchgen.requests import Request

# What a failure means for the job; dispatch.api.errors decides which signal means what.
Meaning = Literal["throttled", "transient", "timeout", "network", "row", "account"]

# Failures that another run retries: they say nothing about the row itself.
PASSING: frozenset[Meaning] = frozenset({"throttled", "transient", "timeout", "network"})

# Replies of at least this many bytes are parsed in a thread: they would block the event loop.
LARGE_REPLY = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt brought no answer.

    message: redacted, at most 500 characters.
    retry_after: seconds to wait, from the reply's headers.
    ceiling: requests a minute that the reply's headers name as the limit.
    may_be_billed: the server may have executed the call although no answer came.
    usage: what the reply says that it took, although it holds no answer.
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
    usage: Usage | None = None

    @property
    def is_passing(self) -> bool:
        """Whether it says nothing about the row itself, so that another run retries it."""
        return self.meaning in PASSING

    @property
    def is_outage(self) -> bool:
        """Whether it is what a server that is down or unreachable causes."""
        return self.meaning in ("network", "timeout") or self.reason == "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call.

    number: counts the row's calls in this run, from 1.
    started_at: wall-clock time in seconds since 1970.
    wait: seconds between ready and sent.
    elapsed: seconds between sent and answered.
    cost: nano-dollars; None if unknown.
    batch: the number of the batch that the request was in.
    """

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
    """How a request ended: an answer with its reply, or a failure. Plain data.

    attempts: calls in this run.
    elapsed: seconds that the last call took.
    answered_at: wall-clock time in seconds since 1970.
    reply: the API's JSON, with each picture replaced by its path, SHA-256 and size.
    files: path, SHA-256 and size of each stored picture.
    cost: nano-dollars of the last call; None if unknown.
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
    """A reply that was read, after its pictures were stored."""

    answer: Answer
    reply: bytes
    files: tuple[Mapping[str, Any], ...] = ()


class Thread(Protocol):
    """Requests that must be sent in order: a single one, or the turns of a conversation."""

    async def next(self) -> Request | None:
        """The next request: an unanswered one, or the correction of an answer that does not fit.

        None when the thread has ended or is blocked.
        """


class ReplyReader(Protocol):
    """Reads a reply: its answer, and its pictures, which become files."""

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        """Read a reply (`body` is its parsed JSON) and store its pictures.

        Raises replies.UnreadableReplyError when it contains no answer.
        """


class Recorder(ReplyReader, Protocol):
    """Records what happened; a method returns when the record is durable."""

    async def reserve(self, request: Request, number: int, at: float, cost: int) -> None:
        """Record that attempt `number` may cost up to `cost` nano-dollars, before it is sent."""

    async def attempt(self, request: Request, attempt: Attempt) -> None:
        """Record a failed attempt, after which this run or a later one makes another."""

    def abandoned(self, request: Request, attempt: Attempt) -> None:
        """Record a call that was cancelled in flight. Returns at once; durable at the run's end."""

    async def outcome(self, outcome: Outcome, attempt: Attempt) -> bool:
        """Record how a request ended, with its last attempt: the commit point.

        Returns whether its thread's next request is its correction: it is sent again, with why its
        answer does not fit.
        """

    async def withdraw(self, request: Request) -> None:
        """Take back a failure recorded in this run that was not the row's: it is pending again."""

    async def unsent(self, outcome: Outcome) -> None:
        """Record a request that ended without another call."""


class Backend(Protocol):
    """Turns requests into outcomes: the online API, the Batch API, later other machines."""

    async def run(self, threads: AsyncIterator[Thread]) -> BatchgenError | None:
        """Work until the threads end or something stops the job; returns what stopped it."""

    def stop(self, why: BatchgenError, *, drain: float | None = None) -> None:
        """Begin nothing new; calls in flight have `drain` seconds (None: their own deadlines)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a run learned about the server's limits, per minute; None for what it did not learn.

    requests: how many got through while the server throttled.
    named_requests, named_tokens: the limits that its headers name.
    """

    requests: float | None = None
    named_requests: float | None = None
    named_tokens: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What holds the next call back.

    cause: in a word or two, the same while the cause is the same: `Retry-After`, `outage`.
    reason: in a clause that says all: `the server asked for it with Retry-After`.
    until: when it ends, in seconds since 1970; None if nobody knows.
    is_pace: it only makes the run slower: other calls go on meanwhile.
    """

    cause: str
    reason: str
    until: float | None = None
    is_pace: bool = False


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a progress line shows while a run goes on; updated in place.

    The backend sets:

    done, incomplete, failed: requests that ended in this run.
    answered_remotely: requests answered within batches that have not ended.
    deferred: some requests wait for room in a queue, or for money that batches set aside.
    in_flight: calls that are sent and not yet recorded.
    wait: what holds the next call back; None for nothing.
    stopping: no more calls begin; the run waits for those in flight.
    cost: nano-dollars that this run spent.
    learned: what is known of the server's limits.

    The session sets:

    to_send: requests that this run has to send, as it began.
    spent_before, cap: of the cap on money of which the least is left, what counts against it from
        before the run, and the cap, in nano-dollars; None without a cap.
    rate: requests that end in a minute, lately; None when too little is known.
    silent_for: seconds since the last request ended, or since the run began.
    """

    done: int = 0
    answered_remotely: int = 0
    deferred: bool = False
    incomplete: int = 0
    failed: int = 0
    in_flight: int = 0
    wait: Wait | None = None
    stopping: bool = False
    cost: int = 0
    learned: Learned = field(default_factory=Learned)
    to_send: int = 0
    spent_before: int = 0
    cap: int | None = None
    rate: float | None = None
    silent_for: float = 0.0

    @property
    def ended(self) -> int:
        """Requests that need nothing more from this run."""
        return self.done + self.incomplete + self.failed + self.answered_remotely

    @property
    def left(self) -> int:
        """Requests that this run still has to end."""
        return max(0, self.to_send - self.ended)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the present rate; None when that is not known."""
        return self.left / self.rate * 60 if self.rate else None
