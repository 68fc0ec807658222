"""Batch mode under signals, a full disk and a second run, and after a run that died half-way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from children import child, killed_at
from lab import KEY, Lab, serving

import batchgen
from batchgen import BusyError, maintenance, queries, runner, signals
from batchgen.dispatch.batches import client, collect, poll
from batchgen.job import with_mode
from batchgen.journal import Journal
from batchgen.journal.batches import open_batches
from batchgen.simulator import BatchInfo, Fate, RequestInfo, Settings, Simulator

ROWS = 5


class World:
    """What a simulator does at certain calls, and what was sent to it."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.ends = Fate()
        # The first request so asked for is met with the fault, after something was done.
        self.meet: tuple[str, str | None, Callable[[], None]] | None = None

    def fate(self, batch: BatchInfo) -> Fate:
        self.sent.append(batch.lines)
        return self.ends

    def script(self, request: RequestInfo) -> str | None:
        if self.meet is None or not f"{request.method} {request.path}".startswith(self.meet[0]):
            return None
        (_, fault, act), self.meet = self.meet, None
        act()
        return fault


@contextmanager
def opened() -> Iterator[tuple[World, Simulator]]:
    world = World()
    with serving(Settings(batch_speed=0, hang=120), world.script, fate=world.fate) as api:
        yield world, api


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches, fetches and polls do not wait."""
    monkeypatch.setattr(client, "BETWEEN_SEARCHES", 0.0)
    monkeypatch.setattr(collect, "BETWEEN_FETCHES", 0.0)
    monkeypatch.setattr(poll, "FIRST_POLL", 0.01)


def written(lab: Lab, api: Simulator, rows: int = ROWS, **parts: Any) -> Path:
    return lab.job(api.url, rows=rows, mode="batch", retry={"max_wait": 0.01}, **parts)


def paid(api: Simulator) -> int:
    """How many requests were executed."""
    return api.requests.lines + api.requests.by_path["/v1/chat/completions"]


def finished(lab: Lab, job: Path) -> int:
    """Run a job until it no longer ends with 6; returns its exit code."""
    for _ in range(6):
        code = lab.go(job).exit_code
        if code != 6:
            break
    return code


def assert_done(lab: Lab, api: Simulator, rows: int = ROWS) -> None:
    """Every row has its answer and was paid once; nothing is left over."""
    assert {row["id"] for row in lab.table()} == {f"r{n}" for n in range(1, rows + 1)}
    assert {row["status"] for row in lab.table()} == {"succeeded"}
    assert paid(api) == rows
    assert not list(lab.output().glob(".*.tmp"))
    assert maintenance.verify(lab.load(lab.folder / "job.yaml")) == []


# -- signals ---------------------------------------------------------------------------------------

# Where the run is when SIGTERM comes, and whether it collects then.
PLACES = {
    "an upload": ("POST /v1/files", False),
    "a create": ("POST /v1/batches", False),
    "a poll": ("GET /v1/batches/", True),
    "a download": ("GET /v1/files/", True),
}


@pytest.mark.parametrize("name", PLACES)
def test_sigterm_in_the_middle(lab: Lab, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P14 P12 SIGTERM while the server hangs in an upload, a create, a poll or a download ends the
    run with 143; the next runs continue, and nothing is sent twice."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("tests run outside the main thread here")
    asked, collects = PLACES[name]
    if asked == "POST /v1/batches":
        # It is not cut off before the drain is over: then it would have to be looked for.
        monkeypatch.setattr(signals, "DRAIN", 0.1)
    with opened() as (world, api):
        job = written(lab, api)
        if collects:
            assert lab.go(job).exit_code == 6
        world.meet = (asked, "hang", lambda: os.kill(os.getpid(), signal.SIGTERM))
        ended = lab.go(job)
        assert (ended.exit_code, ended.rows) == (143, {"pending": ROWS})
        assert world.meet is None
        assert not list(lab.output().glob(".*.tmp"))
        assert finished(lab, job) == 0
        assert_done(lab, api)


def test_sigterm_while_a_create_is_answered(lab: Lab) -> None:
    """P14 P12 SIGTERM during a create waits for its reply: the batch is on record, and the run ends
    with 143."""
    with opened() as (world, api):
        job = written(lab, api)
        world.meet = ("POST /v1/batches", None, lambda: os.kill(os.getpid(), signal.SIGTERM))
        ended = lab.go(job)
        assert (ended.exit_code, len(ended.batches), ended.in_batches) == (143, 1, ROWS)
        (batch,) = queries.status(lab.load(job))["batches"]
        assert batch["id"] is not None
        assert finished(lab, job) == 0
        assert_done(lab, api)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_waits(lab: Lab, number: signal.Signals) -> None:
    """P14 A run that waits for its batches (--wait) ends at the first signal; they stay open."""
    polls = 0

    def poll_seen() -> None:
        nonlocal polls
        polls += 1
        if polls == 3:
            os.kill(os.getpid(), number)
        else:
            world.meet = ("GET /v1/batches/", None, poll_seen)

    with opened() as (world, api):
        job = written(lab, api)
        world.ends = Fate(shows=("in_progress",) * 100)
        world.meet = ("GET /v1/batches/", None, poll_seen)
        ended = lab.go(job, wait=True)
        assert (ended.exit_code, len(ended.batches)) == (130 if number == signal.SIGINT else 143, 1)
        world.ends = Fate()
        assert runner.cancel(lab.load(job)).exit_code in (0, 6)
        assert finished(lab, job) == 0
        assert_done(lab, api)


# -- two at once -----------------------------------------------------------------------------------


def test_two_runs_of_one_job(lab: Lab) -> None:
    """P06 P12 While a run waits for its batches, another one and `cancel` end with 75 and call
    nothing."""
    asked = threading.Event()
    with opened() as (world, api):
        job = written(lab, api)
        world.ends = Fate(shows=("in_progress",) * 1000)
        world.meet = ("GET /v1/batches/", None, asked.set)
        first = lab.start("run", job, "--wait")
        try:
            assert asked.wait(30)
            loaded, before = lab.load(job), list(world.sent)
            commands: tuple[Callable[[], Any], ...] = (
                lambda: lab.go(job),
                lambda: runner.cancel(loaded),
            )
            for command in commands:
                with pytest.raises(BusyError) as caught:
                    command()
                assert caught.value.exit_code == 75
            assert world.sent == before == [ROWS]
        finally:
            first.kill()
            first.communicate()
        world.ends = Fate()
        assert runner.cancel(loaded).exit_code in (0, 6)
        assert finished(lab, job) == 0
        assert_done(lab, api)


# -- a run that died -------------------------------------------------------------------------------


def test_killed_while_it_writes_then_online(lab: Lab) -> None:
    """P12 A run that is killed while it writes an input file has sent nothing: `--mode online`
    sends each row once."""
    seen = 0
    for step in range(1, 100):
        with opened() as (world, api):
            folder = lab.folder / str(step)
            folder.mkdir()
            each = Lab(folder)
            job = written(each, api)
            code = killed_at(step, job, key=KEY, most_requests=2)
            with Journal.peek(each.output()) as journal:
                held, found = journal.records("members", "1 = 1"), open_batches(journal)
            if held and all(batch.file is None for batch in found):
                seen += 1
                assert (code, world.sent) == (-9, [])
                done = batchgen.run(with_mode(each.load(job), "online"))
                assert (done.exit_code, done.run.calls, world.sent) == (0, ROWS, [])
                assert_done(each, api)
            elif seen:
                break
    assert seen > 3


# -- a full disk -----------------------------------------------------------------------------------


def test_a_disk_that_is_full_of_requests(lab: Lab) -> None:
    """P03 P12 No room for the input file: exit 74, and nothing is sent; with room the same command
    continues."""
    with opened() as (world, api):
        # Long, and the same in each request: it is in the file of requests and not in the journal.
        messages = [
            {"role": "system", "content": "x" * 50_000},
            {"role": "user", "content": "{{ text }}"},
        ]
        job = written(lab, api, 60, request={"model": "gpt-5.6-luna", "messages": messages})
        process = child(job, key=KEY, room=1_500_000)
        process.join(60)
        assert (process.exitcode, world.sent, api.requests.by_path["/v1/files"]) == (74, [], 0)
        assert not list(lab.output().glob(".*.tmp"))
        assert queries.status(lab.load(job))["batches"] == []
        assert finished(lab, job) == 0
        assert world.sent == [60]
        assert_done(lab, api, 60)


def test_a_disk_that_is_full_of_answers(lab: Lab) -> None:
    """P03 P12 No room for a result file: exit 74, and the batch stays open; with room the same
    command continues."""
    with opened() as (world, api):
        request = {
            "model": "gpt-5.6-luna",
            "n": 100,
            "messages": [{"role": "user", "content": "{{ text }}"}],
        }
        job = written(lab, api, 60, request=request)
        assert lab.go(job).exit_code == 6
        for room in (100_000, 300_000):
            process = child(job, key=KEY, room=room)
            process.join(60)
            assert process.exitcode == 74
            assert not list(lab.output().glob(".*.tmp"))
        (batch,) = queries.status(lab.load(job))["batches"]
        assert batch["status"] == "completed"
        assert finished(lab, job) == 0
        assert world.sent == [60]
        assert_done(lab, api, 60)


def test_a_disk_that_fills_at_any_byte(lab: Lab) -> None:
    """P03 P12 With any amount of room a run ends with 74 or normally; nothing is sent twice, and
    with enough room the job gets done."""
    with opened() as (world, api):
        job, codes = written(lab, api), []
        for room in range(4096, 400_000, 12_288):
            process = child(job, key=KEY, room=room)
            process.join(60)
            codes.append(process.exitcode)
            assert codes[-1] in (74, 6, 0), codes
            if codes[-1] == 0:
                break
        assert finished(lab, job) == 0
        assert world.sent == [ROWS]
        assert_done(lab, api)
    assert 74 in codes
