"""kill -9 at every step of a run in batches: no batch is created twice, and no answer is lost."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from children import child, killed_at
from lab import KEY, Lab, serving

from batchgen import maintenance, runner
from batchgen.dispatch.batches import client, collect, input_file
from batchgen.journal import Journal
from batchgen.journal.batches import open_batches
from batchgen.simulator import BatchInfo, Fate, RequestInfo, Settings, Simulator

# Requests of a file at the most. Two files, each for a model of its own; one row is refused.
MOST_REQUESTS = 2
ROWS = [
    ("a", "gpt-5.6-luna", "ECHO:1"),
    ("b", "gpt-5.6-luna", "wrong"),
    ("c", "gpt-6-sol", "ECHO:3"),
]
BATCHES = Counter({("gpt-5.6-luna", 2): 1, ("gpt-6-sol", 1): 1})
DIFFERS = ("elapsed_s", "answered_at", "request_id", "run", "cost", "when")

# More steps than any run here takes.
MANY = 500


class World:
    """One simulator for all runs of a test, and what was created at it."""

    def __init__(self) -> None:
        self.created: list[BatchInfo] = []
        self.fault: str | None = None
        self.act: Callable[[], None] = lambda: None
        self.ends = Fate()

    def fate(self, batch: BatchInfo) -> Fate:
        self.created.append(batch)
        self.act()
        return self.ends

    def script(self, request: RequestInfo) -> str | None:
        if (request.method, request.path) == ("POST", "/v1/batches"):
            fault, self.fault = self.fault, None
            return fault
        return "400_policy" if "wrong" in json.dumps(request.body) else None

    def forget(self) -> None:
        self.created = []
        self.ends = Fate()
        self.act = lambda: None


@pytest.fixture(scope="module")
def world() -> World:
    """What the simulator does."""
    return World()


@pytest.fixture(scope="module")
def api(world: World) -> Iterator[Simulator]:
    """One simulator for all tests: its batches end at once."""
    with serving(Settings(batch_speed=0), world.script, fate=world.fate) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Small input files, and searches and fetches that do not wait."""
    monkeypatch.setattr(input_file, "MOST_REQUESTS", MOST_REQUESTS)
    monkeypatch.setattr(client, "BETWEEN_SEARCHES", 0.0)
    monkeypatch.setattr(collect, "BETWEEN_FETCHES", 0.0)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    world.forget()


def written(lab: Lab, url: str, **parts: Any) -> Path:
    """The job of ROWS."""
    with open(lab.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "which", "text"), *ROWS])
    request = {"model": "{{ which }}", "messages": [{"role": "user", "content": "{{ text }}"}]}
    return lab.job(url, rows=None, mode="batch", request=request, retry={"max_wait": 0.01}, **parts)


def finished(lab: Lab, job: Path) -> int:
    """Run a job until it no longer ends with 6; returns its exit code."""
    for _ in range(6):
        code = lab.go(job).exit_code
        if code != 6:
            break
    return code


def tables(lab: Lab, name: str = "job") -> list[list[dict[str, str]]]:
    """The tables without the columns that differ between two runs of a job."""
    return [
        [
            {name: cell for name, cell in row.items() if name not in DIFFERS}
            for row in lab.table(name, which)
        ]
        for which in ("results", "errors")
    ]


def assert_whole(lab: Lab, job: Path, whole: list[list[dict[str, str]]], step: int) -> None:
    """The tables are those of an uninterrupted run, nothing is left, and the journal is valid."""
    assert tables(lab) == whole, f"step {step}"
    assert not list(lab.output().glob(".*.tmp")), f"step {step}"
    assert maintenance.verify(lab.load(job)) == [], f"step {step}"
    with Journal.peek(lab.output()) as journal:
        assert not journal.records("members", "1 = 1"), f"step {step}"
        assert not open_batches(journal), f"step {step}"
        answered = Counter(line["ident"] for line in journal.records("attempts", "1 = 1"))
        assert set(answered.values()) == {1}, f"step {step}"
        assert len(answered) == len(ROWS), f"step {step}"


def created(world: World) -> Counter[tuple[str | None, int]]:
    """The batches at the server, by model and lines."""
    return Counter((batch.model, batch.lines) for batch in world.created)


@pytest.fixture(scope="module")
def whole(api: Simulator, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, str]]]:
    """The tables of a job that was never interrupted."""
    lab = Lab(tmp_path_factory.mktemp("whole"))
    job = written(lab, api.url)
    assert finished(lab, job) == 3
    return tables(lab)


