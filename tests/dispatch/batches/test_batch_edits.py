"""Edits of a job while its batches are open: nothing is sent twice, and no answer is lost."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving

import batchgen
from batchgen import maintenance
from batchgen.dispatch.batches import client, collect
from batchgen.job import with_mode
from batchgen.simulator import BatchInfo, Fate, Settings, Simulator

ROWS = [("a", "ECHO:1"), ("b", "ECHO:2"), ("c", "ECHO:3")]


class World:
    """A simulator whose batches end when a test says so, and the size of each."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.sent: list[int] = []

    def clock(self) -> float:
        return time.time() + self.ahead

    def fate(self, batch: BatchInfo) -> Fate:
        self.sent.append(batch.lines)
        return Fate()

    def end(self) -> None:
        """End every batch that was sent until now."""
        self.ahead += 2000.0


@contextmanager
def opened() -> Iterator[tuple[World, Simulator]]:
    world = World()
    with serving(Settings(batch_speed=1000), fate=world.fate, clock=world.clock) as api:
        yield world, api


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches and fetches do not wait."""
    monkeypatch.setattr(client, "BETWEEN_SEARCHES", 0.0)
    monkeypatch.setattr(collect, "BETWEEN_FETCHES", 0.0)


def written(lab: Lab, api: Simulator, rows: Sequence[tuple[str, str]] = ROWS, **parts: Any) -> Path:
    with open(lab.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *rows])
    return lab.job(api.url, rows=None, mode="batch", **parts)


def shown(lab: Lab) -> list[tuple[str, str, str]]:
    return [(row["id"], row["status"], row["output"]) for row in lab.table()]


def paid(api: Simulator) -> int:
    """How many requests were executed."""
    return api.requests.lines + api.requests.by_path["/v1/chat/completions"]


def test_a_row_is_added(lab: Lab) -> None:
    """P08 P12 A row that is added while a batch is open is sent alone."""
    with opened() as (world, api):
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        written(lab, api, [ROWS[0], ("new", "ECHO:4"), *ROWS[1:]])
        assert (lab.go(job).exit_code, world.sent) == (6, [3, 1])
        world.end()
        assert lab.go(job).exit_code == 0
        assert paid(api) == 4
    assert shown(lab) == [
        (name, "succeeded", text[5:]) for name, text in [ROWS[0], ("new", "ECHO:4"), *ROWS[1:]]
    ]


def test_a_row_is_edited(lab: Lab) -> None:
    """P08 P12 A row that is edited while its batch is open is sent again, alone. The batch's answer
    is kept, is in the table until the new one arrives, and is used when the edit is undone."""
    edited = [("a", "ECHO:other"), *ROWS[1:]]
    with opened() as (world, api):
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        world.ahead += 500
        written(lab, api, edited)
        assert (lab.go(job).exit_code, world.sent) == (6, [3, 1])
        # The first batch has ended, the second is on its way.
        world.ahead += 600
        assert lab.go(job).exit_code == 6
        assert shown(lab)[0] == ("a", "outdated", "1")
        assert world.sent == [3, 1]
        world.end()
        assert lab.go(job).exit_code == 0
        assert shown(lab)[0] == ("a", "succeeded", "other")
        written(lab, api)
        assert lab.go(job).exit_code == 0
        assert shown(lab) == [(name, "succeeded", text[5:]) for name, text in ROWS]
        assert paid(api) == 4


def test_an_edit_is_taken_back(lab: Lab) -> None:
    """P08 P12 A row that is edited and restored while its batch is open is the row in the batch."""
    with opened() as (world, api):
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        written(lab, api, [("a", "ECHO:other"), *ROWS[1:]])
        batchgen.plan(lab.load(job))
        written(lab, api)
        assert (lab.go(job).exit_code, world.sent) == (6, [3])
        world.end()
        assert lab.go(job).exit_code == 0
        assert paid(api) == 3


def test_a_row_is_removed(lab: Lab) -> None:
    """P08 P12 The answer for a removed row is kept, and used when the row comes back."""
    with opened() as (world, api):
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        written(lab, api, ROWS[1:])
        assert (lab.go(job).exit_code, world.sent) == (6, [3])
        world.end()
        assert lab.go(job).exit_code == 0
        assert shown(lab) == [(name, "succeeded", text[5:]) for name, text in ROWS[1:]]
        written(lab, api)
        assert lab.go(job).exit_code == 0
        assert shown(lab) == [(name, "succeeded", text[5:]) for name, text in ROWS]
        assert (world.sent, paid(api)) == ([3], 3)


def test_all_rows_are_others(lab: Lab) -> None:
    """P08 P12 A batch is collected even if none of its rows is left, and the job is not done
    before."""
    with opened() as (world, api):
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        written(lab, api, [("z", "ECHO:26")])
        assert (lab.go(job).exit_code, world.sent) == (6, [3, 1])
        world.end()
        done = lab.go(job)
        assert (done.exit_code, done.batches, paid(api)) == (0, (), 4)
        written(lab, api)
        assert lab.go(job).exit_code == 0
        assert paid(api) == 4


@pytest.mark.parametrize("first", ["with", "without"])
def test_the_id_column_is_named(lab: Lab, first: str) -> None:
    """P08 P12 Setting or removing `prompts.id` while a batch is open sends nothing again, equal
    rows included."""
    rows = [*ROWS, ("d", "ECHO:1"), ("e", "ECHO:1")]
    named = [{"path": "prompts.csv", "id": "id"}, {"path": "prompts.csv"}]
    before, after = named if first == "with" else named[::-1]
    with opened() as (world, api):
        job = written(lab, api, rows, prompts=before)
        assert lab.go(job).exit_code == 6
        written(lab, api, rows, prompts=after)
        assert (lab.go(job).exit_code, world.sent) == (6, [5])
        world.end()
        assert lab.go(job).exit_code == 0
        assert (world.sent, paid(api)) == ([5], 5)
        written(lab, api, rows, prompts=before)
        assert lab.go(job).exit_code == 0
        assert paid(api) == 5
    assert [row["output"] for row in lab.table()] == ["1", "2", "3", "1", "1"]


def test_the_tables_are_others(lab: Lab) -> None:
    """P07 P12 Other tables while a batch is open: nothing is sent, and the answers are in them."""
    with opened() as (world, api):
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        written(
            lab, api, output={"tables": ["jsonl"], "columns": {"long": "{{ output | length }}"}}
        )
        assert (lab.go(job).exit_code, world.sent) == (6, [3])
        world.end()
        assert lab.go(job).exit_code == 0
        assert (world.sent, paid(api)) == ([3], 3)
    lines = [json.loads(line) for line in (lab.output() / "results.jsonl").read_text().splitlines()]
    assert [(line["output"], line["long"]) for line in lines] == [(text[5:], 1) for _, text in ROWS]


def test_redo_while_a_batch_is_open(lab: Lab) -> None:
    """P07 P12 redo of rows in an open batch sends nothing. The old answer stays until the new one
    arrives, and a redo after that sends the row."""
    with opened() as (world, api):
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        assert maintenance.redo(lab.load(job), ["a"]) == 0
        assert (lab.go(job).exit_code, world.sent) == (6, [3])
        world.end()
        assert lab.go(job).exit_code == 0
        for _ in range(2):
            assert maintenance.redo(lab.load(job), ["a"]) == 1
            assert lab.go(job).exit_code == 6
            assert shown(lab)[0] == ("a", "outdated", "1")
        assert world.sent == [3, 1]
        world.end()
        assert lab.go(job).exit_code == 0
        assert shown(lab)[0] == ("a", "succeeded", "1")
        assert (lab.go(job).exit_code, paid(api)) == (0, 4)
        assert maintenance.redo(lab.load(job), ["a"]) == 1
        assert (lab.go(job).exit_code, world.sent) == (6, [3, 1, 1])


def test_a_limit_of_rows(lab: Lab) -> None:
    """P12 --limit sends the first rows; the next run sends only the others."""
    with opened() as (world, api):
        job = written(lab, api)
        assert (lab.go(job, limit=1).exit_code, world.sent) == (6, [1])
        assert (lab.go(job).exit_code, world.sent) == (6, [1, 2])
        world.end()
        assert lab.go(job, limit=1).exit_code == 0
        assert lab.go(job).exit_code == 0
        assert paid(api) == 3


def test_the_rest_goes_online(lab: Lab) -> None:
    """P12 --mode online while a batch is open sends only what is in no batch."""
    with opened() as (world, api):
        job = written(lab, api)
        assert lab.go(job, limit=2).exit_code == 6
        online = with_mode(lab.load(job), "online")
        waiting = batchgen.run(online)
        assert (waiting.exit_code, waiting.rows, waiting.run.calls) == (
            6,
            {"succeeded": 1, "pending": 2},
            1,
        )
        world.end()
        assert batchgen.run(online).exit_code == 0
        assert (world.sent, paid(api)) == ([2], 3)


def test_another_server(lab: Lab) -> None:
    """P12 A job that changes its server while a batch is open stops with 4: the new server does not
    know the batch, and nothing of it is sent again until the user gives it up."""
    with opened() as (world, api):
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        with serving(Settings(batch_speed=0)) as other:
            written(lab, other)
            stopped = lab.go(job)
            assert stopped.exit_code == 4
            assert "batchgen cancel" in (stopped.stopped or "")
            assert other.requests.lines == other.requests.by_path["/v1/files"] == 0
        written(lab, api)
        world.end()
        assert lab.go(job).exit_code == 0
        assert (world.sent, paid(api)) == ([3], 3)
