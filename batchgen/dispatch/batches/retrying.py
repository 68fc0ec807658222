"""Calls to one server, each retried until it works or certainly cannot; a stop ends every wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from batchgen.dispatch import Failure, Progress, Wait
from batchgen.dispatch.api.errors import account_error
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.api.replies import Transport
from batchgen.dispatch.retry import LONGEST_WAIT, Policy, Spent
from batchgen.errors import AccountError, BatchgenError, LimitError

T = TypeVar("T")
Json = Mapping[str, Any]
Call = Callable[[], Awaitable[Reply | Failure]]

# Whether a reply's JSON has what the call needs.
Check = Callable[[Json], bool]

# Seconds for one exchange of small JSON.
EXCHANGE = 60.0


class BatchTransport(Transport, Protocol):
    """Makes single calls: dispatch.api.client.Client.

    Raises CancelledError, and OutputError if it writes a file.
    """

    async def call(
        self, method: Literal["GET", "POST", "DELETE"], endpoint: str, body: Json | None = None
    ) -> Reply | Failure:
        """Make one exchange of small JSON."""

    async def upload(
        self, path: Path, name: str, *, idle: float, expires_after: int | None = None
    ) -> Reply | Failure:
        """Send a file for the purpose batch.

        idle: seconds without a byte that end it
        expires_after: seconds after which the server deletes it (None: as the server likes)
        """

    async def download(self, endpoint: str, path: Path, *, idle: float) -> Failure | None:
        """Fetch a file into one at `path`; `idle`: seconds without a byte that end it."""

    def parse(self, data: bytes) -> Any:
        """The JSON of the server's bytes, without the key. Raises ValueError, RecursionError."""


class RequestRejectedError(Exception):
    """The server refuses a call, and would refuse every retry."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ServerUnresponsiveError(LimitError):
    """A server that has answered before now fails, cannot be reached, or asks for a long wait."""


class RetryingClient:
    """Retries calls to one server.

    transport: makes each single call
    host: the server's name for messages
    attempts: how often a call is made at most; throttled calls do not count
    max_wait: the longest wait before a retry, in seconds
    progress: shows each wait while it lasts
    """

    def __init__(
        self,
        transport: BatchTransport,
        *,
        host: str,
        attempts: int,
        max_wait: float,
        progress: Progress,
    ) -> None:
        self.host = host
        self._transport, self._progress = transport, progress
        self._policy = Policy(attempts=attempts, max_wait=max_wait)
        self._stopped = asyncio.Event()
        self._stop_reason: BatchgenError | None = None
        self._has_answered = False

    def stop(self, why: BatchgenError) -> None:
        """End every wait with `why`. Only the first reason counts."""
        self._stop_reason = self._stop_reason or why
        self._stopped.set()

    @property
    def stop_reason(self) -> BatchgenError | None:
        """Why it was stopped, or None."""
        return self._stop_reason

    def raise_if_stopped(self) -> None:
        """Raises the reason of a stop, if there was one."""
        if self._stop_reason is not None:
            raise self._stop_reason

    async def sleep(self, seconds: float, cause: str = "", reason: str = "") -> None:
        """Wait, and show a `cause` and a `reason` (see Wait) meanwhile.

        Raises the reason of a stop.
        """
        progress, before = self._progress, self._progress.wait
        if cause:
            progress.wait = Wait(cause=cause, reason=reason, until=time.time() + seconds)
        try:
            await self._unless_stopped(asyncio.sleep(seconds))
        finally:
            progress.wait = before

    async def until_done(self, call: Call, seconds: float | None, check: Check) -> Json:
        """Make a call, and retry it, until its reply is JSON that passes `check`.

        Raises RequestRejectedError if the server refuses it, AccountError or
        ServerUnresponsiveError if the run cannot go on, and the reason of a stop. `seconds` bound
        each attempt (None: no bound).
        """
        spent = Spent()
        while True:
            result = await self.once(call, seconds, check)
            if not isinstance(result, Failure):
                return result
            await self.pause(result, spent)

    async def once(
        self, call: Call, seconds: float | None, check: Check, *, stoppable: bool = True
    ) -> Json | Failure:
        """Make a call once: the JSON of its reply, or a failure.

        call: makes the call
        seconds: how long it may take (None: no bound)
        check: whether the reply has what is needed
        stoppable: whether a stop ends it
        """
        try:
            async with asyncio.timeout(seconds):
                reply = await (self._unless_stopped(call()) if stoppable else call())
        except TimeoutError:
            message = f"no whole answer within {seconds:g} s"
            return Failure(meaning="timeout", reason="timeout", message=message, may_be_billed=True)
        if isinstance(reply, Failure):
            self._has_answered = self._has_answered or reply.status is not None
            return reply
        self._has_answered = True
        body = reply.parsed[0] if reply.parsed else None
        if isinstance(body, Mapping) and check(body):
            return body
        return Failure(
            meaning="transient",
            reason="invalid_response",
            message="the reply does not have the expected JSON",
            may_be_billed=True,
        )

    async def pause(self, failure: Failure, spent: Spent) -> None:
        """Wait before the next attempt.

        Raises what `until_done` raises if there must not be one.
        """
        if failure.meaning == "account" and failure.reason != "model":
            raise account_error(failure, self.host, "")
        if not failure.is_passing:
            raise RequestRejectedError(failure)
        if (failure.retry_after or 0) > LONGEST_WAIT:
            raise ServerUnresponsiveError(
                f"{self.host} asks to wait {failure.retry_after:.0f} s; run again later"
            )
        throttled = failure.meaning == "throttled"
        spent.throttles += throttled
        spent.attempts += not throttled
        if not self._policy.should_retry(failure, spent):
            raise self._no_reply(failure)
        cause, reason = (
            ("Retry-After", "the server asked for it with Retry-After")
            if failure.retry_after
            else ("retry", f"{self.host} fails ({failure.message}), and is asked again")
        )
        await self.sleep(self._policy.delay(failure, spent), cause, reason)

    def _no_reply(self, failure: Failure) -> BatchgenError:
        if self._has_answered:
            return ServerUnresponsiveError(
                f"{self.host} keeps failing ({failure.message}); run again later"
            )
        return AccountError(
            f"{self.host} never answered ({failure.message});"
            " check provider.base_url and the network"
        )

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        """The result of `work`. Raises the reason of a stop that comes first."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            for each in (task, stopped):
                each.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
        self.raise_if_stopped()
        raise AssertionError("stopped for no reason")
