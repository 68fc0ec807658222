"""Proxies, trust and odd replies, on both ways to the network: on a prepared route, and through the
client itself.

Everything here runs over sockets of this machine.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import platform
import re
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import openai
import pytest
import truststore
from certificates import AUTHORITY, ELSEWHERE, EXPIRED, GOOD, HASHED
from hostile import BROKEN, CERTIFICATE, CHAT, ERRORS, Behaviour, Hostile, http, ok, raw
from lab import KEY, Lab, Server
from proxies import Proxy, connection
from virtual import request

from batchgen.dispatch import Failure
from batchgen.dispatch.api.client import Client
from batchgen.dispatch.api.http import HttpTransport, Reply
from batchgen.errors import InputError

Way = Literal["route", "client"]
BOTH = pytest.mark.parametrize("way", ["route", "client"])
BODY = {"model": "m", "messages": [{"role": "user", "content": "the prompt"}]}


def on(way: Way, client: Client) -> Client:
    """The client, sending on a prepared route or as the openai client does it itself."""

    async def post(endpoint: str, body: Any) -> Reply:
        response = await client._sdk_post(endpoint, body)
        return Reply(status=response.status_code, headers=response.headers, body=response.content)

    if way == "client":
        endpoints = ("/chat/completions", "/images/generations")
        routes: dict[str, Any] = {
            each: SimpleNamespace(post=partial(post, each)) for each in endpoints
        }
        client._routes.update(routes)
    return client


async def sent(
    way: Way, url: str, *, times: int = 1, direct: bool = False, **parts: Any
) -> list[Reply | Failure]:
    """What becomes of the same request, sent so many times one after the other."""
    async with Client(connection(url, **parts), KEY, connections=1, direct=direct) as client:
        return [await on(way, client).post(request("r", body=BODY)) for _ in range(times)]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no certificates but those that a test sets."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pem(tmp_path: Path) -> Callable[[str], Path]:
    """Writes certificates to a file."""

    def write(text: str) -> Path:
        path = tmp_path / f"{abs(hash(text))}.pem"
        path.write_text(text)
        return path

    return write


# -- what is sent ----------------------------------------------------------------------------------


def words(raw_request: bytes) -> tuple[bytes, list[bytes], bytes]:
    """A request as it came over the wire: its first line; its headers, names in small letters,
    sorted; its body."""
    head, _, body = raw_request.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    named = [line.partition(b":") for line in headers]
    return first, sorted(name.lower() + b":" + value for name, _, value in named), body


async def on_both_ways(
    url: str, server: Hostile, *, key: str | None = KEY, **parts: Any
) -> list[Any]:
    """What a server receives: two requests on the route, then two through the client."""
    for way in ("route", "client"):
        async with Client(connection(url, **parts), key, connections=1, direct=True) as client:
            for _ in range(2):
                assert isinstance(await on(way, client).post(request("r", body=BODY)), Reply)
    return [words(raw_request) for raw_request in server.requests]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


PATHS = [
    "",
    "/",
    "/v1/",
    "/a%20b",
    "/a%2Fb",
    "/%E4%B8%AD",
    "/a+b;c=d,e",
    "/a//b",
    "/../b",
    "/a:b@c",
    "/{x}",
    "/a|b^c`",
]
PATHS += ["/~u/'x'!$&()*", "/%7Eu", "/a%zz", "/a[1]", '/"q"', "/\\w"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_any_address_is_asked_the_same_on_both_ways(host: str, path: str) -> None:
    """P18 Method, path and host, whatever the base URL holds."""
    if host == "[::1]" and not has_ipv6():
        pytest.skip("this machine has no ::1")

    async def run() -> None:
        async with Hostile(lambda n: http(200, b"{}"), host=host.strip("[]")) as server:
            first, second, third, fourth = await on_both_ways(
                f"http://{host}:{server.port}{path}", server
            )
            assert first == second == third == fourth
            assert f"host: {host}:{server.port}".encode() in first[1]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, b"authorization: Bearer " + KEY.encode()),
        ({"organization": "o"}, b"openai-organization: o"),
        ({"project": "p"}, b"openai-project: p"),
        ({"headers": {"Host": "other.test"}}, b"host: other.test"),
        ({"headers": {"host": "other.test"}}, b"host: other.test"),
        ({"headers": {"Connection": "close"}}, b"connection: close"),
        ({"headers": {"user-agent": "me/1"}}, b"user-agent: me/1"),
        ({"headers": {"User-Agent": ""}}, b"user-agent: "),
        (
            {"headers": {"Content-Type": "application/json; charset=utf-8"}},
            b"application/json; charset=utf-8",
        ),
        ({"headers": {"Cookie": "a=b"}}, b"cookie: a=b"),
        ({"headers": {"X-Stainless-OS": "none"}}, b"x-stainless-os: none"),
        ({"headers": {"api-key": "1", "X-A": "2", "x-b": "  3 "}}, b"api-key: 1"),
    ],
    ids=str,
)
def test_headers_are_the_same_on_both_ways(parts: Any, expected: bytes) -> None:
    """P18 Those of the client, those of the job and those of the connection, once each."""

    async def run() -> None:
        async with Hostile(lambda n: http(200, b"{}")) as server:
            first, second, third, fourth = await on_both_ways(server.url, server, **parts)
            assert first == second == third == fourth
            assert [line for line in first[1] if expected in line]
            names = [line.partition(b":")[0] for line in first[1]]
            assert len(names) == len(set(names))

    asyncio.run(run())


def test_no_key_is_sent_on_either_way() -> None:
    """P40 `api_key_env: null` means no Authorization."""

    async def run() -> None:
        async with Hostile(lambda n: http(200, b"{}")) as server:
            first, *others = await on_both_ways(server.url, server, key=None)
            assert all(each == first for each in others)
            assert b"authorization" not in b"".join(first[1])

    asyncio.run(run())


# -- proxies ---------------------------------------------------------------------------------------

WORDS = [
    ("", []),
    ("user:word@", ["user:word"]),
    ("us%40er:p%3Aw%2F%25%20%23@", ["us@er:p:w/% #"]),
    ("user@", ["user:"]),
    (":word@", [":word"]),
    ("%C3%A9%E4%B8%AD:w%C3%B6rd@", ["é中:wörd"]),
]


@BOTH
@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_a_proxy_for_plain_http(
    monkeypatch: pytest.MonkeyPatch, way: Way, words: str, expected: list[str]
) -> None:
    """P18 It is asked with the whole address, with its user and password in UTF-8 whatever they
    hold, each time; whatever the letters of its variable."""

    async def run() -> None:
        async with Proxy() as proxy:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                with monkeypatch.context() as patch:
                    patch.setenv(name, f"http://{words}{proxy.address}")
                    replies = await sent(way, "http://api.test:81/v1", times=2)
                    assert all(isinstance(reply, Reply) for reply in replies)
            assert all(
                head.startswith(b"POST http://api.test:81/v1/chat/completions ")
                for head in proxy.requests
            )
            assert len(proxy.requests) == 8
            assert proxy.authorizations() == expected * 8

    asyncio.run(run())


@BOTH
@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_a_proxy_for_https(
    monkeypatch: pytest.MonkeyPatch,
    pem: Callable[[str], Path],
    way: Way,
    words: str,
    expected: list[str],
) -> None:
    """P18 P40 It is asked for a tunnel, once a connection, and learns neither key nor prompt; the
    server at its end learns nothing of the proxy's password."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pem(AUTHORITY)))

    async def run() -> None:
        async with Hostile(lambda n: ok(), tls=pem(GOOD)) as server, Proxy(server.port) as proxy:
            for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
                with monkeypatch.context() as patch:
                    patch.setenv(name, f"http://{words}{proxy.address}")
                    replies = await sent(way, "https://localhost:81/v1", times=2)
                    assert all(isinstance(reply, Reply) for reply in replies)
            assert all(head.startswith(b"CONNECT localhost:81 ") for head in proxy.requests)
            assert (len(proxy.requests), len(server.requests)) == (4, 8)
            assert proxy.authorizations() == expected * 4
            assert KEY.encode() not in b"".join(proxy.requests)
            assert all(
                b"the prompt" in raw_request and b"proxy" not in raw_request.lower()
                for raw_request in server.requests
            )

    asyncio.run(run())


