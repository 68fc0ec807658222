"""A canary key passes through every fault at debug level; then every byte that was written is
searched for it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from lab import Lab, Server
from scenes import write_job

# No `sk-`: nothing but knowing the key itself can find it in a text.
CANARY = "canary7Kq9ZtW3xV" + "nightjarPb52LmRd8"
HALVES = (CANARY[:16], CANARY[16:])
LOUD = {"OPENAI_LOG": "debug", "PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "default"}


def quoting(status: int, key: str, code: str | None = None, **headers: str) -> web.Response:
    """An error that quotes the key everywhere a server could."""
    error = {
        "message": f"Incorrect API key provided: {key}. See {key}",
        "type": key,
        "param": key,
        "code": code or key,
    }
    return web.Response(
        status=status,
        text=json.dumps({"error": error}),
        content_type="application/json",
        headers=headers,
    )


def replies(key: str) -> list[web.Response]:
    """Errors of every class, web pages and junk, all of them with the key, or cut off within the
    key.
    """
    page = f"<html><body>Denied for {key}</body></html>"
    return [
        quoting(400, key),
        quoting(500, key),
        quoting(503, key, "server_is_overloaded"),
        quoting(422, key),
        quoting(200, key),
        web.Response(text=page, content_type="text/html"),
        web.Response(status=502, text=page, content_type="text/html"),
        *(
            web.Response(text="x" * (edge - 16) + key, content_type="text/plain")
            for edge in (300, 500)
        ),
        *(web.Response(status=500, text="x" * (edge - 16) + key) for edge in (300, 500)),
        web.Response(text=json.dumps({"choices": key}), content_type="application/json"),
        web.Response(text=json.dumps([key]), content_type="application/json"),
        web.Response(
            status=400,
            text=json.dumps({"detail": "y" * 484 + key}),
            content_type="application/json",
        ),
        web.Response(
            status=400,
            text=json.dumps({"object": "error", "message": "z" * 284 + key, "code": 40001}),
        ),
        web.Response(
            status=422, text=json.dumps({"detail": [{"msg": key, "input": {"authorization": key}}]})
        ),
        # In the end: a throttle slows the job for a while.
        quoting(429, key, **{"retry-after-ms": "1"}),
    ]


def answer() -> web.Response:
    """A valid answer: if the server only failed, the job would wait for the end of an outage."""
    message = {"role": "assistant", "content": "fine"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    body = {"object": "chat.completion", "model": "gpt-5.6-luna", "choices": [choice]}
    return web.Response(text=json.dumps(body), content_type="application/json")


@contextmanager
def leaky(*, last: int | None = None) -> Iterator[str]:
    """A server that gives every reply of `replies` in turn, a true answer after each, resets now
    and then, and `last` (a status) in the end.
    """
    count = itertools.count()

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        key = request.headers["Authorization"].removeprefix("Bearer ")
        spoiled = replies(key)
        number = next(count)
        if number % 7 == 6:
            assert request.transport is not None
            request.transport.abort()
        if last is not None and number >= 2 * len(spoiled) - 2:
            return quoting(last, key, "insufficient_quota" if last == 429 else None)
        return answer() if number % 2 else spoiled[number // 2 % len(spoiled)]

    with answering(handle) as url:
        yield url


@contextmanager
def answering(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Iterator[str]:
    """The base URL of a server that answers every POST with `handle`."""
    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    urls: list[str] = []

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        urls.append(f"http://{host}:{port}/v1")

    server = Server(start, runner.cleanup)
    try:
        yield urls[0]
    finally:
        server.close()


def assert_absent(folder: Path, *texts: str) -> None:
    """Neither the canary nor a half of it is in a file's name, in a file, or in one of the
    texts.
    """
    for half in HALVES:
        for path in folder.rglob("*"):
            assert half not in path.name
            if path.is_file():
                assert half.encode() not in path.read_bytes(), path
        for text in texts:
            assert half not in text, text[max(0, text.index(half) - 300) : text.index(half) + 50]


@pytest.mark.parametrize("last", [None, 401, 403, 429])
def test_the_key_is_nowhere(lab: Lab, last: int | None) -> None:
    """P40 A server quotes the key in every error: the key is in no output, journal, log, message or
    traceback.
    """
    env = lab.environ(**LOUD, OPENAI_API_KEY=CANARY)
    with leaky(last=last) as url:
        job = write_job(lab, url, "chat", rows=36, retry={"attempts": 1})
        done = lab.run("run", job, env=env)
        outputs = [done.stdout, done.stderr]
        assert done.returncode in (3, 4), done.stderr[-2000:]
        commands: list[list[str | Path]] = [
            ["show", job, "r1"],
            ["show", job, "r1", "--json"],
            ["export", job],
        ]
        for command in commands:
            ended = lab.run(*command, env=env)
            outputs += [ended.stdout, ended.stderr]
    # Something was quoted, or this test shows nothing.
    assert "[key]" in (lab.output() / "errors.csv").read_text(encoding="utf-8") + "".join(outputs)
    assert_absent(lab.folder, *outputs)


@pytest.mark.parametrize(
    ("spoiled", "wanted"),
    [
        (f"{HALVES[0]}\n{HALVES[1]}", "OPENAI_API_KEY"),
        (f"{HALVES[0]} {HALVES[1]}", "OPENAI_API_KEY"),
        (f"{HALVES[0]}ü{HALVES[1]}", "OPENAI_API_KEY"),
        (f"{HALVES[0]}\x7f{HALVES[1]}", "OPENAI_API_KEY"),
        (f"“{CANARY}”", "OPENAI_API_KEY"),
        # A line end after the key is left out, and the server refuses the key itself.
        (f"{CANARY}\r\n", "refused the key"),
    ],
)
def test_a_malformed_key_is_nowhere(lab: Lab, spoiled: str, wanted: str) -> None:
    """P39 P40 A key with a line break, a space or a character of another script: the message names
    its variable and never quotes it.
    """
    env = lab.environ(**LOUD, OPENAI_API_KEY=spoiled)
    with leaky() as url:
        job = write_job(lab, url, "chat", rows=20, retry={"attempts": 1})
        done = lab.run("run", job, env=env)
    assert done.returncode == 4, done.stderr
    assert wanted in done.stderr
    assert_absent(lab.folder, done.stdout, done.stderr)


def test_a_key_in_the_job_is_nowhere(lab: Lab) -> None:
    """P39 P40 A literal key in the job file is refused without quoting it."""
    job = lab.job(
        "http://127.0.0.1:9/v1",
        rows=2,
        provider={"base_url": "http://127.0.0.1:9/v1", "api_key": CANARY},
    )
    done = lab.run("run", job, env=lab.environ(**LOUD))
    assert done.returncode == 2
    assert_absent(lab.output(), done.stdout, done.stderr)


def test_a_key_file_is_nowhere(lab: Lab) -> None:
    """P40 A key that comes from a file is treated like one from the environment."""
    (lab.folder / "key.txt").write_text(CANARY + "\n", encoding="utf-8")
    with leaky(last=401) as url:
        provider = {"base_url": url, "api_key_file": "key.txt"}
        job = write_job(lab, url, "chat", rows=36, retry={"attempts": 1}, provider=provider)
        done = lab.run("run", job, env=lab.environ(**LOUD))
    assert done.returncode in (3, 4), done.stderr
    assert_absent(lab.output(), done.stdout, done.stderr)


def test_a_request_id_is_no_place_for_it(lab: Lab) -> None:
    """P40 A server sends the key back in a header: it is neither in the journal nor in the errors
    table.
    """

    async def handle(request: web.Request) -> web.Response:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        return web.Response(status=400, text="{}", headers={"x-request-id": f"req_{key}"})

    with answering(handle) as url:
        done = lab.run(
            "run", write_job(lab, url, "chat", rows=3), env=lab.environ(OPENAI_API_KEY=CANARY)
        )
    assert done.returncode == 3, done.stderr
    assert "req_[key]" in (lab.output() / "errors.csv").read_text(encoding="utf-8")
    assert_absent(lab.folder, done.stdout, done.stderr)


def test_a_bug_tells_nothing(lab: Lab) -> None:
    """P40 A bug exits with 1 and tells where it is, not what the key or the prompts were."""
    (lab.folder / "sitecustomize.py").write_text(
        "import batchgen.dispatch.api.client as transport\n"
        "async def broken(self, request):\n"
        "    raise ZeroDivisionError(self._redaction._key + str(request.body))\n"
        "transport.Client.post = broken\n",
        encoding="utf-8",
    )
    job = write_job(lab, "http://127.0.0.1:9/v1", "chat", rows=3)
    env = lab.environ(**LOUD, OPENAI_API_KEY=CANARY, PYTHONPATH=str(lab.folder))
    done = lab.run("run", job, env=env)
    assert done.returncode == 1, done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "ECHO" not in done.stderr
    assert_absent(lab.output(), done.stdout, done.stderr)
