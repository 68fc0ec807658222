"""One POST through the openai client: a Request in, the reply's bytes or a Failure out; nothing else comes out.

The client never retries, never follows a redirect, and never holds more of a reply than the cap. Every foreign exception
is mapped here, by its cause: the aiohttp transport reports refused, DNS, TLS and resets alike as time-outs.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
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
from batchgen.requests import Request, read_upload
from batchgen.spec import Connection

# Bytes of a decoded reply that are still read: a text, a reply with pictures.
MAX_TEXT_REPLY = 32 * 1024 * 1024
MAX_PICTURE_REPLY = 256 * 1024 * 1024

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
    body = bytearray()
    async for chunk in stream:
        # One byte beyond the cap is enough to know; a bomb is never unpacked.
        body += decoder.decompress(chunk, cap + 1 - len(body)) if decoder else chunk
        if len(body) > cap:
            raise _TooLarge(f"the reply is larger than {cap // (1024 * 1024)} MiB")
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
        headers = {**_silenced(), **connection.headers, "Accept-Encoding": "gzip, deflate"}
        if key is None:
            headers["Authorization"] = omit
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
        """Send one request, once. Raises only CancelledError, and RequestFault for a file that changed."""
        try:
            response = await self._send(request)
        except openai.APIStatusError as error:
            response = error.response
            return self.clean(classify(response.status_code, response.content, response.headers))
        except Exception as error:
            return self.clean(_lost(error))
        return Reply(headers=response.headers, body=response.content)

    async def _send(self, request: Request) -> httpx2.Response:
        if not request.uploads:
            return await self._client.post(request.endpoint, cast_to=httpx2.Response, body=request.body)
        data = await asyncio.to_thread(lambda: [read_upload(upload) for upload in request.uploads])
        files = [
            (upload.field, (upload.name.rsplit("/", 1)[-1], content, upload.media_type))
            for upload, content in zip(request.uploads, data, strict=True)
        ]
        return await self._client.post(
            request.endpoint,
            cast_to=httpx2.Response,
            body=request.body,
            files=files,
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )

    def clean(self, failure: Failure) -> Failure:
        """The failure with its message redacted and cut to 500 characters."""
        return replace(failure, message=self.redact(failure.message)[:500])

    def redact(self, text: str) -> str:
        """The text without the key, and without anything that looks like one."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return _KEYLIKE.sub("[key]", text)


class _HttpClient(httpx2.AsyncClient):
    """httpx2's client with its proxies and trust store, over aiohttp, every reply bounded."""

    def _init_transport(self, **options: Any) -> httpx2.AsyncBaseTransport:  # type: ignore[override]
        return _BoundedTransport(AiohttpTransport(**_known(options)))

    def _init_proxy_transport(self, proxy: httpx2.Proxy, **options: Any) -> httpx2.AsyncBaseTransport:  # type: ignore[override]
        return _BoundedTransport(AiohttpTransport(proxy=proxy, **_known(options)))


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "transport"}


def _silenced() -> dict[str, Any]:
    """OPENAI_CUSTOM_HEADERS would add headers that the job does not name; each is taken out again."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    names = [line.partition(":")[0].strip() for line in lines if ":" in line]
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
    (_TooLarge, "too_large", True),
    (zlib.error, "invalid_response", True),
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


def _lost(error: Exception) -> Failure:
    """An exception instead of an answer."""
    chain = _chain(error)
    for kinds, reason, unknown in _CAUSES:
        cause = next((each for each in chain if isinstance(each, kinds)), None)
        if cause is None:
            continue
        message = f"{reason}: {cause}" if str(cause) else reason
        if reason in ("too_large", "invalid_response"):
            return Failure(meaning="transient", reason="invalid_response", message=message, unknown=True)
        meaning: Meaning = "timeout" if reason == "timeout" else "network"
        return Failure(meaning=meaning, reason=reason, message=message, unknown=unknown)
    raise error
