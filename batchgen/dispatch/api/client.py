"""One exchange through the openai client: a Request in, the reply's bytes or a Failure out.

The client never retries, never follows a redirect and never holds more of a reply than its limit;
files are transferred in pieces. Every exception of the libraries becomes a Failure (causes.py);
only an OutputError, for a file on this machine that cannot be read or written, is raised.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx2
import openai

from batchgen.disk import translating_errors
from batchgen.dispatch import LARGE_REPLY, Failure
from batchgen.dispatch.api.causes import failure_of
from batchgen.dispatch.api.errors import classify
from batchgen.dispatch.api.files import Multipart, UploadFile, multipart, write_pieces
from batchgen.dispatch.api.http import HttpTransport, Reply, Route
from batchgen.dispatch.api.redaction import Redaction
from batchgen.errors import OutputError
from batchgen.job import Connection
from batchgen.requests import Request, RequestError


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
        self._redaction = Redaction(key)
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
        # None for an endpoint whose requests only the openai client can make.
        self._routes: dict[str, Route | None] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._openai.close()

    @property
    def redacts_key(self) -> bool:
        """Whether replies come without the key; a short key is left in them, as it is a word."""
        return self._redaction.is_complete

    async def post(self, request: Request) -> Reply | Failure:
        """Send one request, once. Raises only CancelledError."""
        try:
            if request.uploads:
                files = await asyncio.to_thread(multipart, request)
                reply = _reply(await self._sdk_post(request.endpoint, request.body, files))
            elif route := await self._prepared(request.endpoint):
                reply = await route.post(request.body)
            else:
                reply = _reply(await self._sdk_post(request.endpoint, request.body))
        except RequestError as error:
            return Failure(meaning="row", reason="input", message=error.message)
        except Exception as error:
            return self.redact_failure(failure_of(error))
        if 200 <= reply.status < 300:
            return await self._received(reply)
        if reply.status == 401:
            # The openai client may send other headers from now on, so the route is prepared anew.
            self._routes.pop(request.endpoint, None)
        return self.redact_failure(classify(reply.status, reply.body, reply.headers))

    async def call(
        self,
        method: Literal["GET", "POST", "DELETE"],
        endpoint: str,
        body: Mapping[str, Any] | None = None,
    ) -> Reply | Failure:
        """Make one small call, once, such as GET /batches?limit=100; a POST may have no body.

        Raises only CancelledError.
        """
        try:
            if method == "POST":
                response = await self._sdk_post(endpoint, body)
            elif method == "GET":
                response = await self._sdk_get(endpoint)
            else:
                options: Any = {"headers": self._authorization}
                response = await self._openai.delete(
                    endpoint, cast_to=httpx2.Response, options=options
                )
            return await self._received(_reply(response))
        except Exception as error:
            return self.redact_failure(failure_of(error))

    async def upload(
        self, path: Path, name: str, *, idle: float, expires_after: int | None = None
    ) -> Reply | Failure:
        """Send the input file of a batch to /files, once, in pieces.

        name: the file's name at the server.
        idle: seconds after which the upload fails if the server takes no more of the file or, once
            it has all of it, does not answer.
        expires_after: seconds after which the server deletes the file; None: as it likes.

        Raises CancelledError, and OutputError for a file that cannot be opened.
        """
        fields: dict[str, Any] = {"purpose": "batch"}
        if expires_after is not None:
            fields["expires_after"] = {"anchor": "created_at", "seconds": expires_after}
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
                    reply = _reply(await self._sdk_post("/files", fields, parts))
            except TimeoutError:
                message = f"the server took nothing of {name} for {idle:g} s"
                return Failure(
                    meaning="timeout", reason="timeout", message=message, may_be_billed=True
                )
            except Exception as error:
                return self.redact_failure(failure_of(error))
        return await self._received(reply)

    async def download(self, endpoint: str, path: Path, *, idle: float) -> Failure | None:
        """Write a file such as /files/{id}/content to `path`: whole, or not at all.

        The file may be of any size, and memory stays flat; it may contain the key (see
        `parse`). `idle` seconds without a byte end the download.

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

    async def _prepared(self, endpoint: str) -> Route | None:
        """How JSON is sent to an endpoint, prepared at its first request.

        None when the openai client gives each request headers of its own, such as an idempotency
        key: replayed, one key would make all rows the same request.
        """
        if endpoint not in self._routes:
            route, again = [
                await self._route(partial(self._sdk_post, endpoint, {})) for _ in range(2)
            ]
            self._routes[endpoint] = route if route.headers == again.headers else None
        return self._routes[endpoint]

    async def _route(self, sdk_call: Callable[..., Awaitable[object]]) -> Route:
        """The route of a call: the openai client makes its request, which is not sent."""
        requests: list[httpx2.Request] = []

        def record(request: httpx2.Request) -> httpx2.Response:
            requests.append(request)
            return httpx2.Response(200, json={})

        async with httpx2.AsyncClient(transport=httpx2.MockTransport(record)) as unsent:
            await sdk_call(sdk=self._openai.copy(http_client=unsent))
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

    async def _received(self, reply: Reply) -> Reply:
        """The reply without the key, and parsed; in a thread when it is large, as both take long
        and would block the event loop.
        """
        if len(reply.body) > LARGE_REPLY:
            return await asyncio.to_thread(self._redaction.reply, reply)
        return self._redaction.reply(reply)

    def parse(self, data: bytes) -> Any:
        """The JSON of bytes from the server, without the key. Raises ValueError, RecursionError."""
        return self._redaction.json(data)

    def release(self) -> None:
        """Note that the reply to the current task's last request is no longer in memory."""
        self._http.held.release()

    def redact_failure(self, failure: Failure) -> Failure:
        """The failure with its texts redacted and cut."""
        return self._redaction.failure(failure)


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
