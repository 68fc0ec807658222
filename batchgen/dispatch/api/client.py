"""One exchange through the openai client: a Request in, the reply's bytes or a Failure out.

The client never retries, never follows a redirect and never holds more of a reply than its limit;
files are transferred in pieces. Every exception of the libraries becomes a Failure (causes.py);
only an OutputError, for a file on this machine that cannot be read or written, is raised.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx2
import openai

from batchgen.disk import translating_errors
from batchgen.dispatch import Failure
from batchgen.dispatch.api.causes import failure_of
from batchgen.dispatch.api.errors import classify
from batchgen.dispatch.api.files import Multipart, UploadFile, multipart, write_pieces
from batchgen.dispatch.api.http import HttpTransport, Reply, Route
from batchgen.errors import OutputError
from batchgen.job import Connection
from batchgen.requests import Request, RequestError

_KEY_LIKE = re.compile(r"\b(sk-|Bearer\s+)[A-Za-z0-9_\-.*]{8,}")


class Client:
    """The openai client for one provider; use as an async context manager.

    The key is sent in the Authorization header and is kept nowhere else.
    """

    def __init__(
        self, connection: Connection, key: str | None, *, connections: int, direct: bool = False
    ) -> None:
        """Prepare the client; nothing is sent.

        connection: the provider's address and headers.
        key: the API key; None for a server without keys.
        connections: the most that are open at one time.
        direct: ignore the proxies and certificates that the environment names.

        Raises InputError when the environment's proxy or certificates cannot be used.
        """
        self._key = key
        self._http = HttpTransport(connection.base_url, connections=connections, direct=direct)
        headers = {
            **_suppressed_headers(connection),
            **connection.headers,
            "Accept-Encoding": "gzip, deflate",
        }
        # Part of each request: without a key there must be no such header, and
        # OPENAI_CUSTOM_HEADERS must not name another key.
        self._authorization: dict[str, Any] = {
            "Authorization": openai.omit if key is None else f"Bearer {key}"
        }
        self._openai = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=connection.base_url,
            organization=connection.organization,
            project=connection.project,
            max_retries=0,
            # Each attempt has a deadline of its own.
            timeout=None,
            default_headers=headers,
            http_client=httpx2.AsyncClient(transport=self._http),
        )
        self._routes: dict[str, Route] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._openai.close()

    async def post(self, request: Request) -> Reply | Failure:
        """Send one request, once. Raises only CancelledError."""
        try:
            if request.uploads:
                files = await asyncio.to_thread(multipart, request)
                reply = _reply(await self._sdk_post(request.endpoint, request.body, files))
            else:
                route = self._routes.get(request.endpoint) or await self._prepare(request.endpoint)
                reply = await route.post(request.body)
        except RequestError as error:
            return Failure(meaning="row", reason="input", message=error.message)
        except Exception as error:
            return self.redact_failure(failure_of(error))
        if 200 <= reply.status < 300:
            return self._without_key(reply)
        if reply.status == 401:
            # The openai client may send other headers from now on, so the route is prepared anew.
            self._routes.pop(request.endpoint, None)
        return self.redact_failure(classify(reply.status, reply.body, reply.headers))

    async def call(
        self, method: Literal["GET", "POST"], endpoint: str, body: Mapping[str, Any] | None = None
    ) -> Reply | Failure:
        """Make one small call, once, such as GET /batches?limit=100; a POST may have no body.

        Raises only CancelledError.
        """
        try:
            sdk_call = (
                self._sdk_get(endpoint) if method == "GET" else self._sdk_post(endpoint, body)
            )
            return self._without_key(_reply(await sdk_call))
        except Exception as error:
            return self.redact_failure(failure_of(error))

    async def upload(self, path: Path, name: str, *, idle: float) -> Reply | Failure:
        """Send the input file of a batch to /files, once, in pieces.

        name: the file's name at the server.
        idle: seconds after which the upload fails if the server takes no more of the file or, once
            it has all of it, does not answer.

        Raises CancelledError, and OutputError for a file that cannot be opened.
        """
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(idle)

        def extend() -> None:
            if not limit.expired():
                limit.reschedule(loop.time() + idle)

        with translating_errors(path):
            file = UploadFile(path, extend)
        with file:
            try:
                async with limit:
                    parts = [("file", (name, file, "application/jsonl"))]
                    reply = _reply(await self._sdk_post("/files", {"purpose": "batch"}, parts))
            except TimeoutError:
                message = f"the server took nothing of {name} for {idle:g} s"
                return Failure(
                    meaning="timeout", reason="timeout", message=message, may_be_billed=True
                )
            except Exception as error:
                return self.redact_failure(failure_of(error))
        return self._without_key(reply)

    async def download(self, endpoint: str, path: Path, *, idle: float) -> Failure | None:
        """Write a file such as /files/{id}/content to `path`: whole, or not at all.

        The file may be of any size, and memory stays flat; it may contain the key (see
        `without_key`). `idle` seconds without a byte end the download.

        Raises CancelledError, and OutputError for a full disk or a folder that cannot be written.
        """
        try:
            route = await self._route(partial(self._sdk_get, endpoint, "application/binary"))
            reply = await route.get(partial(write_pieces, path), idle=idle)
        except OutputError:
            raise
        except Exception as error:
            return self.redact_failure(failure_of(error))
        if 200 <= reply.status < 300:
            return None
        return self.redact_failure(classify(reply.status, reply.body, reply.headers))

    async def _prepare(self, endpoint: str) -> Route:
        """Prepare how JSON is sent to an endpoint, and remember it."""
        route = self._routes[endpoint] = await self._route(partial(self._sdk_post, endpoint, {}))
        return route

    async def _route(self, sdk_call: Callable[..., Awaitable[object]]) -> Route:
        """The route of a call: the request that the openai client makes of it is not sent."""
        requests: list[httpx2.Request] = []

        def record(request: httpx2.Request) -> httpx2.Response:
            requests.append(request)
            return httpx2.Response(200, json={})

        async with httpx2.AsyncClient(transport=httpx2.MockTransport(record)) as recorder:
            await sdk_call(sdk=self._openai.copy(http_client=recorder))
        return Route(self._http, requests[0])

    async def _sdk_get(
        self,
        endpoint: str,
        accept: str = "application/json",
        *,
        sdk: openai.AsyncOpenAI | None = None,
    ) -> httpx2.Response:
        options: Any = {"headers": {**self._authorization, "Accept": accept}}
        sdk = sdk or self._openai
        return await sdk.get(endpoint, cast_to=httpx2.Response, options=options)

    async def _sdk_post(
        self,
        endpoint: str,
        body: Mapping[str, Any] | None,
        files: Multipart | None = None,
        *,
        sdk: openai.AsyncOpenAI | None = None,
    ) -> httpx2.Response:
        headers = dict(self._authorization)
        if files:
            headers["Content-Type"] = "multipart/form-data"
        options: Any = {"headers": headers}
        sdk = sdk or self._openai
        return await sdk.post(
            endpoint, cast_to=httpx2.Response, body=body, files=files, options=options
        )

    def _without_key(self, reply: Reply) -> Reply:
        """The reply with `[key]` in place of the key, in case the server sends it back."""
        if not self._key:
            return reply
        headers, body = reply.headers, self.without_key(reply.body)
        if body is not reply.body:
            reply = replace(reply, body=body)
        if self._key in " ".join(headers.values()):
            redacted = {name.lower(): self.redact(value) for name, value in headers.items()}
            reply = replace(reply, headers=redacted)
        return reply

    def without_key(self, data: bytes) -> bytes:
        """Bytes from the server, with `[key]` in place of the key."""
        key = self._key.encode() if self._key else b""
        return data.replace(key, b"[key]") if key and key in data else data

    def redact_failure(self, failure: Failure) -> Failure:
        """Redact every text of the server, then cut it: the message to 500 characters."""
        code, request_id = (
            self.redact(text)[:200] if text else text for text in (failure.code, failure.request_id)
        )
        message = self.redact(failure.message)[:500]
        return replace(failure, message=message, code=code, request_id=request_id)

    def redact(self, text: str) -> str:
        """The text without the key, and without anything that looks like a key."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return _KEY_LIKE.sub("[key]", text)


def _reply(response: httpx2.Response) -> Reply:
    return Reply(status=response.status_code, headers=response.headers, body=response.content)


def _suppressed_headers(connection: Connection) -> dict[str, Any]:
    """Headers that the openai client would add from the environment, not from the job.

    It reads OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID and OPENAI_PROJECT_ID.
    """
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    names = [line.partition(":")[0].strip() for line in lines if ":" in line]
    unnamed = {"OpenAI-Organization": connection.organization, "OpenAI-Project": connection.project}
    names += [name for name, value in unnamed.items() if value is None]
    return {name: openai.omit for name in names if name.lower() != "authorization"}
