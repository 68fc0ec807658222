"""The Batch API's calls, each tried until it works or it is certain that it will not; nothing is ever created twice.

`POST /batches` is not idempotent, so each batch has a tag in its metadata: after a call of unknown outcome, a batch with
this tag is looked for before another is made.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import quote

from batchgen.batch_format import URL_PREFIX
from batchgen.dispatch import Failure
from batchgen.dispatch.api.errors import account_error
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.api.replies import Transport
from batchgen.dispatch.batches.records import Batch
from batchgen.dispatch.retry import LONGEST_WAIT, Policy, Spent
from batchgen.errors import AccountError, BatchgenError, LimitError

T = TypeVar("T")
Json = Mapping[str, Any]
Call = Callable[[], Awaitable[Reply | Failure]]
Sound = Callable[[Json], bool]

# Seconds for one exchange of small JSON, and without a byte of a file.
EXCHANGE = 60.0
IDLE = 300.0

# A batch that was created a moment ago may not be in the list yet: so often it is looked for, with so many seconds between.
SEARCHES = 2
BETWEEN_SEARCHES = 2.0

# Batches on a page of the list, the most that the API gives; and seconds by which its clock may be behind this one.
LISTED = 100
CLOCKS_APART = 24 * 3600.0

# Pages after which a list has no end: the API makes at most 2,000 batches an hour.
MOST_PAGES = 1000

# A key of the metadata.
TAG = "batchgen"

# Characters of a name that a server gives to something.
LONGEST_NAME = 1000


class BatchTransport(Transport, Protocol):
    """What makes single calls: dispatch.transport.Client. Raises only CancelledError, and OutputError where it writes."""

    async def call(
        self, method: Literal["GET", "POST"], endpoint: str, body: Json | None = None
    ) -> Reply | Failure:
        """One exchange of small JSON."""

    async def upload(self, path: Path, name: str, *, idle: float) -> Reply | Failure:
        """Send a file, for the purpose batch, under a name."""

    async def download(self, endpoint: str, path: Path, *, idle: float) -> Failure | None:
        """Fetch a file into one at `path`."""

    def without_key(self, data: bytes) -> bytes:
        """What came from the server, without the key."""


class RequestRejectedError(Exception):
    """The server will not do it, however often it is asked."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ServerUnresponsiveError(LimitError):
    """A server that has answered before fails, is not reached any more, or asks to be left alone for long."""


