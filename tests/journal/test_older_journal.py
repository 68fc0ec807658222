"""A journal written by the version before: it is read, checked and resumed by this one.

tests/fixtures/journal-v1 was made by version 0.1.0: two pictures, a row that was refused, a call
that was in flight when its process died, a closed batch, and an open one with two requests that no
server knows any more.
"""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from lab import serving

import batchgen
from batchgen import Job, Options, load_job, maintenance, queries
from batchgen.journal import Journal, find_damage, rows_with_outcomes, spent
from batchgen.journal.batches import set_aside
from batchgen.salvage import mend
from batchgen.simulator import RequestInfo, Settings

FIXTURE = Path(__file__).parents[1] / "fixtures" / "journal-v1"

# Two pictures at 15,372,500 nano-dollars, and the call that was interrupted, at its highest cost.
SPENT = 2 * 15_372_500 + 200_000_000

# The two requests of the open batch, each at its highest cost: half of what the call costs online.
SET_ASIDE = 2 * 100_000_000


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the job folder; its server cannot be reached."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    return Path(shutil.copytree(FIXTURE, tmp_path / "older"))


def load(folder: Path) -> Job:
    return load_job(folder / "job.yaml")


def statuses(folder: Path) -> dict[str, str]:
    with (folder / "output" / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        return {record["id"]: record["status"] for record in csv.DictReader(file)}


def test_its_counts_and_sums_are_read(older: Path) -> None:
    """P02 status counts rows, calls and money as the version before did."""
    status = queries.status(load(older))
    assert status["rows"] == {"succeeded": 2, "failed": 1, "pending": 2}
    assert status["failures"] == {"policy": 1}
    assert (status["calls"], status["unpriced"]) == (4, 0)
    assert (status["input_tokens"], status["output_tokens"]) == (10, 2048)
    assert (status["cost"], status["uncertain"], status["uncertain_cost"]) == (0.030745, 1, 0.2)
    assert status["in_batches"] == 2
    (batch,) = status["batches"]
    assert (batch["id"], batch["requests"]) == ("batch_sime113ac7131f60cfea568d42c", 2)
    assert (status["last_run"]["run"], status["last_run"]["exit_code"]) == (4, 6)
    with Journal.peek(older / "output") as journal:
        assert (spent(journal), set_aside(journal)) == (SPENT, SET_ASIDE)


def test_its_rows_are_shown(older: Path) -> None:
    """P02 Answers, failures, attempts and fingerprints are those that the version before
    recorded."""
    (sun,) = queries.show(load(older), "sun")
    assert sun["status"] == "succeeded"
    assert sun["key"] == "1d18ed78b4777ca8df9cc2aa998c6b252a8255b4ff0c236bf7a6c7d01d623c48"
    assert sun["outcome"]["response"]["data"][0]["path"] == "images/sun.png"
    assert [attempt["cost"] for attempt in sun["attempts"]] == [0.0153725]
    (bad,) = queries.show(load(older), "bad")
    assert (bad["status"], bad["outcome"]["reason"]) == ("failed", "policy")
    assert bad["outcome"]["code"] == "moderation_blocked"
    (stars,) = queries.show(load(older), "stars")
    assert (stars["status"], stars["batch"]["requests"]) == ("pending", 2)
    assert [(each["reason"], each["cost"]) for each in stars["attempts"]] == [("interrupted", 0.2)]


def test_its_seals_hold_and_a_flipped_byte_is_found(older: Path) -> None:
    """P02 Every record and every picture is what the version before wrote, and damage is named."""
    assert maintenance.verify(load(older)) == []
    path = older / "output" / "journal.db"
    data = path.read_bytes()
    assert data.count(b"A wood in the mist") == 1
    path.write_bytes(data.replace(b"A wood in the mist", b"A woof in the mist"))
    assert ["the staged line" in found for found in maintenance.verify(load(older))] == [True]


def test_its_tables_are_exported(older: Path) -> None:
    """P10 export makes the tables again from the journal alone."""
    maintenance.export(load(older))
    assert statuses(older) == {
        "sun": "succeeded",
        "moon": "succeeded",
        "bad": "failed",
        "stars": "pending",
        "wood": "pending",
    }
    report = json.loads((older / "output" / "report.json").read_text(encoding="utf-8"))
    assert report["job"]["cost"] + report["job"]["uncertain_cost"] == SPENT / 10**9


def test_it_is_resumed_and_nothing_is_asked_twice(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P01 P12 Nothing is sent while the batch may exist elsewhere. Once it is given up, its two
    requests are sent, once each, in a new batch; what was answered or refused is not sent again."""
    asked: Counter[str] = Counter()

    def script(request: RequestInfo) -> None:
        if "prompt" in request.body:
            asked[str(request.body["prompt"])] += 1

    with serving(Settings(batch_speed=0), script=script) as api:
        monkeypatch.setenv("OPENAI_BASE_URL", api.url)
        stopped = batchgen.run(load(older), Options(wait=True))
        assert stopped.exit_code == 4
        assert "does not know the batch" in str(stopped.stopped)
        assert batchgen.cancel(load(older)).exit_code == 0
        assert api.requests.batches == 0
        report = batchgen.run(load(older), Options(wait=True))
        assert report.exit_code == 3  # the refused row
        assert report.rows == {"succeeded": 4, "failed": 1}
        assert (report.run.calls, report.number, api.requests.batches) == (2, 7, 1)
        assert batchgen.run(load(older)).run.calls == 0
    assert asked == {"Stars over a lake": 1, "A wood in the mist": 1}
    assert Counter(statuses(older).values()) == {"succeeded": 4, "failed": 1}
    assert {path.name for path in (older / "output" / "images").iterdir()} >= {
        "sun.png",
        "moon.png",
        "stars.png",
        "wood.png",
    }
    assert maintenance.verify(load(older)) == []
    with Journal.peek(older / "output") as journal:
        assert list(find_damage(journal)) == []
        assert set_aside(journal) == 0
        assert {row.id: outcome.run for row, outcome in rows_with_outcomes(journal) if outcome} == {
            "sun": 2,
            "moon": 2,
            "bad": 2,
            "stars": 7,
            "wood": 7,
        }


def test_a_damaged_one_is_mended(older: Path) -> None:
    """P02 What is sound of a damaged journal of an older version comes out and goes on: answers,
    failures, money, and the requests in its open batch.
    """
    before = queries.status(load(older))
    with closing(sqlite3.connect(older / "output" / "journal.db")) as connection, connection:
        connection.execute("UPDATE outcomes SET model = 'x' WHERE ident LIKE '%sun%'")
    assert mend(load(older)).lost == ["sun"]
    after = queries.status(load(older))
    assert after["rows"] == {"succeeded": 1, "failed": 1, "pending": 3}
    assert {**after, "rows": 0} == {**before, "rows": 0}
    with Journal.peek(older / "output") as journal:
        assert list(find_damage(journal)) == []
        assert (spent(journal), set_aside(journal)) == (SPENT, SET_ASIDE)
