"""HTTP beneath the client: every reply read whole and bounded, or in pieces; plain JSON sent without building each request
anew.

The openai client makes the address and headers of an endpoint once; they are recorded where they would leave for the
network, and the requests after it take them from there, with its proxy, its trust store and its connections.
"""

from __future__ import annotations

import json
import os
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2
from multidict import CIMultiDict
from openai._vendor.httpx_aiohttp.transport import AiohttpTransport
from yarl import URL

from batchgen.errors import InputError
from batchgen.kinds import KINDS

# Bytes of a decoded reply that are still read: a text, a reply with pictures.
MAX_TEXT_REPLY = 32 * 1024 * 1024
MAX_PICTURE_REPLY = 256 * 1024 * 1024

# A compressed reply may be this many times its size beyond the first MAX_TEXT_REPLY bytes: pictures in base64 shrink by a
# third at the most, a bomb by a thousand.
MAX_RATIO = 8

# The most bytes of a reply that are unpacked at a time.
PIECE = 256 * 1024

# Seconds to open a connection; everything after that is the attempt's own deadline.
CONNECT_TIMEOUT = 10.0

_DRAWS = tuple(kind.endpoint for kind in KINDS.values() if kind.makes_images)

# What belongs to one request, and not to all requests of an endpoint.
_OF_ONE = frozenset({"content-length", "transfer-encoding"})

# The proxies that aiohttp speaks with, and where they are named.
_PROXIES = ("http", "https")
_PROXY_NAMES = ("https_proxy", "http_proxy", "all_proxy")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class ReplyTooLargeError(Exception):
    """A reply beyond the cap, or in an encoding that was not asked for."""


class TruncatedReplyError(Exception):
    """A reply that is kept in pieces did not come to its end: the network's OSErrors are no longer taken for the disk's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer: its status, its headers (looked up in lower case) and the decoded body."""

    status: int = 200
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How plain JSON goes to one endpoint, or what is asked of it: as the client would send it."""

    url: URL
    headers: Mapping[str, str]
    transport: AiohttpTransport
    proxy: Mapping[str, Any]
    cap: int

    async def post(self, body: Mapping[str, Any]) -> Reply:
        """Send one request, once. Raises what aiohttp raises, and ReplyTooLargeError."""
        async with self._session().post(
            self.url,
            data=_encode(body).encode(),
            headers=self.headers,
            allow_redirects=False,
            auto_decompress=False,
            timeout=_TIMEOUT,
            **self.proxy,
        ) as response:
            size = response.content_length
            if "content-encoding" not in response.headers and size is not None and size <= self.cap:
                read = await response.read()
            else:
                read = await _read(response.content.iter_any(), _encoding(response), self.cap)
            return Reply(status=response.status, headers=response.headers, body=read)

    async def get(
        self, keep: Callable[[AsyncIterator[bytes]], Awaitable[None]], *, idle: float
    ) -> Reply:
        """Ask once. The body of a success goes to `keep`, decoded, in pieces of any number, and not into the reply; `idle`
        seconds without a byte end it. Raises what aiohttp raises, ReplyTooLargeError, TruncatedReplyError, zlib.error, and what `keep` does."""
        async with self._session().get(
            self.url,
            headers=self.headers,
            allow_redirects=False,
            auto_decompress=False,
            # A proxy that makes no tunnel is in `connect`.
            timeout=aiohttp.ClientTimeout(
                total=None, connect=idle, sock_connect=CONNECT_TIMEOUT, sock_read=idle
            ),
            read_bufsize=PIECE,
            **self.proxy,
        ) as response:
            chunks, body = response.content.iter_any(), b""
            if 200 <= response.status < 300:
                await keep(_pieces(chunks, _encoding(response)))
            else:
                body = await _read(chunks, _encoding(response), self.cap)
            return Reply(status=response.status, headers=response.headers, body=body)

    def _session(self) -> aiohttp.ClientSession:
        if not isinstance(self.transport.client, aiohttp.ClientSession):
            self.transport.client = self.transport.get_client()
        return self.transport.client


_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)

# Where the routes of the requests that are only looked at are left; None while requests are sent.
_looked_at: ContextVar[list[Route] | None] = ContextVar("looked_at", default=None)


async def route(call: Callable[[], Awaitable[object]]) -> Route:
    """The route that `call`, a call of the client, would take; nothing is sent."""
    found: list[Route] = []
    token = _looked_at.set(found)
    try:
        await call()
    finally:
        _looked_at.reset(token)
    return found[0]


class HttpClient(httpx2.AsyncClient):
    """httpx2's client with its proxies and trust store, over aiohttp, every reply bounded."""

    def __init__(self, url: str, *, connections: int, direct: bool) -> None:
        """`url` is what will be asked; `connections` at the most are open at one time; `direct` leaves the environment's
        proxies and certificates out. Raises InputError when those are of no use."""
        limits = httpx2.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30
        )
        timeout = httpx2.Timeout(None, connect=CONNECT_TIMEOUT)
        try:
            super().__init__(
                limits=limits, timeout=timeout, follow_redirects=False, trust_env=not direct
            )
        except OSError as error:
            name = os.environ.get("SSL_CERT_FILE")
            raise InputError(
                f"SSL_CERT_FILE={name}: holds no certificates to read: {error}; mend or unset it"
            ) from None
        except (ValueError, httpx2.InvalidURL):
            raise _no_proxy() from None
        taken = self._transport_for_url(httpx2.URL(url))
        if isinstance(taken, _Transport) and not taken.usable:
            raise _no_proxy()

    def _init_transport(self, **options: Any) -> httpx2.AsyncBaseTransport:  # type: ignore[override]
        return _Transport(None, options)

    def _init_proxy_transport(  # type: ignore[override]
        self, proxy: httpx2.Proxy, **options: Any
    ) -> httpx2.AsyncBaseTransport:
        return _Transport(proxy, options)


