"""One exchange through the openai client: a Request in, the reply's bytes or a Failure out; nothing else comes out, but an
OutputError where a file on this side cannot be read or written.

The client never retries, never follows a redirect, and never holds more of a reply than the cap: files go through it in
pieces. Every foreign exception is mapped here, by its cause: the aiohttp transport reports refused, DNS, TLS and resets
alike as time-outs.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import resource
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import aiohttp
import httpx2
import openai
from openai._types import omit

from batchgen.disk import atomic_write, translating_errors
from batchgen.dispatch import Failure, Meaning
from batchgen.dispatch.api.errors import classify
from batchgen.dispatch.api.http import HttpClient, Reply, ReplyTooLargeError, Route, route
from batchgen.errors import OutputError
from batchgen.job import Connection
from batchgen.requests import Request, RequestError, read_upload

# Files that a run needs open besides its connections.
OWN_FILES = 64

_KEYLIKE = re.compile(r"\b(sk-|Bearer\s+)[A-Za-z0-9_\-.*]{8,}")


class Client:
    """The openai client for one provider; use as an async context manager. `key` is sent and kept nowhere else."""

    def __init__(
        self, connection: Connection, key: str | None, *, connections: int, direct: bool = False
    ) -> None:
        """`connections` at the most are open at one time; `direct` leaves the environment's proxies and certificates out.
        Raises InputError when those are of no use."""
        self._key = key
        http = HttpClient(connection.base_url, connections=connections, direct=direct)
        headers = {
            **_silenced(connection),
            **connection.headers,
            "Accept-Encoding": "gzip, deflate",
        }
        # Said with each request: a server without keys gets none, and OPENAI_CUSTOM_HEADERS cannot name another.
        self._each: dict[str, Any] = {"Authorization": omit if key is None else f"Bearer {key}"}
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=connection.base_url,
            organization=connection.organization,
            project=connection.project,
            max_retries=0,
            timeout=http.timeout,
            default_headers=headers,
            http_client=http,
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
        await self._client.close()

    async def post(self, request: Request) -> Reply | Failure:
        """Send one request, once. Raises only CancelledError."""
        try:
            if request.uploads:
                reply = await self._upload(request)
            else:
                found = self._routes.get(request.endpoint) or await self._route(request.endpoint)
                reply = await found.post(request.body)
        except RequestError as fault:
            return Failure(meaning="row", reason="input", message=fault.message)
        except Exception as error:
            return self.redact_failure(_failure(error))
        if 200 <= reply.status < 300:
            return self._keepable(reply)
        if reply.status == 401:
            # What the client says of itself may have changed; it is asked again.
            self._routes.pop(request.endpoint, None)
        return self.redact_failure(classify(reply.status, reply.body, reply.headers))

    async def call(
        self, method: Literal["GET", "POST"], endpoint: str, body: Mapping[str, Any] | None = None
    ) -> Reply | Failure:
        """Ask a small thing, once, such as GET /batches?limit=100; a POST may be without a body. Raises only CancelledError."""
        try:
            response = await (self._get(endpoint) if method == "GET" else self._sdk(endpoint, body))
        except Exception as error:
            return self.redact_failure(_failure(error))
        return self._keepable(_reply(response))

    async def upload(self, path: Path, name: str, *, idle: float) -> Reply | Failure:
        """Send the file of requests at `path` to /files, once, in pieces, called `name`; `idle` seconds in which the server
        takes none of them, or after the last has no answer, end it. Raises CancelledError, and OutputError for a file that
        cannot be opened."""
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(idle)

        def taken() -> None:
            if not limit.expired():
                limit.reschedule(loop.time() + idle)

        with translating_errors(path):
            file = _Noted(path, taken)
        with file:
            try:
                async with limit:
                    parts = [("file", (name, file, "application/jsonl"))]
                    reply = _reply(await self._sdk("/files", {"purpose": "batch"}, parts))
            except TimeoutError:
                message = f"the server took nothing of {name} for {idle:g} s"
                return Failure(
                    meaning="timeout", reason="timeout", message=message, may_be_billed=True
                )
            except Exception as error:
                return self.redact_failure(_failure(error))
        return self._keepable(reply)

    async def download(self, endpoint: str, path: Path, *, idle: float) -> Failure | None:
        """Bring a file such as /files/{id}/content to `path`, once, in pieces of flat memory: whole, or not at all. It may be
        of any size, and hold the key (see without_key); `idle` seconds without a byte end it. Raises CancelledError, and
        OutputError for a disk that is full or a folder that cannot be written."""
        try:
            found = await route(partial(self._get, endpoint, "application/binary"))
            reply = await found.get(partial(_store, path), idle=idle)
        except OutputError:
            raise
        except Exception as error:
            return self.redact_failure(_failure(error))
        if 200 <= reply.status < 300:
            return None
        return self.redact_failure(classify(reply.status, reply.body, reply.headers))

    async def _route(self, endpoint: str) -> Route:
        """How plain JSON goes to an endpoint."""
        found = self._routes[endpoint] = await route(partial(self._sdk, endpoint, {}))
        return found

    async def _upload(self, request: Request) -> Reply:
        """Multipart, which the client makes."""
        files = await asyncio.to_thread(_files, request)
        return _reply(await self._sdk(request.endpoint, request.body, files))

    async def _get(self, endpoint: str, accept: str = "application/json") -> httpx2.Response:
        options: Any = {"headers": {**self._each, "Accept": accept}}
        return await self._client.get(endpoint, cast_to=httpx2.Response, options=options)

    async def _sdk(
        self, endpoint: str, body: Mapping[str, Any] | None, files: Files | None = None
    ) -> httpx2.Response:
        headers = {**self._each, "Content-Type": "multipart/form-data"} if files else self._each
        options: Any = {"headers": headers}
        return await self._client.post(
            endpoint, cast_to=httpx2.Response, body=body, files=files, options=options
        )

    def _keepable(self, reply: Reply) -> Reply:
        """An answer without the key: a server that sends it back is answered with a gap."""
        if not self._key:
            return reply
        headers, body = reply.headers, self.without_key(reply.body)
        if body is not reply.body:
            reply = replace(reply, body=body)
        if self._key in " ".join(headers.values()):
            reply = replace(
                reply, headers={name.lower(): self.redact(value) for name, value in headers.items()}
            )
        return reply

    def without_key(self, data: bytes) -> bytes:
        """What a server sent, with a gap where the key stood."""
        key = self._key.encode() if self._key else b""
        return data.replace(key, b"[key]") if key and key in data else data

    def redact_failure(self, failure: Failure) -> Failure:
        """The failure with everything that the server worded redacted, and then cut: its message to 500 characters."""
        code, request_id = (
            self.redact(text)[:200] if text else text for text in (failure.code, failure.request_id)
        )
        return replace(
            failure, message=self.redact(failure.message)[:500], code=code, request_id=request_id
        )

    def redact(self, text: str) -> str:
        """The text without the key, and without anything that looks like one."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return _KEYLIKE.sub("[key]", text)


