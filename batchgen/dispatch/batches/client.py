"""The calls of the Batch API (reference: /docs/api-reference/batch); none creates a batch twice.

`POST /batches` is not idempotent, so each batch has a tag in its metadata: after a create of
unknown outcome, the server's list is searched for this tag before the create is retried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from batchgen.batch_format import URL_PREFIX
from batchgen.dispatch import Failure
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.batches.records import Batch
from batchgen.dispatch.batches.retrying import (
    EXCHANGE,
    BatchTransport,
    Check,
    Json,
    RequestRejectedError,
    RetryingClient,
    ServerUnresponsiveError,
)
from batchgen.dispatch.retry import Spent
from batchgen.errors import AccountError

__all__ = [
    "BatchClient",
    "BatchTransport",
    "Json",
    "RequestRejectedError",
    "ServerUnresponsiveError",
]

# Seconds without a byte that end the transfer of a file.
IDLE = 300.0

# A new batch may not be in the list yet: how often the list is searched for it, and the seconds
# between two searches.
SEARCHES = 2
BETWEEN_SEARCHES = 2.0

# Batches on a page of the list, the most that the API gives; and the seconds by which its clock may
# differ from ours.
PAGE_SIZE = 100
CLOCKS_APART = 24 * 3600.0

# A list with more pages counts as endless: the API makes at most 2,000 batches an hour.
MOST_PAGES = 1000

# Seconds after which the server deletes an input file that batchgen has not deleted: the most that
# OpenAI and Azure take, and longer than any batch. Azure keeps few files that never expire.
INPUT_KEPT = 30 * 24 * 3600

# The statuses of servers that do not take an expiry.
_NO_EXPIRY = (400, 422)

# The key of the tag in a batch's metadata.
TAG = "batchgen"

# Characters of an id that a server gives.
LONGEST_ID = 1000


class BatchClient(RetryingClient):
    """The Batch API of one server. Every call raises what RetryingClient.until_done raises."""

    # None once the server has refused it.
    _expires_after: int | None = INPUT_KEPT

    async def check_list(self) -> None:
        """Check that the server lists its batches. Raises RequestRejectedError if it does not."""
        await self._get("/batches?limit=1", _is_list)

    async def upload(self, path: Path, batch: Batch) -> str:
        """Send the file at `path` as the input file of a batch; returns the file's id."""
        try:
            return await self._upload(path, batch)
        except RequestRejectedError as rejected:
            if self._expires_after is None or rejected.failure.status not in _NO_EXPIRY:
                raise
            self._expires_after = None
            return await self._upload(path, batch)

    async def _upload(self, path: Path, batch: Batch) -> str:
        name, expires_after = f"{batch.tag}.jsonl", self._expires_after
        file = await self.until_done(
            lambda: self._transport.upload(path, name, idle=IDLE, expires_after=expires_after),
            None,
            _has_id,
        )
        return str(file["id"])

    async def delete_file(self, file: str) -> None:
        """Ask the server once to delete a file; it does so by itself in the end if it does not."""
        await self.once(
            lambda: self._transport.call("DELETE", f"/files/{_quoted(file)}"),
            EXCHANGE,
            _is_anything,
        )

    async def create(self, batch: Batch, metadata: Mapping[str, str]) -> Json:
        """Create a batch whose input file is uploaded, once; returns the batch object.

        Raises RequestRejectedError if it was not created, AccountError if that cannot be known.
        """
        order = {
            "input_file_id": batch.file,
            "endpoint": URL_PREFIX + batch.endpoint,
            "completion_window": "24h",
            "metadata": {TAG: batch.tag, **metadata},
        }
        spent = Spent()
        while True:
            # A stop must not interrupt it: the next run would have to search for the batch.
            result = await self.once(
                lambda: self._transport.call("POST", "/batches", order),
                EXCHANGE,
                _has_id,
                stoppable=False,
            )
            if not isinstance(result, Failure):
                return result
            await self.pause(result, spent)
            try:
                existing = await self.find(batch)
            except RequestRejectedError as rejected:
                raise self.unknown_batch_error(rejected) from None
            if existing is not None:
                return existing

    def unknown_batch_error(self, rejected: RequestRejectedError) -> AccountError:
        """The error for a create of unknown outcome whose outcome the server does not tell."""
        why = f"{self.host} does not say whether a batch was made ({rejected})"
        remedy = (
            "run again later, or with the key and project that its file was sent with,"
            " or give it up: batchgen cancel"
        )
        return AccountError(f"{why}; {remedy}")

    async def check_file(self, batch: Batch) -> None:
        """Check that the server has the input file of a batch.

        Raises RequestRejectedError if it does not.
        """
        await self._get(f"/files/{_quoted(batch.file)}", _has_id)

    async def find(self, batch: Batch) -> Json | None:
        """The batch object with the tag of a batch, or None if there certainly is none.

        Raises RequestRejectedError if that cannot be known.
        """
        for search in range(SEARCHES):
            if search:
                await self.sleep(BETWEEN_SEARCHES)
            existing = await self._search_list(batch)
            if existing is not None:
                return existing
        return None

    async def _search_list(self, batch: Batch) -> Json | None:
        after, seen_ids = "", set[str]()
        for _ in range(MOST_PAGES):
            page = await self._get(f"/batches?limit={PAGE_SIZE}{after}", _is_list)
            batches = [each for each in page["data"] if isinstance(each, Mapping) and _has_id(each)]
            for each in batches:
                metadata = each.get("metadata")
                tagged = isinstance(metadata, Mapping) and metadata.get(TAG) == batch.tag
                # A server that does not return metadata may still return the id of the input file.
                if tagged or each.get("input_file_id") == batch.file:
                    return each
            if page.get("has_more") is not True or _is_past(batches, batch.made_at - CLOCKS_APART):
                return None
            new = {each["id"] for each in batches} - seen_ids
            if not new:
                break
            seen_ids |= new
            after = f"&after={_quoted(batches[-1]['id'])}"
        message = "its list of batches has no end"
        raise RequestRejectedError(
            Failure(meaning="row", reason="invalid_response", message=message)
        )

    async def retrieve(self, batch: Batch) -> Json:
        """The batch object as it is now. Raises RequestRejectedError."""
        return await self._get(f"/batches/{_quoted(batch.id)}", _has_status)

    async def cancel(self, batch: Batch) -> None:
        """Ask the server to cancel a batch.

        Raises RequestRejectedError, also if the batch has ended.
        """

        async def ask() -> Reply | Failure:
            reply = await self._transport.call("POST", f"/batches/{_quoted(batch.id)}/cancel")
            if isinstance(reply, Failure) and reply.status == 409:
                # The batch has ended: a retry gets the same reply.
                return replace(reply, meaning="row")
            return reply

        await self.until_done(ask, EXCHANGE, _is_anything)

    async def download(self, file: str, path: Path) -> None:
        """Fetch a result file to `path`. Raises RequestRejectedError, OutputError."""

        async def fetch() -> Reply | Failure:
            failure = await self._transport.download(
                f"/files/{_quoted(file)}/content", path, idle=IDLE
            )
            return failure or Reply(headers={}, body=b"{}", parsed=({},))

        await self.until_done(fetch, None, _is_anything)

    async def _get(self, endpoint: str, check: Check) -> Json:
        return await self.until_done(lambda: self._transport.call("GET", endpoint), EXCHANGE, check)


def _quoted(name: str | None) -> str:
    """A server's id as a part of an address."""
    return quote(name or "", safe="")


def _is_anything(body: Json) -> bool:
    return True


def _has_id(body: Json) -> bool:
    """Whether an object has an id that an address can hold; `.` and `..` mean other addresses."""
    name = body.get("id")
    return (
        isinstance(name, str)
        and len(name) <= LONGEST_ID
        and name.isprintable()
        and name not in ("", ".", "..")
    )


def _has_status(body: Json) -> bool:
    return isinstance(body.get("status"), str)


def _is_list(body: Json) -> bool:
    return isinstance(body.get("data"), list)


def _is_past(page: Sequence[Json], since: float) -> bool:
    """Whether a page, sorted from the newest, ends with what was made before `since`."""
    made = [
        at if isinstance(at := each.get("created_at"), int | float) else math.inf for each in page
    ]
    return bool(made) and made[-1] < since and made == sorted(made, reverse=True)