@pytest.mark.parametrize("fault", [None, "reset_body"])
def test_killed_at_every_step_of_sending(
    lab: Lab, api: Simulator, world: World, whole: list[list[dict[str, str]]], fault: str | None
) -> None:
    """P12 P01 kill -9 at each step of the run that sends, also after a lost reply to `POST
    /batches`: further runs produce the tables of an uninterrupted one, each row was executed once,
    and each batch was created once."""
    job = written(lab, api.url)
    for step in range(1, MANY):
        shutil.rmtree(lab.output(), ignore_errors=True)
        world.forget()
        before, world.fault = api.requests.lines, fault
        code = killed_at(step, job, key=KEY, most_requests=MOST_REQUESTS)
        if world.fault:
            # Killed before it met the fault: that is the other test.
            continue
        assert finished(lab, job) == 3, f"step {step}"
        assert api.requests.lines - before == len(ROWS), f"step {step}"
        assert created(world) == BATCHES, f"step {step}"
        assert len({batch.metadata["batchgen"] for batch in world.created}) == len(world.created), (
            f"step {step}"
        )
        assert_whole(lab, job, whole, step)
        if code != -9:
            break
    assert code == 6
    assert step > 30


def test_killed_while_the_server_makes_a_batch(
    lab: Lab, api: Simulator, world: World, whole: list[list[dict[str, str]]]
) -> None:
    """P12 kill -9 while the server creates a batch and has not replied: the batch is adopted, and
    not created again."""
    job, began = written(lab, api.url), threading.Event()
    before = api.requests.lines

    def kill() -> None:
        began.wait(30)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)

    world.act = kill
    process = child(job, key=KEY)
    began.set()
    process.join(60)
    assert process.exitcode == -9
    world.act = lambda: None
    assert finished(lab, job) == 3
    assert api.requests.lines - before == len(ROWS)
    assert created(world) == BATCHES
    assert_whole(lab, job, whole, 0)


def test_killed_at_every_step_of_collecting(
    lab: Lab, api: Simulator, world: World, whole: list[list[dict[str, str]]]
) -> None:
    """P12 P01 kill -9 at each step of the run that collects: each answer is on record once, and
    nothing is sent again."""
    # Each step begins with the same folder, so the server must have the files each time.
    job = written(lab, api.url, batch={"keep_files": True})
    before = api.requests.lines
    assert lab.go(job).exit_code == 6
    sent = lab.folder / "sent"
    shutil.copytree(lab.output(), sent)
    for step in range(1, MANY):
        shutil.rmtree(lab.output())
        shutil.copytree(sent, lab.output())
        code = killed_at(step, job, key=KEY)
        assert finished(lab, job) == 3, f"step {step}"
        assert_whole(lab, job, whole, step)
        if code != -9:
            break
    assert code == 3
    assert step > 20
    assert api.requests.lines - before == len(ROWS)
    assert created(world) == BATCHES


def test_killed_at_every_step_of_cancelling(
    lab: Lab, api: Simulator, world: World, whole: list[list[dict[str, str]]]
) -> None:
    """P12 P01 kill -9 at each step of `cancel`, with the batches half answered: a second `cancel`
    ends with 0, and the next run sends only what is left."""
    job = written(lab, api.url)
    for step in range(1, MANY):
        shutil.rmtree(lab.output(), ignore_errors=True)
        world.forget()
        before, world.ends = api.requests.lines, Fate(ends="in_progress", answers=0.5)
        assert lab.go(job).exit_code == 6
        code = killed_at(step, job, key=KEY, command="cancel")
        world.ends = Fate()
        codes = [runner.cancel(lab.load(job)).exit_code for _ in range(2)]
        assert codes[-1] == 0, f"step {step}"
        assert finished(lab, job) == 3, f"step {step}"
        assert api.requests.lines - before == len(ROWS), f"step {step}"
        assert_whole(lab, job, whole, step)
        if code != -9:
            break
    assert code == 0
    assert step > 20


def test_killed_at_one_step_after_the_other(
    lab: Lab, api: Simulator, world: World, whole: list[list[dict[str, str]]]
) -> None:
    """P12 P01 One job, each run of which is killed one step later than the last: it gets done all
    the same, and no batch was created twice."""
    job = written(lab, api.url)
    before = api.requests.lines
    for step in range(1, MANY):
        code = killed_at(step, job, key=KEY, most_requests=1)
        if code == 3:
            break
        assert code in (-9, 6), f"step {step}"
    assert code == 3
    assert api.requests.lines - before == len(ROWS)
    assert sum(created(world).values()) == len(
        {batch.metadata["batchgen"] for batch in world.created}
    )
    assert sum(batch.lines for batch in world.created) == len(ROWS)
    assert_whole(lab, job, whole, step)
