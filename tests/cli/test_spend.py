"""`batchgen spend`: what all jobs on this machine cost."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lab import KEY, Lab

from batchgen import maintenance
from batchgen.cli import cells, main
from batchgen.simulator import Simulator

UNPRICED = {
    "model": "nobodys-model",
    "messages": [{"role": "user", "content": "{{ text }}"}],
    "max_completion_tokens": 100,
}
PRICES = {"gpt-5.6-luna": {"input": 1000, "output": 4000}}


def spent(lab: Lab, *args: str, columns: int = 80) -> Result:
    """What `batchgen spend ARGS` does in this process."""
    return CliRunner().invoke(main, ["spend", *args], env={"COLUMNS": str(columns)})


def found(lab: Lab) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(spent(lab, "--json").stdout)
    return parsed


def on_days(folder: Path, *days: str) -> None:
    """Let the attempts in a journal be of these days, in turn; their seals do not fit any more."""
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        for number, day in enumerate(days, start=1):
            connection.execute(
                "UPDATE attempts SET started_at = strftime('%s', ?) WHERE seq = ?", (day, number)
            )
        connection.commit()


def test_what_nobody_knows_is_not_nothing(lab: Lab, api: Simulator) -> None:
    """Calls without a price cost null and `unknown`, never 0; beside others they are in no sum."""
    lab.go(lab.job(api.url, name="unpriced", request=UNPRICED))
    assert (found(lab)["totals"]["cost"], found(lab)["spent"][0]["cost"]) == (None, None)
    assert spent(lab).stdout.splitlines()[-2].split()[-1] == "unknown"
    report = lab.go(lab.job(api.url, name="priced", pricing=PRICES))
    assert found(lab)["totals"]["cost"] == report.run.cost
    assert found(lab)["totals"]["unpriced"] == 5


def test_all_jobs_are_added_up(lab: Lab, api: Simulator) -> None:
    """Jobs of this machine are counted, each with what its own report says, and by the key that
    they had; a simulated run is not. The key itself is nowhere.
    """
    reports = [lab.go(lab.job(api.url, name=name, pricing=PRICES)) for name in ("one", "two")]
    lab.go(lab.job(name="rehearsed", pricing=PRICES), simulate=True)
    everything = found(lab)
    costs = {each["job"]: each["cost"] for each in everything["spent"]}
    assert costs == {"one": reports[0].run.cost, "two": reports[1].run.cost}
    assert everything["totals"]["cost"] == pytest.approx(sum(costs.values()))
    (key,) = {each["key"] for each in everything["spent"]}
    assert key.startswith("OPENAI_API_KEY ")
    assert len(key) == len("OPENAI_API_KEY ") + 8
    assert KEY not in json.dumps(everything)
    lines = spent(lab, "--by", "job", "--by", "key").stdout.splitlines()
    assert lines[0].split() == ["job", "key", "calls", "tokens", "cost"]
    assert lines[1].split()[:2] == ["one", "OPENAI_API_KEY"]
    assert lines[-1].split()[:3] == ["in", "all", "10"]


def test_days_and_months_are_those_of_utc(lab: Lab, api: Simulator) -> None:
    """A second before midnight in UTC is another day and, at a month's end, another month."""
    lab.go(lab.job(api.url, rows=3, pricing=PRICES))
    on_days(lab.output(), "2026-01-31 23:59:59", "2026-02-01 00:00:00", "2026-02-01 23:59:59")
    assert [(each["day"], each["calls"]) for each in found(lab)["spent"]] == [
        ("2026-01-31", 1),
        ("2026-02-01", 2),
    ]
    lines = spent(lab, "--by", "month").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["2026-01", "1"], ["2026-02", "2"]]


def test_what_cannot_be_counted_is_told(lab: Lab, api: Simulator) -> None:
    """A folder that is gone, a journal that cannot be read and calls without a price are told; the
    rest is counted.
    """
    for name in ("kept", "gone", "broken"):
        lab.go(lab.job(api.url, name=name, rows=1, pricing={}))
    shutil.rmtree(lab.output("gone"))
    (lab.output("broken") / "journal.db").write_bytes(b"x" * 5000)
    done = spent(lab)
    assert done.exit_code == 0
    assert f"not counted: {lab.output('gone')}: is gone" in done.stderr
    assert str(lab.output("broken") / "journal.db") in done.stderr
    assert "without 1 call of unknown cost" in done.stdout
    assert found(lab)["totals"]["calls"] == 1


def test_a_job_that_moves_is_counted_once(lab: Lab, api: Simulator) -> None:
    """Running again, and a redo, note nothing twice; every call that was paid counts."""
    job = lab.job(api.url, rows=2, pricing=PRICES)
    lab.go(job)
    maintenance.redo(lab.load(job), ["r1"])
    lab.go(job)
    assert found(lab)["totals"]["calls"] == 3


def test_nothing_was_spent(lab: Lab) -> None:
    """Without any run it says so, and writes nothing."""
    assert spent(lab).stdout == "no job has spent anything on this machine yet\n"
    assert found(lab)["totals"] == {"calls": 0, "tokens": 0, "cost": 0, "unpriced": 0}


def test_numbers_stand_in_columns(lab: Lab, api: Simulator) -> None:
    """Columns are aligned, whatever the names."""
    lab.go(lab.job(api.url, name="a-much-longer-name", rows=1, pricing=PRICES))
    lab.go(lab.job(api.url, name="a", rows=1, pricing=PRICES))
    lines = spent(lab, "--by", "job").stdout.splitlines()
    assert len({cells.width_of(line) for line in lines}) == 1
