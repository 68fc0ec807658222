"""The HTTP calls of batches: small exchanges, uploads and downloads, over real sockets."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
from hostile import BROKEN, ERRORS, Behaviour, Hostile, bomb, http, raw
from lab import KEY, serving
from proxies import Proxy, connection
from virtual import virtually

from batchgen.batch_format import parse_result, request_line
from batchgen.dispatch import Failure
from batchgen.dispatch.api import client as client_module
from batchgen.dispatch.api import files as files_module
from batchgen.dispatch.api.body import TruncatedReplyError, body_pieces
from batchgen.dispatch.api.causes import failure_of
from batchgen.dispatch.api.client import Client
from batchgen.dispatch.api.http import Reply
from batchgen.errors import OutputError
from batchgen.simulator import Settings

Answer = Reply | Failure | None
Ask = Callable[[Client, Path], Awaitable[Answer]]
LINES = b'{"custom_id": "1"}\n{"custom_id": "2"}\n'
CONTENT = "/files/file-1/content"
BATCH = {
    "input_file_id": "file-1",
    "endpoint": "/v1/embeddings",
    "completion_window": "24h",
    "metadata": {"a": "ü"},
}


def client(url: str, key: str | None = KEY, **parts: Any) -> Client:
    return Client(connection(url, **parts), key, connections=2, direct=True)


async def asked(client: Client, folder: Path) -> Answer:
    return await client.call("GET", "/batches/batch_1")


async def cancelled(client: Client, folder: Path) -> Answer:
    return await client.call("POST", "/batches/batch_1/cancel")


async def uploaded(client: Client, folder: Path) -> Answer:
    (folder / "requests").write_bytes(LINES)
    return await client.upload(folder / "requests", "requests.jsonl", idle=20)


async def downloaded(client: Client, folder: Path) -> Answer:
    return await client.download(CONTENT, folder / "output", idle=20)


WAYS: dict[str, Ask] = {"ask": asked, "post": cancelled, "upload": uploaded, "download": downloaded}
ALL = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def result(way: Ask, folder: Path, behaviour: Behaviour) -> Any:
    """The result of a call to a server that behaves like this."""

    async def run() -> Answer:
        async with Hostile(lambda n: behaviour) as server, client(server.url) as there:
            return await way(there, folder)

    return asyncio.run(run())


def fetched(folder: Path, behaviour: Behaviour) -> bytes:
    """The file from a server that behaves like this."""
    assert result(downloaded, folder, behaviour) is None
    return (folder / "output").read_bytes()


# -- what is sent ----------------------------------------------------------------------------------


def normalized(request: bytes) -> tuple[str, dict[str, str], Any]:
    """A request line, headers and body, without what may differ: key order and form boundary."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    for name in ("x-stainless-read-timeout", "content-length"):
        assert name != "content-length" or int(headers.get(name, 0)) == len(body)
        headers.pop(name, None)
    kind, _, boundary = headers.get("content-type", "").partition("; boundary=")
    if boundary:
        headers["content-type"], body = kind, body.replace(boundary.encode(), b"boundary")
    return first, headers, json.loads(body) if body.startswith(b"{") else body


def test_what_is_sent_is_what_the_openai_client_sends(tmp_path: Path) -> None:
    """Method, path, query, headers, form and body are those of files.create, batches.* and
    files.content. A file is sent with its length, not in chunks, which some servers refuse."""
    path = tmp_path / "requests"
    path.write_bytes(LINES)

    async def run() -> list[bytes]:
        async with Hostile(lambda n: http(200, {"object": "list", "data": []})) as server:
            # What else could be decoded depends on the packages beside the SDK.
            decoded = {"Accept-Encoding": "gzip, deflate"}
            async with openai.AsyncOpenAI(
                api_key=KEY, base_url=server.url, max_retries=0, default_headers=decoded
            ) as sdk:
                await sdk.files.create(
                    file=("a.jsonl", LINES, "application/jsonl"), purpose="batch"
                )
                await sdk.batches.create(**BATCH)  # type: ignore[arg-type]
                await sdk.batches.retrieve("batch_1")
                await sdk.batches.list(after="batch_0", limit=100)
                await sdk.batches.cancel("batch_1")
                await sdk.files.content("file-1")
            async with client(server.url) as ours:
                await ours.upload(path, "a.jsonl", idle=20)
                await ours.call("POST", "/batches", BATCH)
                await ours.call("GET", "/batches/batch_1")
                await ours.call("GET", "/batches?after=batch_0&limit=100")
                await ours.call("POST", "/batches/batch_1/cancel")
                await ours.download(CONTENT, tmp_path / "output", idle=20)
            return server.requests

    requests = asyncio.run(run())
    theirs, ours = (
        [normalized(each) for each in requests[:6]],
        [normalized(each) for each in requests[6:]],
    )
    assert ours == theirs
    assert ours[0][2] == (
        b'--boundary\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
        b"Content-Type: application/jsonl\r\n\r\n" + LINES + b"\r\n--boundary--\r\n"
    )
    assert [each[0] for each in ours] == [
        "POST /v1/files HTTP/1.1",
        "POST /v1/batches HTTP/1.1",
        "GET /v1/batches/batch_1 HTTP/1.1",
        "GET /v1/batches?after=batch_0&limit=100 HTTP/1.1",
        "POST /v1/batches/batch_1/cancel HTTP/1.1",
        "GET /v1/files/file-1/content HTTP/1.1",
    ]


