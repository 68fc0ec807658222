"""Every misbehaviour of a server, over the real transport: each ends as the right class of failure
and nothing is raised."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
import resource
import socket
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
from hostile import (
    BROKEN,
    CERTIFICATE,
    CHAT,
    ERRORS,
    Behaviour,
    Hostile,
    bomb,
    dripping,
    http,
    ok,
    raw,
)
from lab import KEY, Lab, Server
from virtual import PRICES, Memory, Run, now, request

from batchgen.dispatch import Failure, Received
from batchgen.dispatch.api import body as body_module
from batchgen.dispatch.api.causes import why_unreached
from batchgen.dispatch.api.client import Client
from batchgen.dispatch.api.file_descriptors import available_connections
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.limits.admission import Admission
from batchgen.dispatch.limits.spending import Spending
from batchgen.dispatch.online.attempts import AttemptResult, AttemptRunner
from batchgen.dispatch.online.watchdog import Watchdog
from batchgen.job import Connection
from batchgen.requests import Request, Upload

MESSAGES = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "the prompt"}]}


def connection(url: str, **parts: Any) -> Connection:
    defaults: dict[str, Any] = {"organization": None, "project": None, "headers": {}}
    return Connection(base_url=url, provider_id="test", **{**defaults, **parts})


async def call(
    url: str,
    sent: Request | None = None,
    *,
    seconds: float = 20,
    direct: bool = True,
    recorder: Memory | None = None,
) -> AttemptResult:
    """One call, as the backend makes it."""
    sent = sent or request("r", body=MESSAGES)
    admission = Admission(
        requests=None, tokens=None, pictures=None, spending=Spending(), prices=PRICES, clock=now
    )
    async with Client(connection(url), KEY, connections=2, direct=direct) as client:
        watchdog = Watchdog(
            timeout=seconds,
            give_up=900,
            max_time=None,
            limiter=admission.adaptive,
            host="h",
            in_flight=lambda: 1,
            stop=lambda why: None,
            show=lambda: None,
            clock=now,
        )
        attempts = AttemptRunner(
            transport=client,
            recorder=recorder or Memory(Run()),
            prices=PRICES,
            admission=admission,
            watchdog=watchdog,
            clock=now,
        )
        permit = await admission.admit(sent)
        async with watchdog:
            return await attempts.run(sent, permit, number=1, ready_at=now())


def result(behaviour: Behaviour, *args: Any, **parts: Any) -> Any:
    """How one call to a server that behaves like this ends."""

    async def run() -> Any:
        async with Hostile(lambda n: behaviour) as server:
            return (await call(server.url, *args, **parts)).result

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "reason", "words"),
    [
        ("http://255.255.255.255:9/v1", "unreachable", "network is unreachable"),
        ("http://127.0.0.1:9/v1", "refused", "connection refused"),
    ],
)
def test_a_server_that_is_not_reached(url: str, reason: str, words: str) -> None:
    """P24 A network without a way to the server is not a server that refuses."""
    failure = asyncio.run(call(url)).result
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason, failure.status) == ("network", reason, None)
    assert why_unreached(failure) == words
    assert not failure.may_be_billed


# -- error answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "body", "headers", "meaning", "reason"),
    ERRORS,
    ids=[each[0] for each in ERRORS],
)
def test_an_error_answer(
    name: str, status: int, body: Any, headers: dict[str, str], meaning: str, reason: str
) -> None:
    """P18 Every shape of error body that compatible servers send."""
    failure = result(http(status, body, headers))
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason) == (meaning, reason)
    assert "told" in failure.message or b"told" not in (
        body if isinstance(body, bytes) else str(body).encode()
    )


@pytest.mark.parametrize(
    ("name", "behaviour", "meaning", "reason", "unknown"), BROKEN, ids=[each[0] for each in BROKEN]
)
def test_a_broken_answer(
    name: str, behaviour: Behaviour, meaning: str, reason: str, unknown: bool
) -> None:
    """P18 P19 Junk, breaks, hangs and drips end as failures, by the wall clock at the latest."""
    failure = result(behaviour, seconds=0.3 if meaning == "timeout" else 20)
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason, failure.may_be_billed) == (meaning, reason, unknown)
    assert len(failure.message) <= 500


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After-Ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "1e9"}, 1e9),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e400"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "\xff\xfe"}, None),
    ],
)
def test_retry_after_over_the_wire(headers: dict[str, str], seconds: float | None) -> None:
    """P22 Absurd values of Retry-After are read as none; the client itself waits for nothing."""
    assert result(http(429, b"", headers)).retry_after == seconds


def test_odd_answers_that_are_answers() -> None:
    """P18 P28 NaN beside the answer, a lone surrogate or NUL in it, unknown fields, gzip: paid for,
    and kept."""
    choice = b'{"message": {"content": "\\ud800\\u0000"}, "logprobs": NaN}'
    text = b'{"choices": [' + choice + b'], "new": {"field": 1}}'
    received = result(http(200, text))
    assert isinstance(received, Received)
    assert received.answer.choices[0].text == "\ud800\x00"


# -- connections -----------------------------------------------------------------------------------


def ended(url: str, **parts: Any) -> Failure:
    failure = asyncio.run(call(url, **parts)).result
    assert isinstance(failure, Failure)
    return failure


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_refused_connection() -> None:
    """P18 The aiohttp transport calls it a time-out; it is not, and nothing was billed."""
    failure = ended(f"http://127.0.0.1:{free_port()}/v1")
    assert (failure.meaning, failure.reason, failure.may_be_billed, failure.status) == (
        "network",
        "refused",
        False,
        None,
    )


def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """P18 DNS by its cause."""

    def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    failure = ended("http://name.invalid/v1")
    assert (failure.meaning, failure.reason, failure.may_be_billed) == ("network", "dns", False)
    assert "name.invalid" in failure.message


def test_tls_to_a_plain_port() -> None:
    """P18 A server that does not speak TLS."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def run() -> Any:
        async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
            return (await call(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")).result

    failure = asyncio.run(run())
    assert (failure.meaning, failure.reason, failure.may_be_billed) == ("network", "tls", False)


def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    """P18 Its prompt is not sent."""
    pem = tmp_path / "server.pem"
    pem.write_text(CERTIFICATE)

    async def run() -> Any:
        async with Hostile(lambda n: ok(), tls=pem) as server:
            return (await call(server.url)).result, server.requests

    failure, raw_request = asyncio.run(run())
    assert (failure.meaning, failure.reason, raw_request) == ("account", "certificate", [])


def test_a_trust_store_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P18 SSL_CERT_FILE is honoured."""
    pem = tmp_path / "server.pem"
    pem.write_text(CERTIFICATE)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))

    async def run() -> Any:
        async with Hostile(lambda n: ok(), tls=pem) as server:
            return (await call(server.url, direct=False)).result

    assert isinstance(asyncio.run(run()), Received)


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """P18 HTTP_PROXY is used, a dead one is called by its name, and NO_PROXY and `direct` leave it
    out."""
    for name in (
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    failure = ended("http://127.0.0.1:9/v1", direct=False)
    assert (failure.meaning, failure.reason, failure.may_be_billed) == ("network", "proxy", False)
    assert isinstance(result(ok()), Received)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert isinstance(result(ok(), direct=False), Received)


@pytest.mark.filterwarnings("ignore:Sending a large body")
def test_a_server_that_reads_nothing() -> None:
    """P19 A large body that nobody takes ends at the deadline, too."""

    async def run() -> Any:
        release = asyncio.Event()

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await release.wait()
            writer.transport.abort()

        server = await asyncio.start_server(deaf, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        big = request("r", body={**MESSAGES, "user": "x" * 20_000_000})
        called = await call(f"http://127.0.0.1:{port}/v1", big, seconds=0.5)
        release.set()
        server.close()
        await server.wait_closed()
        return called.result

    assert asyncio.run(run()).meaning == "timeout"


# -- what never leaves -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """P43 The other host is never contacted; neither prompt nor key gets there."""

    async def run() -> Any:
        async with Hostile(lambda n: ok()) as other:
            there = http(status, b"", {"Location": f"{other.url}/chat/completions"})
            async with Hostile(lambda n: there) as server:
                return (await call(server.url)).result, other.connections, server.requests

    failure, connections, raw_request = asyncio.run(run())
    assert (failure.meaning, failure.reason) == ("account", "redirect")
    assert (connections, len(raw_request)) == (0, 1)
    assert b"the prompt" in raw_request[0]


def test_a_picture_behind_a_link_is_not_fetched() -> None:
    """P37 Its row fails with a hint, and the named host is never contacted."""
    from batchgen.kinds import KINDS

    class Pictures(Memory):
        async def receive(self, request: Request, body: Any, reply: bytes) -> Received:
            return Received(answer=KINDS["image"].read(body, request.body), reply=reply)

    async def run() -> Any:
        async with Hostile(lambda n: ok()) as other:
            reply = http(200, {"data": [{"url": f"{other.url}/p.png"}]})
            async with Hostile(lambda n: reply) as server:
                sent = request(
                    "r",
                    endpoint="/images/generations",
                    body={"model": "m", "prompt": "p"},
                    pictures=1,
                )
                return (
                    await call(server.url, sent, recorder=Pictures(Run()))
                ).result, other.connections

    failure, connections = asyncio.run(run())
    assert (failure.meaning, failure.reason, connections) == ("row", "invalid_response", 0)
    assert "b64_json" in failure.message


def test_a_key_in_a_message_is_redacted() -> None:
    """P40 Servers quote keys; the failure does not."""
    message = f"Incorrect API key provided: {KEY}, or Bearer {KEY}x, or sk-proj-abcdefgh12345678"
    failure = result(http(401, {"error": {"message": message, "code": "invalid_api_key"}}))
    assert KEY not in failure.message
    assert "abcdefgh" not in failure.message
    page = result(http(200, f"<html>{KEY}</html>"))
    assert KEY not in page.message


def test_a_key_in_an_answer_is_not_kept() -> None:
    """P40 A server that sends the key back with an answer, in a header or in the text, finds it
    neither in the journal nor in a table; an answer without it is kept as it came."""

    async def replies() -> list[Any]:
        behaviours = [http(200, {**CHAT, "id": KEY}, {"X-Request-Id": f"req-{KEY}"}), ok()]
        async with (
            Hostile(lambda n: behaviours[n - 1]) as server,
            Client(connection(server.url), KEY, connections=1, direct=True) as client,
        ):
            return [await client.post(request("r", body=MESSAGES)) for _ in behaviours]

    expected, plain = asyncio.run(replies())
    assert KEY not in str(expected)
    assert json.loads(expected.body) == {**CHAT, "id": "[key]"}
    assert expected.headers["x-request-id"].startswith("req-")
    assert json.loads(plain.body) == CHAT


@pytest.mark.parametrize("cut", [480, 490, 495, 499])
def test_a_key_at_the_cut_is_redacted_whole(cut: int) -> None:
    """P40 A message is redacted before it is cut, so that no half of a key is left; so is a page
    that is no JSON."""
    expected = ({"error": {"message": "x" * cut + KEY}}, "x" * cut + KEY)
    for behaviour in (*(http(500, body) for body in expected), http(200, expected[1])):
        assert KEY[:10] not in result(behaviour).message


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """P40 P43 The key as a bearer, the job's headers, no more than was asked for from the
    environment."""
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Stray: secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "stray-org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "stray-project")

    async def run() -> Any:
        async with Hostile(lambda n: ok()) as server:
            named = connection(
                server.url, organization="org", project="proj", headers={"X-Mine": "1"}
            )
            async with Client(named, KEY, connections=1, direct=True) as client:
                await client.post(request("r", body=MESSAGES))
            async with Client(connection(server.url), None, connections=1, direct=True) as client:
                await client.post(request("r", body=MESSAGES))
            return server.requests

    first, second = (raw_request.lower() for raw_request in asyncio.run(run()))
    assert f"authorization: bearer {KEY}".encode() in first
    assert b"x-mine: 1" in first
    assert b"openai-organization: org" in first
    assert b"openai-project: proj" in first
    assert b"stray" not in first + second
    assert b"authorization" not in second


def test_an_upload_that_changed_is_not_sent(tmp_path: Path) -> None:
    """P36 Neither one that is gone: the row fails, and no server was called."""
    path = tmp_path / "a.png"
    sent = request(
        "r",
        endpoint="/images/edits",
        body={"model": "m", "prompt": "p"},
        uploads=(
            Upload(field="image", path=str(path), name="a.png", media_type="image/png", sha256="0"),
        ),
    )
    for content in (None, b"other"):
        if content:
            path.write_bytes(content)
        failure = ended(f"http://127.0.0.1:{free_port()}/v1", sent=sent)
        assert (failure.meaning, failure.reason, failure.may_be_billed) == ("row", "input", False)
        assert "a.png" in failure.message


def test_a_prompt_that_cannot_be_encoded_is_a_failure() -> None:
    """P18 What the libraries raise before anything is sent is a failure of the row's, not a
    crash."""
    failure = result(ok(), request("r", body={**MESSAGES, "user": "\ud800"}))
    assert isinstance(failure, Failure)


# -- every exception -------------------------------------------------------------------------------


def family(root: type[BaseException]) -> set[type[BaseException]]:
    return {root}.union(*(family(child) for child in root.__subclasses__()))


def made(kind: type[BaseException]) -> BaseException:
    """An instance, however its constructor wants to be called."""
    where = SimpleNamespace(host="h", port=1, is_ssl=True, ssl=True, proxy=None)
    asked = httpx2.Request("POST", "http://h/v1")
    answered = httpx2.Response(418, request=asked, content=b"told")
    info = SimpleNamespace(real_url="http://h/v1")
    ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("a message",), {}),
        ((), {}),
        (("a message",), {"request": asked, "response": answered}),
        (("a message",), {"response": answered, "body": None}),
        (("a message", asked), {"body": None}),
        ((), {"request": asked}),
        ((answered, None), {}),
        ((where, OSError(1, "a message")), {}),
        (("/path", where, OSError(1, "a message")), {}),
        ((info, ()), {}),
        ((b"a", b"b", "h", 1), {}),
        ((), {"completion": SimpleNamespace(usage=None)}),
        ((), {"response": answered, "body": None}),
    ]
    for args, named in ways:
        try:
            error = kind(*args, **named)
            str(error)
        except Exception:
            continue
        return error
    return kind.__new__(kind, "a message")


FOREIGN = sorted(
    family(openai.OpenAIError)
    | family(aiohttp.ClientError)
    | family(httpx2.HTTPError)
    | family(httpx2.InvalidURL)
    | family(httpx2.StreamError)
    | {TypeError, RuntimeError, OSError, TimeoutError, ValueError, RecursionError},
    key=lambda kind: f"{kind.__module__}.{kind.__qualname__}",
)


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_every_foreign_exception_is_a_failure(kind: type[BaseException]) -> None:
    """P18 SDK contract: no exception class of openai, aiohttp or httpx2 comes out, bare or as the
    SDK wraps it."""
    error = made(kind)

    async def run() -> Any:
        async with Client(
            connection("http://127.0.0.1:9/v1"), KEY, connections=1, direct=True
        ) as client:

            async def bare(*_: Any, **__: Any) -> Any:
                raise error

            async def wrapped(*_: Any, **__: Any) -> Any:
                raise openai.APIConnectionError(
                    request=httpx2.Request("POST", "http://h/v1")
                ) from error

            results = []
            for post in (bare, wrapped):
                client._sdk_post = post  # type: ignore[method-assign]
                results.append(await client.post(request("r", body=MESSAGES)))
            client._routes["/chat/completions"] = SimpleNamespace(post=bare)  # type: ignore[assignment]
            results.append(await client.post(request("r", body=MESSAGES)))
            return results

    for failure in asyncio.run(run()):
        assert isinstance(failure, Failure)
        assert failure.message


def test_cancelling_a_call_cancels_it() -> None:
    """P14 A call that is abandoned ends at once, and leaves no connection behind."""

    async def run() -> None:
        raw_request = asyncio.Event()

        def hang(n: int) -> Behaviour:
            raw_request.set()
            return raw(b"", then="hang")

        async with (
            Hostile(hang) as server,
            Client(connection(server.url), KEY, connections=1, direct=True) as client,
        ):
            task = asyncio.create_task(client.post(request("r", body=MESSAGES)))
            await raw_request.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


# -- size ------------------------------------------------------------------------------------------


def test_a_large_reply_that_is_true_is_read() -> None:
    """P20 Compressed or not, a reply within its bound comes through."""
    text = json.dumps({**CHAT, "choices": [{"message": {"content": "word " * 4_000_000}}]}).encode()
    for behaviour in (
        http(200, text),
        http(200, gzip.compress(text, 1), {"Content-Encoding": "gzip"}),
    ):
        received = result(behaviour)
        assert isinstance(received, Received)
        assert len(received.answer.choices[0].text) == 20_000_000


@pytest.mark.parametrize("endpoint", ["/chat/completions", "/images/generations"])
def test_a_reply_beyond_its_bound(endpoint: str) -> None:
    """P20 A bomb is not unpacked, for pictures neither, and a text beyond 32 MiB is not read."""
    sent = request("r", endpoint=endpoint, body=MESSAGES)
    assert "larger than" in result(bomb(), sent).message
    if endpoint == "/chat/completions":
        assert "larger than 32 MiB" in result(http(200, b" " * (33 << 20)), sent).message


@pytest.mark.parametrize(
    ("hard", "workers"), [(256, 192), (512, 448), (4096, 500), (resource.RLIM_INFINITY, 500)]
)
def test_file_descriptors_are_enough(
    monkeypatch: pytest.MonkeyPatch, hard: int, workers: int
) -> None:
    """P15 Under `ulimit -n 256` the limit is raised as far as it goes, or the concurrency capped by
    it."""
    limits = [256, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: tuple(limits))
    monkeypatch.setattr(
        resource, "setrlimit", lambda kind, wanted: limits.__setitem__(slice(None), wanted)
    )
    assert available_connections(500) == workers
    assert available_connections(10) == 10


# -- the whole command -----------------------------------------------------------------------------


@contextmanager
def hostile(script: Any) -> Iterator[Hostile]:
    """A hostile server in another thread while the block runs."""
    server = Hostile(script)
    thread = Server(server.start, server.stop)
    try:
        yield server
    finally:
        thread.close()


def test_a_run_through_every_passing_fault(lab: Lab) -> None:
    """P18 Each broken answer once, then a true one: every row is answered, and the junk is nowhere
    in the table."""
    faults = [each[1] for each in BROKEN if each[2] != "timeout" and each[0] != "gzip bomb"] + [
        dripping()
    ]
    seen: set[int] = set()

    def script(n: int) -> Behaviour:
        expected = re.search(rb"ECHO:answer (\d+)", server.requests[n - 1])
        assert expected
        row = int(expected[1])
        if row in seen or row > len(faults):
            return ok(f"true {row}")
        seen.add(row)
        return faults[row - 1]

    with hostile(script) as server:
        job = lab.job(
            server.url, rows=60, retry={"timeout": 3, "max_wait": 0.2}, limits={"concurrency": 4}
        )
        done = lab.run("run", job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(row["status"], row["output"]) for row in lab.table()] == [
        ("succeeded", f"true {n}") for n in range(1, 61)
    ]


@pytest.mark.parametrize(
    ("behaviour", "code", "expected"),
    [
        (
            http(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
            4,
            "refused the key",
        ),
        (http(429, {"error": {"message": "m", "code": "insufficient_quota"}}), 4, "quota"),
        (http(429, b"", {"Retry-After": "1e9"}), 5, "asks to wait"),
        (http(307, b"", {"Location": "http://127.0.0.1:9/"}), 4, "redirects"),
        (http(404, b"no such page"), 4, "the same refusal"),
        (http(400, {"error": {"message": "m"}}), 4, "the same refusal"),
    ],
    ids=["key", "quota", "wait", "redirect", "not found", "refusal"],
)
def test_a_run_that_stops(lab: Lab, behaviour: Behaviour, code: int, expected: str) -> None:
    """P17 P23 The exit code and one sentence; few calls, nothing of the key."""
    with hostile(lambda n: behaviour) as server:
        done = lab.run("run", lab.job(server.url, rows=200, limits={"concurrency": 4}))
    assert done.returncode == code, done.stdout + done.stderr
    assert expected in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    assert len(server.requests) <= 30


# Between the test and the run: a process's peak starts with that of the process which started it.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_a_bomb_costs_no_memory(lab: Lab) -> None:
    """P20 A 300 MB gzip bomb leaves the resident memory of the run below 300 MB."""
    packed = bomb()
    with hostile(lambda n: packed) as server:
        job = lab.job(server.url, rows=4, retry={"attempts": 1}, limits={"concurrency": 4})
        command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "batchgen", "run", str(job)]
        done = subprocess.run(
            command, env=lab.environ(), capture_output=True, text=True, check=True
        )
    code, peak = map(int, done.stdout.split())
    assert (code, len(server.requests)) == (3, 4)
    assert peak / (1 << 20 if sys.platform == "darwin" else 1 << 10) < 300


def test_a_reply_is_a_reply() -> None:
    """The other side: a true answer comes as it was sent, its headers in lower case."""

    async def run() -> Any:
        async with (
            Hostile(lambda n: http(200, CHAT, {"X-Request-Id": "q1"})) as server,
            Client(connection(server.url), KEY, connections=1, direct=True) as client,
        ):
            return await client.post(request("r", body=MESSAGES))

    reply = asyncio.run(run())
    assert isinstance(reply, Reply)
    assert reply.headers["x-request-id"] == "q1"


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


def test_a_small_reply_is_no_large_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """P20 What is compressed a thousand times is a bomb, within the bound of a reply with pictures
    as well."""
    monkeypatch.setattr(body_module, "MAX_TEXT_REPLY", 10_000)
    bomb = gzip.compress(b" " * 500_000)
    with pytest.raises(body_module.ReplyTooLargeError):
        asyncio.run(body_module.read_body(pieces(bomb), "gzip", 1_000_000))


@pytest.mark.parametrize("lacking", [1, 8, 9])
def test_a_compressed_reply_that_breaks_off(lacking: int) -> None:
    """P18 A reply whose compression is not whole is none, though all of its text may be there."""
    data = gzip.compress(b'{"a": 1}')
    assert asyncio.run(body_module.read_body(pieces(data), "gzip", 1000)) == b'{"a": 1}'
    with pytest.raises(zlib.error):
        asyncio.run(body_module.read_body(pieces(data[:-lacking]), "gzip", 1000))


def sent_to(tmp_path: Path) -> Request:
    """A request with a picture."""
    path = tmp_path / "a.png"
    path.write_bytes(b"the picture")
    digest = hashlib.sha256(b"the picture").hexdigest()
    upload = Upload(
        field="image", path=str(path), name="a.png", media_type="image/png", sha256=digest
    )
    return request(
        "r", endpoint="/images/edits", body={"model": "m", "prompt": "p"}, uploads=(upload,)
    )


def test_redirects_of_uploads_are_not_followed(tmp_path: Path) -> None:
    """P43 Nor does a picture that a row sends get to another host."""

    async def run() -> Any:
        async with Hostile(lambda n: ok()) as other:
            there = http(307, b"", {"Location": f"{other.url}/images/edits"})
            async with Hostile(lambda n: there) as server:
                return (await call(server.url, sent_to(tmp_path))).result, other.connections

    failure, connections = asyncio.run(run())
    assert (failure.meaning, failure.reason, connections) == ("account", "redirect", 0)


def test_an_upload_is_one_call(tmp_path: Path) -> None:
    """P46 What fails is told, and not tried again behind batchgen's back: no call is missing in the
    audit."""

    async def run() -> Any:
        async with Hostile(lambda n: http(500, b"", {"Retry-After-Ms": "1"})) as server:
            return (await call(server.url, sent_to(tmp_path))).result, len(server.requests)

    failure, raw_request = asyncio.run(run())
    assert (failure.status, raw_request) == (500, 1)


def test_a_certificate_stops_the_run_at_once(lab: Lab, tmp_path: Path) -> None:
    """P23 A certificate that is not trusted ends the run with 4 and names SSL_CERT_FILE; there is
    no retry, and every row stays pending."""
    pem = tmp_path / "server.pem"
    pem.write_text(CERTIFICATE)
    server = Hostile(lambda n: ok(), tls=pem)
    thread = Server(server.start, server.stop)
    try:
        job = lab.job(server.url, rows=50, limits={"concurrency": 2})
        done = lab.run("run", job)
    finally:
        thread.close()
    assert done.returncode == 4, done.stdout + done.stderr
    assert "SSL_CERT_FILE" in done.stdout + done.stderr
    assert (server.connections <= 4, server.requests) == (True, [])
    assert {row["status"] for row in lab.table()} == {"pending"}