class BatchClient:
    """The Batch API of one server. `stop` ends everything that waits; what is raised then is the reason of the stop."""

    def __init__(
        self, client: BatchTransport, *, host: str, attempts: int, max_wait: float
    ) -> None:
        self._client, self._host = client, host
        self._policy = Policy(attempts=attempts, max_wait=max_wait)
        self._stopped = asyncio.Event()
        self._why: BatchgenError | None = None
        self._heard = False

    def stop(self, why: BatchgenError) -> None:
        """Wait for nothing any more. The first reason stays."""
        self._why = self._why or why
        self._stopped.set()

    @property
    def why(self) -> BatchgenError | None:
        """Why it was stopped, or None."""
        return self._why

    def go_on(self) -> None:
        """Raises the reason of a stop, if there was one."""
        if self._why is not None:
            raise self._why

    async def sleep(self, seconds: float) -> None:
        """Wait. Raises the reason of a stop."""
        await self._unless_stopped(asyncio.sleep(seconds))

    async def probe(self) -> None:
        """See that the server lists its batches. Raises RequestRejectedError where it does not."""
        await self._ask("GET", "/batches?limit=1", _is_list)

    async def upload(self, path: Path, batch: Batch) -> str:
        """The file at `path` as the input of a batch; returns the file's id. Raises RequestRejectedError."""
        told = await self._until_done(
            lambda: self._client.upload(path, f"{batch.tag}.jsonl", idle=IDLE), None, _has_id
        )
        return str(told["id"])

    async def create(self, batch: Batch, metadata: Mapping[str, str]) -> Json:
        """Create a batch whose file is there, once: the batch object. Raises RequestRejectedError: then it was not created; AccountError
        where nobody knows whether it was."""
        order = {
            "input_file_id": batch.file,
            "endpoint": URL_PREFIX + batch.endpoint,
            "completion_window": "24h",
            "metadata": {TAG: batch.tag, **metadata},
        }
        spent = Spent()
        while True:
            # A stop does not cut it off: then it would have to be looked for.
            told = await self._once(
                lambda: self._client.call("POST", "/batches", order), EXCHANGE, _has_id, cut=False
            )
            if not isinstance(told, Failure):
                return told
            await self._pause(told, spent)
            try:
                found = await self.find(batch)
            except RequestRejectedError as refused:
                raise self.unlisted(refused) from None
            if found is not None:
                return found

    def unlisted(self, refused: RequestRejectedError) -> AccountError:
        """What stops a job of which nobody knows whether it has another batch."""
        why = f"{self._host} does not say whether a batch was made ({refused})"
        remedy = "run again later, or with the key and project that its file was sent with, or give it up: batchgen cancel"
        return AccountError(f"{why}; {remedy}")

    async def has_file(self, batch: Batch) -> None:
        """See that the server has the file of a batch. Raises RequestRejectedError where it has not."""
        await self._ask("GET", f"/files/{_part(batch.file)}", _has_id)

    async def find(self, batch: Batch) -> Json | None:
        """The batch object with the tag of a batch, or None where there certainly is none. Raises RequestRejectedError where that cannot be
        known."""
        for look in range(SEARCHES):
            if look:
                await self.sleep(BETWEEN_SEARCHES)
            found = await self._look_for(batch)
            if found is not None:
                return found
        return None

    async def _look_for(self, batch: Batch) -> Json | None:
        after, known = "", set[str]()
        for _ in range(MOST_PAGES):
            page = await self._ask("GET", f"/batches?limit={LISTED}{after}", _is_list)
            found = [each for each in page["data"] if isinstance(each, Mapping) and _has_id(each)]
            for each in found:
                metadata = each.get("metadata")
                tagged = isinstance(metadata, Mapping) and metadata.get(TAG) == batch.tag
                # A server that leaves out what it was told of a batch may still say of which file it is.
                if tagged or each.get("input_file_id") == batch.file:
                    return each
            if page.get("has_more") is not True or _passed(found, batch.made_at - CLOCKS_APART):
                return None
            new = {each["id"] for each in found} - known
            if not new:
                break
            known |= new
            after = f"&after={_part(found[-1]['id'])}"
        message = "its list of batches has no end"
        raise RequestRejectedError(
            Failure(meaning="row", reason="invalid_response", message=message)
        )

    async def look(self, batch: Batch) -> Json:
        """The batch object as it is now. Raises RequestRejectedError."""
        return await self._ask("GET", f"/batches/{_part(batch.id)}", _has_status)

    async def cancel(self, batch: Batch) -> None:
        """Ask for a batch to be cancelled. Raises RequestRejectedError, also where it has ended."""

        async def ask() -> Reply | Failure:
            told = await self._client.call("POST", f"/batches/{_part(batch.id)}/cancel")
            if isinstance(told, Failure) and told.status == 409:
                # It has ended, and no other try finds it going on.
                return replace(told, meaning="row")
            return told

        await self._until_done(ask, EXCHANGE, _is_any)

    async def download(self, file: str, path: Path) -> None:
        """Fetch a file of answers. Raises RequestRejectedError, OutputError."""

        async def fetch() -> Reply | Failure:
            failure = await self._client.download(f"/files/{_part(file)}/content", path, idle=IDLE)
            return failure or Reply(headers={}, body=b"{}")

        await self._until_done(fetch, None, _is_any)

    async def _ask(self, method: Literal["GET", "POST"], endpoint: str, sound: Sound) -> Json:
        return await self._until_done(lambda: self._client.call(method, endpoint), EXCHANGE, sound)

    async def _until_done(self, call: Call, seconds: float | None, sound: Sound) -> Json:
        spent = Spent()
        while True:
            told = await self._once(call, seconds, sound)
            if not isinstance(told, Failure):
                return told
            await self._pause(told, spent)

    async def _once(
        self, call: Call, seconds: float | None, sound: Sound, *, cut: bool = True
    ) -> Json | Failure:
        """What one call brings within so many seconds: JSON that is `sound`, or a failure."""
        try:
            async with asyncio.timeout(seconds):
                reply = await (self._unless_stopped(call()) if cut else call())
        except TimeoutError:
            message = f"no whole answer within {seconds:g} s"
            return Failure(meaning="timeout", reason="timeout", message=message, may_be_billed=True)
        if isinstance(reply, Failure):
            self._heard = self._heard or reply.status is not None
            return reply
        self._heard = True
        try:
            told = json.loads(reply.body)
        except (ValueError, RecursionError):
            told = None
        if isinstance(told, Mapping) and sound(told):
            return told
        message = "the reply is not what was asked for"
        return Failure(
            meaning="transient", reason="invalid_response", message=message, may_be_billed=True
        )

    async def _pause(self, failure: Failure, spent: Spent) -> None:
        """Wait before the next try. Raises what ends the run where there is none, and RequestRejectedError."""
        if failure.meaning == "account" and failure.reason != "model":
            raise account_error(failure, self._host, "")
        if not failure.is_passing:
            raise RequestRejectedError(failure)
        if (failure.retry_after or 0) > LONGEST_WAIT:
            raise ServerUnresponsiveError(
                f"{self._host} asks to wait {failure.retry_after:.0f} s; run again later"
            )
        throttled = failure.meaning == "throttled"
        spent.throttles += throttled
        spent.attempts += not throttled
        if not self._policy.should_retry(failure, spent):
            raise self._silent(failure)
        await self.sleep(self._policy.delay(failure, spent))

    def _silent(self, failure: Failure) -> BatchgenError:
        if self._heard:
            return ServerUnresponsiveError(
                f"{self._host} keeps failing ({failure.message}); run again later"
            )
        return AccountError(
            f"{self._host} never answered ({failure.message}); check provider.base_url and the network"
        )

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        """What `work` brings, unless a stop comes first."""
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
        self.go_on()
        raise AssertionError("stopped for no reason")


def _part(name: str | None) -> str:
    """A server's name for something as a part of an address."""
    return quote(name or "", safe="")


def _is_any(told: Json) -> bool:
    return True


def _has_id(told: Json) -> bool:
    """Whether it is an object that can be asked for again: no address has room for the name of a folder, or of none."""
    found = told.get("id")
    return (
        isinstance(found, str)
        and len(found) <= LONGEST_NAME
        and found.isprintable()
        and found not in ("", ".", "..")
    )


def _has_status(told: Json) -> bool:
    return isinstance(told.get("status"), str)


def _is_list(told: Json) -> bool:
    return isinstance(told.get("data"), list)


def _passed(page: Sequence[Json], since: float) -> bool:
    """Whether a page, of a list that begins with the newest, leads to what was made before `since`."""
    made = [
        at if isinstance(at := each.get("created_at"), int | float) else math.inf for each in page
    ]
    return bool(made) and made[-1] < since and made == sorted(made, reverse=True)