@ALL
def test_what_a_call_carries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: Ask) -> None:
    """P40 P43 Calls carry the key as a bearer or none, and the job's headers; nothing else from the
    environment."""
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Stray: secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "stray-org")

    async def run() -> list[bytes]:
        async with Hostile(lambda n: http(200, {})) as server:
            async with client(server.url, project="proj", headers={"X-Mine": "1"}) as there:
                await way(there, tmp_path)
            async with client(server.url, None) as there:
                await way(there, tmp_path)
            return [each.lower() for each in server.requests]

    first, second = asyncio.run(run())
    assert f"authorization: bearer {KEY}".encode() in first
    assert b"x-mine: 1" in first
    assert b"openai-project: proj" in first
    assert b"authorization" not in second
    assert b"stray" not in first + second


@ALL
def test_through_a_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: Ask) -> None:
    """P18 The environment's proxy is used, with its password; one that refuses is named as the
    cause."""

    async def run(refusal: bytes | None) -> tuple[Answer, list[bytes]]:
        async with Proxy(refusal=refusal) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://user:secret-word@{proxy.address}")
            async with Client(connection("http://api.test/v1"), KEY, connections=1) as there:
                return await way(there, tmp_path), proxy.requests

    answer, (request,) = asyncio.run(run(None))
    assert not isinstance(answer, Failure)
    assert b"http://api.test/v1/" in request.split(b"\r\n")[0]
    assert b"Basic dXNlcjpzZWNyZXQtd29yZA==" in request
    failure, _ = asyncio.run(run(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"))
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason) == ("account", "proxy")
    assert "secret-word" not in str(failure)


def test_a_proxy_that_makes_no_tunnel_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """P19 A proxy that accepts the connection and stays silent does not hold a download forever."""

    async def run() -> Answer:
        async with Hostile(lambda n: raw(b"", then="hang")) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            async with Client(connection("https://api.test/v1"), KEY, connections=1) as there:
                return await there.download(CONTENT, tmp_path / "output", idle=0.1)

    failure = asyncio.run(run())
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason) == ("network", "connect_timeout")


# -- what comes back -------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize(
    ("name", "status", "body", "headers", "meaning", "reason"),
    [each for each in ERRORS if each[1] != 200],
    ids=[each[0] for each in ERRORS if each[1] != 200],
)
def test_an_error_answer(
    tmp_path: Path,
    way: Ask,
    name: str,
    status: int,
    body: Any,
    headers: dict[str, str],
    meaning: str,
    reason: str,
) -> None:
    """P18 Every shape of error body is the same failure as for a row's call, and never becomes a
    file."""
    failure = result(way, tmp_path, http(status, body, headers))
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason, failure.status) == (meaning, reason, status)
    assert not (tmp_path / "output").exists()


# What is no HTTP, or cannot be unpacked: whether the rest is an answer is not the transport's to
# say.
PACKED = ("not gzip", "half gzip", "brotli unasked")
BREAKS = [each for each in BROKEN if each[3] == "reset" or each[0] in PACKED]