Files = Sequence[tuple[str, tuple[str, bytes | IO[bytes], str]]]


class _Noted(io.FileIO):
    """A file to read; `taken` is called whenever more of it is wanted: what came before has left."""

    def __init__(self, path: Path, taken: Callable[[], None]) -> None:
        super().__init__(path, "rb")
        self._taken = taken

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._taken()
        return data


async def _store(path: Path, pieces: AsyncIterator[bytes]) -> None:
    """Write a file whole, off the event loop: a disk may take its time. Raises OutputError."""
    with atomic_write(path, binary=True) as file:
        async for piece in pieces:
            await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(_sync, file)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _reply(response: httpx2.Response) -> Reply:
    return Reply(status=response.status_code, headers=response.headers, body=response.content)


def _files(request: Request) -> Files:
    return [
        (upload.field, (upload.name.rsplit("/", 1)[-1], read_upload(upload), upload.media_type))
        for upload in request.uploads
    ]


def _silenced(connection: Connection) -> dict[str, Any]:
    """The client adds headers that the job does not name, out of OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID and
    OPENAI_PROJECT_ID; each is taken out again."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    names = [line.partition(":")[0].strip() for line in lines if ":" in line]
    unnamed = {"OpenAI-Organization": connection.organization, "OpenAI-Project": connection.project}
    names += [name for name, value in unnamed.items() if value is None]
    return {name: omit for name in names if name.lower() != "authorization"}


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 10:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


# The cause that tells, most telling first: what to call it, and whether the server may have worked (and billed).
_CAUSES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, bool], ...] = (
    (ReplyTooLargeError, "invalid_response", True),
    ((zlib.error, httpx2.DecodingError), "invalid_response", True),
    (aiohttp.ClientConnectorDNSError, "dns", False),
    ((aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError), "tls", False),
    (aiohttp.ClientProxyConnectionError, "proxy", False),
    (aiohttp.ClientConnectorError, "refused", False),
    (aiohttp.ConnectionTimeoutError, "connect_timeout", False),
    (aiohttp.SocketTimeoutError, "timeout", True),
    (
        (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError),
        "reset",
        True,
    ),
    ((httpx2.ProxyError, aiohttp.ClientHttpProxyError), "proxy", False),
    (aiohttp.ClientConnectionError, "reset", True),
    ((TimeoutError, httpx2.TimeoutException), "timeout", True),
    ((httpx2.NetworkError, httpx2.ProtocolError, aiohttp.ClientError, OSError), "reset", True),
)


def _failure(error: Exception) -> Failure:
    """An exception instead of an answer."""
    chain = _chain(error)
    refused = next((each for each in chain if isinstance(each, _STATUS_ERRORS)), None)
    if refused is not None:
        return classify(
            refused.response.status_code, refused.response.content, refused.response.headers
        )
    if any(isinstance(each, aiohttp.ClientHttpProxyError) and each.status == 407 for each in chain):
        return classify(407, b"", {})
    for kinds, reason, unknown in _CAUSES:
        cause = next((each for each in chain if isinstance(each, kinds)), None)
        if cause is None:
            continue
        message = f"{reason}: {cause}" if str(cause) else reason
        return Failure(
            meaning=_MEANINGS.get(reason, "network"),
            reason=reason,
            message=message,
            may_be_billed=unknown,
        )
    # Whatever else a hostile reply can make the libraries raise.
    message = f"{type(error).__name__}: {error}"
    return Failure(meaning="transient", reason="client", message=message, may_be_billed=True)


# An answer that is no success; the client's own error is missing where it could not read the body to word it.
_STATUS_ERRORS = (openai.APIStatusError, httpx2.HTTPStatusError)
_MEANINGS: dict[str, Meaning] = {"invalid_response": "transient", "timeout": "timeout"}


def affordable(concurrency: int) -> int:
    """The workers that the file-descriptor limit allows, after raising it as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = concurrency + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return max(1, min(concurrency, soft - OWN_FILES))
    return concurrency
