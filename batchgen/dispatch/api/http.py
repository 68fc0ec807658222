"""HTTP beneath the openai client: one aiohttp session, one proxy, every reply bounded.

The openai client builds the URL and the headers of an endpoint once (`Route`). The requests after
that go straight to aiohttp, which costs a quarter of the CPU; everything else, such as multipart
uploads, goes through the openai client and `HttpTransport` to the same session.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

from batchgen.dispatch.api.body import PIECE, body_limit, body_pieces, read_body
from batchgen.dispatch.api.held_bytes import SMALL, HeldBytes
from batchgen.dispatch.api.proxies import environment_proxy
from batchgen.errors import InputError

# Seconds to open a connection; everything after that is limited by the attempt's own deadline.
CONNECT_TIMEOUT = 10.0
# Seconds after which an idle connection is closed.
KEEP_ALIVE = 30.0

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)

# Headers that describe the body as it was sent, not as it was decoded.
_ENCODING_HEADERS = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP reply.

    headers: looked up in lower case.
    body: decoded.
    parsed: the body's JSON, alone in a tuple; empty if it is not JSON or was not parsed.
    """

    status: int = 200
    headers: Mapping[str, str]
    body: bytes
    parsed: tuple[Any, ...] = ()


class HttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests through aiohttp and reads each reply whole, decoded and bounded."""

    def __init__(self, url: str, *, connections: int, direct: bool) -> None:
        """Prepare to send to `url`; a connection is opened only when one is needed.

        connections: the most that are open at one time.
        direct: ignore the proxies and certificates that the environment names.

        Raises InputError when the environment's proxy or certificates cannot be used.
        """
        try:
            self._tls = httpx2.create_ssl_context(trust_env=not direct)
        except OSError as error:
            name = os.environ.get("SSL_CERT_FILE")
            raise InputError(
                f"SSL_CERT_FILE={name}: holds no certificates to read: {error}; fix or unset it"
            ) from None
        self._connections, self.held = connections, HeldBytes()
        self._session: aiohttp.ClientSession | None = None
        self._proxy: dict[str, Any] = {}
        # With a tunnel, only the CONNECT request has the password; without one, each request has.
        self._authorization: dict[str, str] = {}
        proxy = None if direct else environment_proxy(url)
        if proxy is not None:
            if proxy.raw_auth is not None:
                credentials = b64encode(b":".join(proxy.raw_auth)).decode()
                self._authorization = {"Proxy-Authorization": f"Basic {credentials}"}
            headers = CIMultiDict(self._authorization)
            self._proxy = {"proxy": URL(str(proxy.url)), "proxy_headers": headers}

    def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        data: Any = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
        read_bufsize: int | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request as aiohttp does, through the proxy; never follows a redirect.

        method, url, headers: sent as they are.
        data: bytes, or an async iterable of them.
        timeout: of the connection and of each read; see `_TIMEOUT`.
        read_bufsize: bytes of the body that aiohttp buffers; None for its default.
        """
        return self._open_session().request(
            method,
            url,
            data=data,
            headers=headers,
            allow_redirects=False,
            auto_decompress=False,
            timeout=timeout,
            read_bufsize=read_bufsize,
            **self._proxy,
        )

    def headers_of(self, request: httpx2.Request) -> CIMultiDict[str]:
        """The headers to send: the request's and, for a proxy without a tunnel, its password."""
        headers = CIMultiDict(request.headers.multi_items())
        if request.url.scheme == "http":
            headers.update(self._authorization)
        return headers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request of the openai client. Raises what aiohttp and `read_body` raise."""
        headers, url = self.headers_of(request), URL(str(request.url))
        data: Any
        try:
            data = request.content or None
        except httpx2.RequestNotRead:
            # A body that is streamed: aiohttp chooses how to delimit it.
            data = request.stream
            headers.popall("transfer-encoding", None)
        async with self.request(request.method, url, headers=headers, data=data) as response:
            body = await _whole_body(response, body_limit(url.path), self.held)
            kept = [
                (name, value)
                for name, value in response.raw_headers
                if name.lower() not in _ENCODING_HEADERS
            ]
            return httpx2.Response(response.status, headers=kept, content=body, request=request)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        # aiohttp needs a running event loop to make one.
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self._tls, limit=self._connections, keepalive_timeout=KEEP_ALIVE
            )
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


class Route:
    """A prepared request to one endpoint: URL and headers as the openai client made them."""

    def __init__(self, http: HttpTransport, request: httpx2.Request) -> None:
        self._http = http
        self.url, self.headers = URL(str(request.url)), http.headers_of(request)
        # The recorded request had a body of its own.
        for name in ("content-length", "transfer-encoding"):
            self.headers.popall(name, None)
        self._limit = body_limit(self.url.path)

    async def post(self, body: Mapping[str, Any]) -> Reply:
        """Send one request as JSON. Raises what aiohttp and `read_body` raise."""
        data = _encode(body).encode()
        async with self._http.request(
            "POST", self.url, headers=self.headers, data=data
        ) as response:
            content = await _whole_body(response, self._limit, self._http.held)
            return Reply(status=response.status, headers=response.headers, body=content)

    async def get(
        self, keep: Callable[[AsyncIterator[bytes]], Awaitable[None]], *, idle: float
    ) -> Reply:
        """Send one request; the body of a success goes to `keep` and not into the reply.

        keep: receives the decoded body in pieces; their number is not limited.
        idle: seconds without a byte after which the request fails.

        Raises what aiohttp, `body_pieces` and `keep` raise.
        """
        # `connect` limits how long a proxy may take to make a tunnel.
        timeout = aiohttp.ClientTimeout(
            total=None, connect=idle, sock_connect=CONNECT_TIMEOUT, sock_read=idle
        )
        async with self._http.request(
            "GET", self.url, headers=self.headers, timeout=timeout, read_bufsize=PIECE
        ) as response:
            content = b""
            if 200 <= response.status < 300:
                await keep(body_pieces(response.content.iter_any(), _encoding(response)))
            else:
                content = await _whole_body(response, self._limit, self._http.held)
            return Reply(status=response.status, headers=response.headers, body=content)


async def _whole_body(response: aiohttp.ClientResponse, limit: int, held: HeldBytes) -> bytes:
    size = response.content_length
    if "content-encoding" not in response.headers and size is not None and size <= limit:
        # Nothing to decode and nothing to bound: aiohttp's own way is faster.
        if size > SMALL:
            await held.take(size)
        return await response.read()
    return await read_body(response.content.iter_any(), _encoding(response), limit, held)


def _encoding(response: aiohttp.ClientResponse) -> str:
    return ", ".join(response.headers.getall("content-encoding", ())) or "identity"