@ALL
@pytest.mark.parametrize(
    ("name", "behaviour", "meaning", "reason", "unknown"), BREAKS, ids=[each[0] for each in BREAKS]
)
def test_a_broken_answer(
    tmp_path: Path,
    way: Ask,
    name: str,
    behaviour: Behaviour,
    meaning: str,
    reason: str,
    unknown: bool,
) -> None:
    """P18 P20 Resets, truncations and junk are failures of their class; nothing is left of a broken
    file."""
    failure = result(way, tmp_path, behaviour)
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason, failure.may_be_billed) == (meaning, reason, unknown)
    assert not [path for path in tmp_path.iterdir() if path.name != "requests"]


@ALL
def test_nobody_there(tmp_path: Path, way: Ask) -> None:
    """P18 A refused connection is a failure."""

    async def run() -> Answer:
        async with Hostile(lambda n: http(200, {})) as server:
            pass
        async with client(server.url) as there:
            return await way(there, tmp_path)

    failure = asyncio.run(run())
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason, failure.may_be_billed) == ("network", "refused", False)


@ALL
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(tmp_path: Path, way: Ask, status: int) -> None:
    """P43 Neither a file nor the key gets to another host, and nothing is fetched from there."""

    async def run() -> tuple[Answer, int]:
        async with Hostile(lambda n: http(200, {})) as other:
            there = http(status, b"", {"Location": other.url})
            async with Hostile(lambda n: there) as server, client(server.url) as asking:
                return await way(asking, tmp_path), other.connections

    failure, connections = asyncio.run(run())
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason, connections) == ("account", "redirect", 0)


@ALL
def test_one_call_and_no_more(tmp_path: Path, way: Ask) -> None:
    """P46 No library retries a failed call by itself: a batch would be submitted twice."""

    async def run() -> tuple[Answer, int]:
        async with (
            Hostile(lambda n: http(500, b"", {"Retry-After-Ms": "1"})) as server,
            client(server.url) as there,
        ):
            return await way(there, tmp_path), len(server.requests)

    failure, count = asyncio.run(run())
    assert isinstance(failure, Failure)
    assert (failure.status, failure.retry_after, count) == (500, 0.001, 1)


@ALL
def test_cancelling_ends_it(tmp_path: Path, way: Ask) -> None:
    """P14 A cancelled call ends at once, and leaves no part of a file."""

    async def run() -> None:
        arrived = asyncio.Event()

        def hang(n: int) -> Behaviour:
            arrived.set()
            return raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", then="hang")

        async with Hostile(hang) as server, client(server.url) as there:
            task = asyncio.ensure_future(way(there, tmp_path))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert not [path for path in tmp_path.iterdir() if path.name != "requests"]


@ALL
def test_a_key_in_an_error_is_redacted(tmp_path: Path, way: Ask) -> None:
    """P40 A failure never quotes the key, and its message is redacted before it is cut."""
    failure = result(way, tmp_path, http(401, {"error": {"message": "x" * 490 + KEY, "code": KEY}}))
    assert isinstance(failure, Failure)
    assert KEY[:10] not in str(failure)


@pytest.mark.parametrize("way", [asked, cancelled, uploaded])
def test_a_key_in_an_answer_is_not_kept(tmp_path: Path, way: Ask) -> None:
    """P40 A key in a reply is replaced by a gap."""
    reply = result(way, tmp_path, http(200, {"id": KEY}, {"X-Request-Id": f"req-{KEY}"}))
    assert json.loads(reply.body) == {"id": "[key]"}
    assert KEY not in str(reply)


def test_a_key_in_a_file(tmp_path: Path) -> None:
    """P40 A file is kept as it came; `parse` removes the key from its lines, and no other key."""
    assert fetched(tmp_path, http(200, f'{{"id": "{KEY}"}}')) == f'{{"id": "{KEY}"}}'.encode()
    line = json.dumps(f"a {KEY} b {KEY}").encode()
    assert client("http://h/v1").parse(line) == "a [key] b [key]"
    assert client("http://h/v1").parse(b'"a"') == "a"
    assert client("http://h/v1", None).parse(line) == f"a {KEY} b {KEY}"


# -- files from the server -------------------------------------------------------------------------


def chunked(data: bytes, size: int = 7) -> Behaviour:
    """The data in chunks of so many bytes."""
    parts = (data[at : at + size] for at in range(0, len(data), size))
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n")


