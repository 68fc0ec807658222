"""One POST through the openai client: a Request in, the reply's bytes or a Failure out; nothing else comes out.

The client never retries, never follows a redirect, and never holds more of a reply than the cap. Every foreign exception
is mapped here, by its cause: the aiohttp transport reports refused, DNS, TLS and resets alike as time-outs.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import aiohttp
import httpx2
import openai
from openai._types import omit
from openai._vendor.httpx_aiohttp.transport import AiohttpTransport

from batchgen.dispatch import Failure, Meaning
from batchgen.dispatch.retry import classify
from batchgen.kinds import KINDS
from batchgen.requests import Request, RequestFault, read_upload
from batchgen.spec import Connection

# Bytes of a decoded reply that are still read: a text, a reply with pictures.
MAX_TEXT_REPLY = 32 * 1024 * 1024
MAX_PICTURE_REPLY = 256 * 1024 * 1024

# A compressed reply may be this many times its size beyond the first MAX_TEXT_REPLY bytes: pictures in base64 shrink by a
# third at the most, a bomb by a thousand.
MAX_RATIO = 8

# Files that a run needs open besides its connections.
OWN_FILES = 64

# Seconds to open a connection; everything after that is the attempt's own deadline.
CONNECT_TIMEOUT = 10.0

_DRAWS = frozenset(kind.endpoint for kind in KINDS.values() if kind.draws)
_KEYLIKE = re.compile(r"\b(sk-|Bearer\s+)[A-Za-z0-9_\-.*]{8,}")


class _TooLarge(Exception):  # noqa: N818
    """A reply beyond the cap, or in an encoding that was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer with status 200 to 299: lower-case header names, the decoded body."""

    headers: Mapping[str, str]
    body: bytes


class _BoundedTransport(httpx2.AsyncBaseTransport):
    """Reads every reply whole, decoded, up to a cap, before the client sees it."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        cap = MAX_PICTURE_REPLY if request.url.path.endswith(tuple(_DRAWS)) else MAX_TEXT_REPLY
        try:
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            body = await _read(response.stream, response.headers.get("content-encoding", "identity"), cap)
        finally:
            await response.aclose()
        kept = [(name, value) for name, value in response.headers.raw if name.lower() not in _HOP]
        return httpx2.Response(response.status_code, headers=kept, content=body, request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()


_HOP = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


async def _read(stream: AsyncIterator[bytes] | httpx2.AsyncByteStream, encoding: str, cap: int) -> bytes:
    encoding = encoding.strip().lower()
    if encoding not in ("identity", "gzip", "deflate"):
        raise _TooLarge(f"the reply's encoding is {encoding[:40]!r}, which was not asked for")
    decoder = None if encoding == "identity" else zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    body, received = bytearray(), 0
    async for chunk in stream:
        received += len(chunk)
        most = min(cap, MAX_TEXT_REPLY + MAX_RATIO * received) if decoder else cap
        # One byte beyond the bound is enough to know; a bomb is never unpacked.
        body += decoder.decompress(chunk, most + 1 - len(body)) if decoder else chunk
        if len(body) > most:
            raise _TooLarge(f"the reply is larger than {most // (1024 * 1024)} MiB")
    if decoder and not decoder.eof:
        raise zlib.error("incomplete or truncated stream")
    return bytes(body)


class Client:
    """The openai client for one provider; use as an async context manager. `key` is sent and kept nowhere else."""

    def __init__(self, connection: Connection, key: str | None, *, connections: int, direct: bool = False) -> None:
        """`connections` at the most are open at one time; `direct` leaves the environment's proxies out."""
        self._key = key
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30)
        timeout = httpx2.Timeout(None, connect=CONNECT_TIMEOUT)
        self._http = _HttpClient(limits=limits, timeout=timeout, follow_redirects=False, trust_env=not direct)
        headers = {**_silenced(connection), **connection.headers, "Accept-Encoding": "gzip, deflate"}
        # Said with each request: a server without keys gets none, and OPENAI_CUSTOM_HEADERS cannot name another.
        self._each: dict[str, Any] = {"Authorization": omit if key is None else f"Bearer {key}"}
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=connection.base_url,
            organization=connection.organization,
            project=connection.project,
            max_retries=0,
            timeout=timeout,
            default_headers=headers,
            http_client=self._http,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def post(self, request: Request) -> Reply | Failure:
        """Send one request, once. Raises only CancelledError."""
        try:
            files = await asyncio.to_thread(_files, request) if request.uploads else None
            response = await self._send(request, files)
        except RequestFault as fault:
            return Failure(meaning="row", reason="input", message=fault.message)
        except Exception as error:
            return self.clean(_failure(error))
        return Reply(headers=response.headers, body=response.content)

    async def _send(self, request: Request, files: Files | None) -> httpx2.Response:
        headers = {**self._each, "Content-Type": "multipart/form-data"} if files else self._each
        options: Any = {"headers": headers}
        return await self._client.post(
            request.endpoint, cast_to=httpx2.Response, body=request.body, files=files, options=options
        )

    def clean(self, failure: Failure) -> Failure:
        """The failure with everything that the server worded redacted, and then cut: its message to 500 characters."""
        code, request_id = (self.redact(text)[:200] if text else text for text in (failure.code, failure.request_id))
        return replace(failure, message=self.redact(failure.message)[:500], code=code, request_id=request_id)

    def redact(self, text: str) -> str:
        """The text without the key, and without anything that looks like one."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return _KEYLIKE.sub("[key]", text)


Files = list[tuple[str, tuple[str, bytes, str]]]


def _files(request: Request) -> Files:
    return [
        (upload.field, (upload.name.rsplit("/", 1)[-1], read_upload(upload), upload.media_type))
        for upload in request.uploads
    ]


class _HttpClient(httpx2.AsyncClient):
    """httpx2's client with its proxies and trust store, over aiohttp, every reply bounded."""

    def _init_transport(self, **options: Any) -> httpx2.AsyncBaseTransport:  # type: ignore[override]
        return _BoundedTransport(AiohttpTransport(**_known(options)))

    def _init_proxy_transport(self, proxy: httpx2.Proxy, **options: Any) -> httpx2.AsyncBaseTransport:  # type: ignore[override]
        return _BoundedTransport(AiohttpTransport(proxy=proxy, **_known(options)))


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "transport"}


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
    (_TooLarge, "invalid_response", True),
    ((zlib.error, httpx2.DecodingError), "invalid_response", True),
    (aiohttp.ClientConnectorDNSError, "dns", False),
    ((aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError), "tls", False),
    (aiohttp.ClientProxyConnectionError, "proxy", False),
    (aiohttp.ClientConnectorError, "refused", False),
    (aiohttp.ConnectionTimeoutError, "connect_timeout", False),
    ((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError), "reset", True),
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
        return classify(refused.response.status_code, refused.response.content, refused.response.headers)
    for kinds, reason, unknown in _CAUSES:
        cause = next((each for each in chain if isinstance(each, kinds)), None)
        if cause is None:
            continue
        message = f"{reason}: {cause}" if str(cause) else reason
        return Failure(meaning=_MEANINGS.get(reason, "network"), reason=reason, message=message, unknown=unknown)
    # Whatever else a hostile reply can make the libraries raise.
    message = f"{type(error).__name__}: {error}"
    return Failure(meaning="transient", reason="client", message=message, unknown=True)


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