def _no_proxy() -> InputError:
    # Not the address: it may hold a password.
    names = ", ".join(
        name for name in sorted(os.environ) if name.lower() in _PROXY_NAMES and os.environ[name]
    )
    return InputError(
        f"a proxy that the environment names ({names}) is no http:// or https:// address; mend or unset it"
    )


class _Transport(httpx2.AsyncBaseTransport):
    """Reads every reply whole, decoded, up to a cap, before the client sees it."""

    def __init__(self, proxy: httpx2.Proxy | None, options: Mapping[str, Any]) -> None:
        self.usable = proxy is None or (proxy.url.scheme in _PROXIES and bool(proxy.url.host))
        # A tunnel's own request says who asks; without a tunnel each request does.
        self._authorization: dict[str, str] = {}
        if proxy is not None and proxy.raw_auth is not None:
            self._authorization = {
                "Proxy-Authorization": f"Basic {b64encode(b':'.join(proxy.raw_auth)).decode()}"
            }
            proxy = httpx2.Proxy(proxy.url, headers=self._authorization)
        known = {name: value for name, value in options.items() if name != "transport"}
        self._inner = AiohttpTransport(proxy=proxy, **known)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.scheme == "http":
            request.headers.update(self._authorization)
        looked_at = _looked_at.get()
        if looked_at is not None:
            looked_at.append(_route_of(request, self._inner))
            return httpx2.Response(200, json={}, request=request)
        response = await self._inner.handle_async_request(request)
        try:
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            encoding = response.headers.get("content-encoding") or "identity"
            body = await _read(aiter(response.stream), encoding, _cap(request.url.path))
        finally:
            await response.aclose()
        kept = [(name, value) for name, value in response.headers.raw if name.lower() not in _HOP]
        return httpx2.Response(response.status_code, headers=kept, content=body, request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()


_HOP = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


def _route_of(request: httpx2.Request, transport: AiohttpTransport) -> Route:
    headers = [
        (name, value) for name, value in request.headers.multi_items() if name not in _OF_ONE
    ]
    proxy: dict[str, Any] = {}
    if transport.proxy is not None:
        proxy = {"proxy": URL(str(transport.proxy.url)), "proxy_headers": transport.proxy.headers}
    url = URL(str(request.url))
    return Route(
        url=url, headers=CIMultiDict(headers), transport=transport, proxy=proxy, cap=_cap(url.path)
    )


def _cap(path: str) -> int:
    return MAX_PICTURE_REPLY if path.endswith(_DRAWS) else MAX_TEXT_REPLY


def _encoding(response: aiohttp.ClientResponse) -> str:
    return ", ".join(response.headers.getall("content-encoding", ())) or "identity"


class _Unpacker:
    """The bytes of a reply out of those that came; `received` counts the latter. Raises ReplyTooLargeError for an encoding that was not
    asked for."""

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("identity", "gzip", "deflate"):
            raise ReplyTooLargeError(
                f"the reply's encoding is {encoding[:40]!r}, which was not asked for"
            )
        self.received = 0
        self._decoder = None if encoding == "identity" else _decoder()

    @property
    def packed(self) -> bool:
        """Whether what came has to be unpacked."""
        return self._decoder is not None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What follows, in pieces of at most PIECE bytes where it is unpacked. Raises zlib.error."""
        self.received += len(chunk)
        if self._decoder is None:
            yield chunk
            return
        while chunk:
            if self._decoder.eof:
                # A gzip file may be several, one after the other (RFC 1952, 2.2).
                self._decoder = _decoder()
            yield self._decoder.decompress(chunk, PIECE)
            chunk = self._decoder.unconsumed_tail or self._decoder.unused_data

    def end(self) -> None:
        """Nothing follows. Raises zlib.error when that cannot be."""
        if self._decoder is not None and not self._decoder.eof:
            raise zlib.error("incomplete or truncated stream")


def _decoder() -> zlib._Decompress:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)


async def _read(chunks: AsyncIterator[bytes], encoding: str, cap: int) -> bytes:
    unpacker, body = _Unpacker(encoding), bytearray()
    async for chunk in chunks:
        for piece in unpacker.feed(chunk):
            body += piece
            # A bomb is never unpacked, but for the piece that shows it.
            most = (
                min(cap, MAX_TEXT_REPLY + MAX_RATIO * unpacker.received) if unpacker.packed else cap
            )
            if len(body) > most:
                raise ReplyTooLargeError(f"the reply is larger than {most // (1024 * 1024)} MiB")
    unpacker.end()
    return bytes(body)


async def _pieces(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    unpacker = _Unpacker(encoding)
    try:
        async for chunk in chunks:
            for piece in unpacker.feed(chunk):
                yield piece
    except OSError as error:
        raise TruncatedReplyError from error
    unpacker.end()