ZLIB = zlib.compress(LINES)
FILES: dict[str, tuple[Behaviour, bytes]] = {
    "plain": (http(200, LINES), LINES),
    "chunks": (chunked(LINES), LINES),
    "without a length": (raw(b"HTTP/1.1 200 OK\r\n\r\n" + LINES, then="close"), LINES),
    "empty": (http(200, b""), b""),
    "identity": (http(200, LINES, {"Content-Encoding": "identity"}), LINES),
    "gzip": (http(200, gzip.compress(LINES), {"Content-Encoding": "GZIP"}), LINES),
    "gzip of two": (
        http(200, gzip.compress(LINES) + gzip.compress(b"3\n"), {"Content-Encoding": "gzip"}),
        LINES + b"3\n",
    ),
    "deflate": (http(200, ZLIB, {"Content-Encoding": "deflate"}), LINES),
    "gzip of much": (
        http(200, gzip.compress(bytes(3_000_000)), {"Content-Encoding": "gzip"}),
        bytes(3_000_000),
    ),
}


@pytest.mark.parametrize(("behaviour", "expected"), FILES.values(), ids=FILES)
def test_a_file_comes_as_it_is(tmp_path: Path, behaviour: Behaviour, expected: bytes) -> None:
    """P18 Lengths, chunks and encodings: the file replaces what was there, and nothing else is
    left."""
    (tmp_path / "output").write_bytes(b"older")
    assert fetched(tmp_path, behaviour) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


@pytest.mark.parametrize("lacking", [1, 8, 9, 20])
def test_a_compressed_file_that_breaks_off(tmp_path: Path, lacking: int) -> None:
    """P18 A truncated encoding is a failure even if HTTP is complete, and the old file stays; the
    same for the second of two encodings."""
    (tmp_path / "output").write_bytes(b"older")
    for whole in (gzip.compress(LINES), gzip.compress(LINES) + gzip.compress(LINES)):
        failure = result(
            downloaded, tmp_path, http(200, whole[:-lacking], {"Content-Encoding": "gzip"})
        )
        assert (failure.meaning, failure.reason) == ("transient", "invalid_response")
        assert (tmp_path / "output").read_bytes() == b"older"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 500 X\r\n\r\nno",
    ],
    ids=["nothing", "half a head", "half a body", "an error without an end"],
)
def test_a_server_that_goes_silent(tmp_path: Path, head: bytes) -> None:
    """P19 `idle` seconds without a byte end a download, wherever it is."""

    async def run() -> Answer:
        async with Hostile(lambda n: raw(head, then="hang")) as server, client(server.url) as there:
            return await there.download(CONTENT, tmp_path / "output", idle=0.1)

    failure = asyncio.run(run())
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason) == ("timeout", "timeout")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("way", [asked, cancelled, uploaded])
def test_a_bomb_is_not_unpacked(tmp_path: Path, way: Ask) -> None:
    """P20 A reply has a largest size."""
    assert "larger than" in result(way, tmp_path, bomb(64)).message


def test_a_bomb_of_an_error_is_not_unpacked(tmp_path: Path) -> None:
    """P20 Only a success is written to disk; the body of an error has its usual bound."""
    behaviour = http(500, gzip.compress(bytes(64 << 20)), {"Content-Encoding": "gzip"})
    assert "larger than" in result(downloaded, tmp_path, behaviour).message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    """P03 A full disk is reported with the path, not as a network failure."""

    def full(file: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files_module, "_sync", full)
    with pytest.raises(OutputError, match=str(tmp_path / "output")):
        result(downloaded, tmp_path, http(200, LINES))
    with pytest.raises(OutputError, match="gone"):
        result(downloaded, tmp_path / "gone", http(200, LINES))
    assert not list(tmp_path.iterdir())


# -- files to the server ---------------------------------------------------------------------------


