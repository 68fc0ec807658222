"""`batchgen view`: what the server shows, to whom, and that it only reads."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from lab import Lab, serving

from batchgen.errors import InputError
from batchgen.simulator import Simulator
from batchgen.view import serve


@contextmanager
def viewing(lab: Lab, path: Path, **options: Any) -> Iterator[str]:
    """The page's address while the block runs."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    urls: list[str] = []

    def on_ready(url: str) -> None:
        urls.append(url)
        ready.set()

    task = loop.create_task(serve(lab.load(path), on_ready=on_ready, **options))
    task.add_done_callback(lambda _: ready.set())

    def run() -> None:
        loop.run_until_complete(asyncio.wait([task]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(30)
    try:
        if not urls:
            task.result()
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        loop.close()


def got(url: str, **headers: str) -> bytes:
    """The body of a GET."""
    with urlopen(Request(url, headers=headers)) as reply:
        return bytes(reply.read())


def refused(url: str, method: str = "GET", **headers: str) -> int:
    """The status of a request that is refused."""
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(url, method=method, headers=headers))
    caught.value.close()
    return caught.value.code


def cards(url: str, **query: object) -> dict[str, Any]:
    """What the server answers to the page's script."""
    return dict(json.loads(got(f"{url}cards?{urlencode(query)}")))


def ids(url: str, **query: object) -> list[str]:
    return [card["id"] for card in cards(url, **query)["cards"]]


@pytest.fixture
def job(lab: Lab, api: Simulator) -> Path:
    """A finished job of 12 rows by two tones, one row refused."""
    lines = [f"{n},{'[policy]' if n == 7 else f'ECHO:Grüße {n}'}" for n in range(12)]
    (lab.folder / "prompts.csv").write_text("id,text\n" + "\n".join(lines), encoding="utf-8")
    messages = [{"role": "user", "content": "{{ text }}"}]
    path = lab.job(
        api.url,
        rows=None,
        matrix={"tone": ["dry", "warm"]},
        request={"model": "m", "messages": messages, "user": "{{ tone }}"},
    )
    lab.go(path)
    return path


def test_words_statuses_reasons_and_axes_are_found(lab: Lab, job: Path) -> None:
    """The server finds words in any case, in prompts, answers and messages; statuses, reasons and
    values of axes; each page of cards says whether there are more.
    """
    with viewing(lab, job) as url:
        assert ids(url, q="GRÜSSE 11") == [] == ids(url, q="grüße 99")
        assert ids(url, q="GRÜßE 11") == ["11", "11"]
        assert ids(url, status="failed") == ["7", "7"] == ids(url, reason="policy")
        assert ids(url, **{"axis.tone": "warm", "status": "failed"}) == ["7"]
        first = cards(url, limit=10)
        assert (len(first["cards"]), first["more"]) == (10, True)
        whole = cards(url, limit=100)
        assert (len(whole["cards"]), whole["more"]) == (24, False)
        assert whole["counts"] == {"succeeded": 22, "failed": 2}


def test_only_who_has_the_address_sees_the_page(lab: Lab, job: Path) -> None:
    """Without the token there is nothing, and a name that is not this machine's is refused, also
    with it (DNS rebinding).
    """
    with viewing(lab, job) as url:
        root = url.rsplit("/", 2)[0]
        assert b"<title>job" in got(url)
        assert refused(f"{root}/") == 404
        assert refused(f"{root}/wrong/") == 404
        assert refused(f"{root}/wrong/cards") == 404
        assert refused(url, Host="evil.example") == 421
        assert refused(f"{url}cards", Host="evil.example:80") == 421
        with viewing(lab, job) as other:
            assert other.rsplit("/", 2)[1] != url.rsplit("/", 2)[1]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(lab: Lab, job: Path, method: str) -> None:
    """The server takes no request that changes anything, and writes no file of the job."""
    before = {
        file: file.read_bytes() for file in lab.output().iterdir() if file.suffix != ".db-shm"
    }
    with viewing(lab, job) as url:
        cards(url, q="x")
        assert refused(url, method) in (404, 405)
    after = {file: file.read_bytes() for file in before}
    assert {f: hashlib.sha256(d).digest() for f, d in after.items()} == {
        f: hashlib.sha256(d).digest() for f, d in before.items()
    }


def test_pictures_and_nothing_else(lab: Lab, api: Simulator) -> None:
    """A picture that an answer owns is served as it is; no other file, by whatever path."""
    path = lab.job(api.url, kind="image", request={"model": "gpt-image-2", "prompt": "{{ id }}"})
    lab.go(path, limit=2)
    (lab.output() / "images" / "mine.txt").write_text("mine", encoding="utf-8")
    with viewing(lab, path) as url:
        name = lab.table()[0]["output"]
        assert got(f"{url}{name}") == (lab.output() / name).read_bytes()
        for other in ("images/mine.txt", "images/..%2fjournal.db", "journal.db", "images/%2e%2e/x"):
            assert refused(f"{url}{other}") == 404


def test_a_run_that_goes_on_is_followed(lab: Lab) -> None:
    """While a run goes on, each look shows what is answered by then."""
    arrived, go_on = threading.Event(), threading.Event()

    def script(request: Any) -> str | None:
        if "answer 5" in str(request.body):
            arrived.set()
            go_on.wait(30)
        return None

    with serving(script=script) as api:
        path = lab.job(api.url, limits={"concurrency": 1})
        run = threading.Thread(target=lab.go, args=(path,))
        run.start()
        try:
            assert arrived.wait(30)
            with viewing(lab, path) as url:
                before = cards(url)["counts"]
                go_on.set()
                run.join(30)
                after = cards(url)["counts"]
        finally:
            go_on.set()
            run.join(30)
    assert before["pending"] == 1
    assert after == {"succeeded": 5}


def test_a_job_that_has_not_been_run(lab: Lab, api: Simulator) -> None:
    """A job without a journal is an error with what to do, before anything is served."""
    with pytest.raises(InputError, match="has not been run yet"), viewing(lab, lab.job(api.url)):
        pass


def test_the_command_prints_the_address(lab: Lab, job: Path) -> None:
    """`batchgen view --no-browser` prints the address, and SIGINT ends it with 0."""
    import signal

    process = lab.start("view", job, "--no-browser")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert b"<title>job" in got(line.split(" is at ")[1].split()[0])
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    process.stderr.close()
    assert process.stdout is not None
    process.stdout.close()