@BOTH
@pytest.mark.parametrize(
    ("host", "left_out", "through"),
    [
        ("localhost", "localhost", False),
        ("localhost", "other.test,  localhost ", False),
        ("localhost", "*", False),
        ("localhost", "localhost.test", True),
        ("127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.0/8", False),
        ("127.0.0.1", "10.0.0.0/8", True),
        ("127.0.0.1", "http://127.0.0.1", False),
        ("127.0.0.1", "https://127.0.0.1", True),
        ("127.0.0.1", "http://127.0.0.1:1", True),
        ("api.localhost", "localhost", True),
        ("api.localhost", ".localhost", False),
        ("api.localhost", "pi.localhost", True),
    ],
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_hosts_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, way: Way, name: str, host: str, left_out: str, through: bool
) -> None:
    """P18 NO_PROXY holds hosts, domains, addresses, networks and `*`, as httpx2 reads it."""
    monkeypatch.setenv(name, left_out)
    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", local)

    async def run() -> None:
        async with Hostile(lambda n: ok()) as server, Proxy() as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
            (reply,) = await sent(way, f"http://{host}:{server.port}/v1")
            assert isinstance(reply, Reply)
            assert (len(proxy.requests), len(server.requests)) == ((1, 0) if through else (0, 1))

    asyncio.run(run())