@asynccontextmanager
async def serving_by(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The URL of a server that handles each connection like this, until the block ends."""
    tasks: set[asyncio.Task[Any]] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files that were opened for an upload."""
    files: list[Any] = []

    class Watched(files_module.UploadFile):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            files.append(self)

    monkeypatch.setattr(client_module, "UploadFile", Watched)
    return files


def large(folder: Path, megabytes: int) -> Path:
    """A file of so many megabytes that takes no room on disk."""
    path = folder / "large"
    with open(path, "wb") as file:
        file.truncate(megabytes << 20)
    return path


def test_a_server_that_reads_nothing(tmp_path: Path, opened: list[Any]) -> None:
    """P19 An upload that the server does not read ends after `idle` seconds, and its file is
    closed."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def run() -> Answer:
        async with serving_by(deaf) as url, client(url) as there:
            return await there.upload(large(tmp_path, 64), "a.jsonl", idle=0.2)

    failure = asyncio.run(run())
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason, failure.may_be_billed) == ("timeout", "timeout", True)
    assert "a.jsonl" in failure.message
    assert [file.closed for file in opened] == [True]


@pytest.mark.parametrize(("pause", "ends"), [(19.0, True), (21.0, False)])
def test_a_server_that_reads_slowly(tmp_path: Path, pause: float, ends: bool) -> None:
    """P19 A slow upload may take any time; only `idle` seconds without progress end it."""

    async def slowly(endpoint: str, body: Any, files: Any) -> httpx2.Response:
        ((_, (_, file, _)),) = files
        for _ in LINES:
            file.read(1)
            await asyncio.sleep(pause)
        return httpx2.Response(200, json={})

    async def run() -> Answer:
        async with client("http://127.0.0.1:9/v1") as there:
            there._sdk_post = slowly  # type: ignore[method-assign,assignment]
            return await uploaded(there, tmp_path)

    assert isinstance(virtually(run()), Reply if ends else Failure)


def test_an_answer_before_the_end(tmp_path: Path, opened: list[Any]) -> None:
    """P18 A server may refuse a file at its start, without reading the rest."""

    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await http(413, {"error": {"message": "too large"}})(writer)
        await asyncio.Event().wait()

    async def run() -> Answer:
        async with serving_by(refusing) as url, client(url) as there:
            return await there.upload(large(tmp_path, 64), "a.jsonl", idle=20)

    failure = asyncio.run(run())
    assert isinstance(failure, Failure)
    assert (failure.status, failure.message) == (413, "too large")
    assert [file.closed for file in opened] == [True]


@pytest.mark.parametrize(
    "behaviour",
    [http(200, {}), http(500, b""), raw(b"", then="reset")],
    ids=["200", "500", "reset"],
)
def test_the_file_is_closed(tmp_path: Path, opened: list[Any], behaviour: Behaviour) -> None:
    """P15 The file of an upload is closed, however the upload ends."""
    result(uploaded, tmp_path, behaviour)
    assert [file.closed for file in opened] == [True]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """P18 A missing file is an error of its own, and no server is called."""

    async def run() -> None:
        async with Hostile(lambda n: http(200, {})) as server, client(server.url) as there:
            with pytest.raises(OutputError, match="gone"):
                await there.upload(tmp_path / "gone", "a.jsonl", idle=20)
            assert server.connections == 0

    asyncio.run(run())


# -- memory ----------------------------------------------------------------------------------------

MEGABYTES = 64


def grown(exchange: Callable[[], Awaitable[Answer]]) -> tuple[Answer, float]:
    """The result, and the most megabytes of memory that it took, those of the server included."""

    async def run() -> tuple[Answer, float]:
        tracemalloc.start()
        try:
            answer = await exchange()
            return answer, tracemalloc.get_traced_memory()[1] / (1 << 20)
        finally:
            tracemalloc.stop()

    return asyncio.run(run())


def test_an_upload_costs_no_memory(tmp_path: Path) -> None:
    """P31 A file is sent piece by piece, whatever its size."""
    arrived = 0

    async def reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length: ")[2].split()[0])
        while left:
            chunk = await reader.read(min(left, 1 << 18))
            left, arrived = left - len(chunk), arrived + len(chunk)
        await http(200, {"id": "file-1"})(writer)
        await asyncio.Event().wait()

    async def exchange() -> Answer:
        async with serving_by(reading) as url, client(url) as there:
            return await there.upload(large(tmp_path, MEGABYTES), "a.jsonl", idle=20)

    reply, peak = grown(exchange)
    assert isinstance(reply, Reply)
    assert arrived > MEGABYTES << 20
    assert peak < 10


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_download_costs_no_memory(tmp_path: Path, packed: bool) -> None:
    """P31 A file is written piece by piece, also one that unpacks to a thousand times its size."""
    megabyte = bytes(1 << 20)

    async def writing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + b"Content-Encoding: gzip\r\n" * packed + b"\r\n")
        packer = zlib.compressobj(wbits=31)
        for _ in range(MEGABYTES):
            writer.write(packer.compress(megabyte) if packed else megabyte)
            await writer.drain()
        if packed:
            writer.write(packer.flush())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def exchange() -> Answer:
        async with serving_by(writing) as url, client(url) as there:
            return await there.download(CONTENT, tmp_path / "output", idle=20)

    failure, peak = grown(exchange)
    assert failure is None
    assert (tmp_path / "output").stat().st_size == MEGABYTES << 20
    assert peak < 10


# -- the simulator ---------------------------------------------------------------------------------


def test_a_batch_goes_its_way(tmp_path: Path) -> None:
    """Upload, create, search, list, download and cancel as the API has them, with batchgen's own
    calls."""
    body = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "ECHO:hi"}]}
    (tmp_path / "requests").write_bytes(
        b"".join(request_line(str(n), "/chat/completions", body) for n in range(3))
    )

    async def run(url: str) -> None:
        async with client(url) as there:

            async def ask(*args: Any) -> Any:
                reply = await there.call(*args)
                assert isinstance(reply, Reply), reply
                return json.loads(reply.body)

            sent = await there.upload(tmp_path / "requests", "requests.jsonl", idle=20)
            assert isinstance(sent, Reply)
            file = json.loads(sent.body)
            assert (file["filename"], file["purpose"]) == ("requests.jsonl", "batch")
            assert file["bytes"] == (tmp_path / "requests").stat().st_size
            wanted = {**BATCH, "input_file_id": file["id"], "endpoint": "/v1/chat/completions"}
            made = [await ask("POST", "/batches", wanted) for _ in range(2)]
            listed = await ask("GET", f"/batches?limit=100&after={made[1]['id']}")
            assert [each["id"] for each in listed["data"]] == [made[0]["id"]]
            done = await ask("GET", f"/batches/{made[0]['id']}")
            assert (done["status"], done["metadata"]) == ("completed", {"a": "ü"})
            refused = await there.call("POST", f"/batches/{made[0]['id']}/cancel")
            assert isinstance(refused, Failure)
            assert (
                await there.download(
                    f"/files/{done['output_file_id']}/content", tmp_path / "o", idle=20
                )
                is None
            )
            missing = await there.download("/files/file-none/content", tmp_path / "none", idle=20)
            assert isinstance(missing, Failure)
            assert (missing.status, missing.reason) == (404, "not_found")

    with serving(Settings(batch_speed=0)) as simulator:
        asyncio.run(run(simulator.url))
    results = [parse_result(line) for line in (tmp_path / "o").read_bytes().splitlines()]
    assert sorted((each.custom_id, each.status) for each in results) == [
        ("0", 200),
        ("1", 200),
        ("2", 200),
    ]


def test_a_batch_is_cancelled(tmp_path: Path) -> None:
    """A batch in progress is cancelled by a request without a body."""
    body = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "ECHO:hi"}]}
    (tmp_path / "requests").write_bytes(request_line("1", "/chat/completions", body))

    async def run(url: str) -> None:
        async with client(url) as there:
            sent = await there.upload(tmp_path / "requests", "requests.jsonl", idle=20)
            assert isinstance(sent, Reply)
            wanted = {
                **BATCH,
                "input_file_id": json.loads(sent.body)["id"],
                "endpoint": "/v1/chat/completions",
            }
            made = await there.call("POST", "/batches", wanted)
            assert isinstance(made, Reply)
            reply = await there.call("POST", f"/batches/{json.loads(made.body)['id']}/cancel")
            assert isinstance(reply, Reply)
            assert json.loads(reply.body)["status"] in ("cancelling", "cancelled")

    with serving() as simulator:
        asyncio.run(run(simulator.url))


def test_a_network_that_breaks_is_not_the_disk(tmp_path: Path) -> None:
    """P18 Network errors while a file is written are network failures, though they are OSErrors."""

    async def broken() -> AsyncIterator[bytes]:
        yield LINES
        raise aiohttp.ClientOSError(errno.EPIPE, "broken")

    async def run() -> None:
        await files_module.write_pieces(tmp_path / "output", body_pieces(broken(), "identity"))

    with pytest.raises(TruncatedReplyError) as caught:
        asyncio.run(run())
    failure = failure_of(caught.value)
    assert (failure.meaning, failure.reason) == ("network", "reset")
    assert not list(tmp_path.iterdir())


def test_a_bomb_is_a_file_like_any_other(tmp_path: Path) -> None:
    """P20 A file has no largest size: the output of a batch is as large as its answers."""
    assert result(downloaded, tmp_path, bomb(5)) is None
    assert (tmp_path / "output").stat().st_size == 5 << 20