async def local(resolver: Any, host: str, port: int = 0, family: Any = 0) -> list[Any]:
    """Every name is this machine."""
    return [
        {"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}
    ]


@BOTH
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("refusal", "meaning", "reason"),
    [
        (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "account", "proxy"),
        (b"HTTP/1.1 2", "network", "reset"),
        (b"", "network", "reset"),
        (b"\x05\xff", "network", "reset"),
    ],
    ids=["407", "half", "closed", "socks"],
)
def test_a_proxy_that_refuses(
    monkeypatch: pytest.MonkeyPatch,
    way: Way,
    scheme: str,
    refusal: bytes,
    meaning: str,
    reason: str,
) -> None:
    """P18 P40 By its cause, for a tunnel as for a request; nothing of the proxy's password is
    told."""

    async def run() -> None:
        async with Proxy(refusal=refusal) as proxy:
            monkeypatch.setenv(f"{scheme}_proxy", f"http://user:secret-word@{proxy.address}")
            (failure,) = await sent(way, f"{scheme}://api.test/v1")
            assert isinstance(failure, Failure)
            assert (failure.meaning, failure.reason) == (meaning, reason)
            assert "secret-word" not in str(failure)

    asyncio.run(run())


@BOTH
@pytest.mark.parametrize("status", [403, 502, 503])
def test_a_proxy_that_makes_no_tunnel(
    monkeypatch: pytest.MonkeyPatch, way: Way, status: int
) -> None:
    """P18 P40 What it says instead is told, by the proxy's name; it passes, and nothing was
    billed."""

    async def run() -> None:
        async with Proxy(refusal=f"HTTP/1.1 {status} Not you\r\n\r\n".encode()) as proxy:
            monkeypatch.setenv("https_proxy", f"http://user:secret-word@{proxy.address}")
            (failure,) = await sent(way, "https://api.test/v1")
            assert isinstance(failure, Failure)
            assert (failure.meaning, failure.reason, failure.may_be_billed) == (
                "network",
                "proxy",
                False,
            )
            assert f"{status}" in failure.message
            assert "Not you" in failure.message
            assert "secret-word" not in str(failure)

    asyncio.run(run())


@pytest.mark.parametrize(
    "address",
    [
        "socks5://user:secret-word@127.0.0.1:9",
        "socks5h://127.0.0.1:9",
        "socks://127.0.0.1:9",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:many",
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
def test_a_proxy_of_no_use(monkeypatch: pytest.MonkeyPatch, name: str, address: str) -> None:
    """P18 P40 A proxy that batchgen cannot speak with is told by its variable, not by its address,
    before anything is sent."""
    monkeypatch.setenv(name, address)
    with pytest.raises(InputError, match=rf"\({name}\)") as expected:
        Client(connection("https://api.test/v1"), KEY, connections=1)
    assert "secret-word" not in str(expected.value)
    Client(connection("https://api.test/v1"), KEY, connections=1, direct=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTPS_PROXY", "socks5://user:secret-word@127.0.0.1:9"), ("SSL_CERT_FILE", "/no/such.pem")],
)
def test_an_environment_of_no_use_ends_a_run(lab: Lab, name: str, value: str) -> None:
    """P17 With 2, one sentence and no traceback; a simulation, which goes nowhere, does not need
    it."""
    job, env = lab.job("https://api.test/v1", rows=1), lab.environ(**{name: value})
    done = lab.run("run", job, env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert name in done.stderr
    assert "secret-word" not in done.stderr
    assert lab.run("run", job, "--simulate", env=env).returncode == 0


def test_a_socks_proxy_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """P18 A proxy that another address would need disturbs nothing."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(InputError, match="ALL_PROXY"):
        HttpTransport("http://api.test/v1", connections=1, direct=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    HttpTransport("http://api.test/v1", connections=1, direct=False)
    HttpTransport("https://api.test/v1", connections=1, direct=True)
    monkeypatch.setenv("NO_PROXY", "api.test")
    HttpTransport("https://api.test/v1", connections=1, direct=False)


# -- trust -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_an_authority_of_ones_own(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pem: Callable[[str], Path],
    way: Way,
    proxied: bool,
    variable: str,
) -> None:
    """P18 SSL_CERT_FILE and SSL_CERT_DIR are honoured, through a proxy too."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / HASHED).write_text(AUTHORITY)
    monkeypatch.setenv(variable, str(folder / HASHED if variable == "SSL_CERT_FILE" else folder))

    async def run() -> None:
        async with Hostile(lambda n: ok(), tls=pem(GOOD)) as server, Proxy(server.port) as proxy:
            if proxied:
                monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
            (reply,) = await sent(way, server.url)
            assert isinstance(reply, Reply)
            assert len(proxy.requests) == proxied

    asyncio.run(run())


@BOTH
@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize(
    ("certificate", "trusted", "expected"),
    [
        (GOOD, "", "unable to get local issuer certificate"),
        (CERTIFICATE, AUTHORITY, "self-signed certificate"),
        (EXPIRED, AUTHORITY, "certificate has expired"),
        (ELSEWHERE, AUTHORITY, "not valid for '127.0.0.1'"),
    ],
    ids=["unknown authority", "self-signed", "expired", "another's name"],
)
def test_a_certificate_that_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch,
    pem: Callable[[str], Path],
    way: Way,
    proxied: bool,
    certificate: str,
    trusted: str,
    expected: str,
) -> None:
    """P18 P43 It is told why, nothing was billed, and neither prompt nor key was sent."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem(trusted)))

    async def run() -> None:
        async with (
            Hostile(lambda n: ok(), tls=pem(certificate)) as server,
            Proxy(server.port) as proxy,
        ):
            if proxied:
                monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
            (failure,) = await sent(way, server.url)
            assert isinstance(failure, Failure)
            assert (failure.meaning, failure.reason, failure.may_be_billed) == (
                "account",
                "certificate",
                False,
            )
            assert expected in failure.message
            assert server.requests == []

    asyncio.run(run())


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_file_of_no_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    """P18 It is told by its variable and path before anything is sent."""
    path = tmp_path / "authority.pem"
    if content:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(InputError, match=f"SSL_CERT_FILE={path}"):
        Client(connection("https://api.test/v1"), KEY, connections=1)
    Client(connection("https://api.test/v1"), KEY, connections=1, direct=True)


def test_a_run_that_trusts_nobody(lab: Lab, pem: Callable[[str], Path]) -> None:
    """P17 P24 A server whose certificate is not trusted stops the job with 4 at once, and says what
    to set; its rows stay pending."""
    server = Hostile(lambda n: ok(), tls=pem(EXPIRED))
    thread = Server(server.start, server.stop)
    try:
        job = lab.job(server.url, rows=1)
        done = lab.run("run", job, env=lab.environ(SSL_CERT_FILE=str(pem(AUTHORITY))))
    finally:
        thread.close()
    assert done.returncode == 4, done.stdout + done.stderr
    assert "certificate has expired" in done.stderr
    assert "SSL_CERT_FILE" in done.stderr
    assert [row["status"] for row in lab.table()] == ["pending"]
    assert server.requests == []


@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows"])
def test_whom_both_ways_trust(
    monkeypatch: pytest.MonkeyPatch, pem: Callable[[str], Path], system: str
) -> None:
    """P18 Without variables it is whom the operating system trusts: OpenSSL's own list on Linux,
    the system's own judgement elsewhere; certificates and names are checked, and both ways use the
    one context, with and without a proxy."""
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "direct.test")
    used: list[ssl.SSLContext] = []
    connect = "aiohttp.TCPConnector._create_connection"

    async def noted(connector: Any, req: Any, *_: Any) -> Any:
        used.append(connector._get_ssl_context(req))
        raise ConnectionResetError

    monkeypatch.setattr(connect, noted)

    async def run() -> None:
        for host in ("direct.test", "proxied.test"):
            async with Client(connection(f"https://{host}/v1"), KEY, connections=1) as client:
                await client.post(request("r", body=BODY))
                await on("client", client).post(request("r", body=BODY))

    asyncio.run(run())
    assert len(used) == 4
    assert used[0] is used[1]
    assert used[2] is used[3]
    for context in used:
        assert isinstance(context, truststore.SSLContext) == (system != "Linux")
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


# -- replies ---------------------------------------------------------------------------------------


def seen(reply: Reply | Failure) -> Any:
    """What is made of a reply; of its headers those that are read."""
    if isinstance(reply, Failure):
        return reply
    return (
        reply.status,
        reply.body,
        reply.headers.get("x-request-id"),
        reply.headers.get("x-ratelimit-limit-requests"),
    )


def both(behaviour: Behaviour, *, endpoint: str = "/chat/completions") -> tuple[Any, Any]:
    """What comes back on the route, and what through the client."""

    async def run() -> tuple[Any, Any]:
        async with Hostile(lambda n: behaviour) as server:
            results = []
            for way in ("route", "client"):
                async with Client(
                    connection(server.url), KEY, connections=1, direct=True
                ) as client:
                    results.append(
                        seen(await on(way, client).post(request("r", endpoint=endpoint, body=BODY)))
                    )
            return results[0], results[1]

    return asyncio.run(run())


FAILURES = [(name, http(status, body, headers)) for name, status, body, headers, *_ in ERRORS]
FAILURES += [(name, behaviour) for name, behaviour, meaning, *_ in BROKEN if meaning != "timeout"]


@pytest.mark.parametrize(
    "behaviour", [each[1] for each in FAILURES], ids=[each[0] for each in FAILURES]
)
def test_errors_are_the_same_on_both_ways(behaviour: Behaviour) -> None:
    """P18 Every error answer and every broken one is the same failure, or the same reply, to the
    last word."""
    route, client = both(behaviour)
    assert route == client


TEXT = json.dumps(CHAT).encode()
PACKED = gzip.compress(TEXT, mtime=0)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


def length(data: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(data)


CHUNKED = b"Transfer-Encoding: chunked\r\n"
REPLIES: dict[str, tuple[bytes, bytes | str]] = {
    "plain": (length(TEXT) + b"\r\n" + TEXT, TEXT),
    "chunked": (CHUNKED + b"\r\n" + chunked(TEXT), TEXT),
    "chunked with trailers": (CHUNKED + b"\r\n" + chunked(TEXT)[:-2] + b"X-T: 1\r\n\r\n", TEXT),
    "packed": (length(PACKED) + b"Content-Encoding: gzip\r\n\r\n" + PACKED, TEXT),
    "packed in chunks": (CHUNKED + b"Content-Encoding: GZIP\r\n\r\n" + chunked(PACKED), TEXT),
    "identity": (length(TEXT) + b"Content-Encoding: identity\r\n\r\n" + TEXT, TEXT),
    "an empty encoding": (length(TEXT) + b"Content-Encoding:\r\n\r\n" + TEXT, TEXT),
    "two encodings": (
        length(PACKED) + b"Content-Encoding: gzip, br\r\n\r\n" + PACKED,
        "invalid_response",
    ),
    "two headers of encoding": (
        length(PACKED) + b"Content-Encoding: gzip\r\nContent-Encoding: br\r\n\r\n" + PACKED,
        "invalid_response",
    ),
    "a length of none": (b"Content-Length: 0\r\n\r\n", b""),
    "a length below none": (b"Content-Length: -1\r\n\r\n", "reset"),
    "two lengths": (length(TEXT) + b"Content-Length: 1\r\n\r\n" + TEXT, "reset"),
    "a length and chunks": (b"Content-Length: 1\r\n" + CHUNKED + b"\r\n" + chunked(TEXT), "reset"),
}


@pytest.mark.parametrize(("rest", "expected"), REPLIES.values(), ids=REPLIES)
def test_replies_are_the_same_on_both_ways(rest: bytes, expected: bytes | str) -> None:
    """P18 P20 Lengths, chunks and encodings, true and contradictory."""
    route, client = both(raw(b"HTTP/1.1 200 OK\r\nX-Request-Id: q\r\n" + rest))
    assert route == client
    assert (route.reason if isinstance(route, Failure) else route[1]) == expected


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
    ],
)
def test_what_comes_before_a_reply(head: bytes) -> None:
    """P18 Interim replies are passed over."""
    route, client = both(raw(head + b"HTTP/1.1 200 OK\r\n" + length(TEXT) + b"\r\n" + TEXT))
    assert route == client
    assert route[1] == TEXT


@pytest.mark.parametrize("status", [200, 201, 202, 204, 205, 206, 299])
def test_a_success_without_a_body(status: int) -> None:
    """P18 It is a reply without a word, from which no answer is read."""
    route, client = both(raw(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()))
    assert route == client
    assert route[:2] == (status, b"")


def test_a_reply_to_its_end() -> None:
    """P18 Without a length a reply ends with its connection."""
    route, client = both(raw(b"HTTP/1.1 200 OK\r\n\r\n" + TEXT, then="close"))
    assert route == client
    assert route[1] == TEXT


def test_headers_of_one_request_are_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """P28 Should the openai client give each request an idempotency key, each gets its own."""
    made = openai.AsyncOpenAI.__init__

    def with_keys(self: openai.AsyncOpenAI, **options: Any) -> None:
        made(self, **options)
        self._idempotency_header = "Idempotency-Key"

    async def run() -> list[bytes]:
        async with (
            Hostile(lambda n: ok()) as server,
            Client(connection(server.url), KEY, connections=1, direct=True) as client,
        ):
            for name in ("a", "b", "c"):
                assert isinstance(await client.post(request(name)), Reply)
            return server.requests

    plain = asyncio.run(run())
    assert not any(b"idempotency" in each.lower() for each in plain)
    monkeypatch.setattr(openai.AsyncOpenAI, "__init__", with_keys)
    sent = asyncio.run(run())
    keys = [key for each in sent for key in re.findall(rb"(?i)idempotency-key: (\S+)", each)]
    assert len(set(keys)) == len(keys) == len(sent) == 3
