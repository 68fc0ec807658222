"""`limits.max_cost_per_day` and `max_cost_per_month`: caps on what all jobs of a key spend."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lab import KEY, Lab, serving

import batchgen
from batchgen.cli import main
from batchgen.dispatch.limits.key_spending import NAME
from batchgen.errors import InputError, OutputError
from batchgen.simulator import Simulator

PRICES = {"gpt-5.6-luna": {"input": 100, "output": 1000}}
CAPPED: dict[str, Any] = {"pricing": PRICES, "limits": {"max_cost_per_day": 0.5, "concurrency": 4}}


def state() -> Path:
    return Path(os.environ["XDG_STATE_HOME"]) / "batchgen"


def lines() -> dict[str, tuple[int, int]]:
    """Of each job what is spent and leased today, in nano-dollars."""
    with closing(sqlite3.connect(state() / NAME)) as connection:
        return {
            job: (spent, leased)
            for job, spent, leased in connection.execute("SELECT job, spent, leased FROM spending")
        }


def write(statement: str) -> None:
    with closing(sqlite3.connect(state() / NAME)) as connection:
        connection.execute(statement)
        connection.commit()


def nano(cost: float | None) -> int:
    return round((cost or 0) * 1e9)


def test_jobs_of_a_key_keep_one_cap(lab: Lab, api: Simulator) -> None:
    """P17 P25 What jobs without a cap spent counts; the run that reaches the cap ends with 5 and a
    sentence that says who spent the money and when it goes on. plan says what is left.
    """
    free = lab.go(lab.job(api.url, name="free", pricing=PRICES, rows=20))
    job = lab.job(api.url, name="capped", rows=400, **CAPPED)
    done = CliRunner().invoke(main, ["plan", str(job)], env=lab.environ())
    left = 0.5 - (free.run.cost or 0)
    assert f"of limits.max_cost_per_day ${left:.4f} is left: the run may stop there" in done.stdout
    report = lab.go(job)
    assert report.exit_code == 5
    assert report.run.calls > 0
    why = str(report.stopped)
    assert "limits.max_cost_per_day is reached" in why
    assert "free $" in why
    assert "the same command goes on when the day ends, at 20" in why
    spent = {"free": (nano(free.run.cost), 0), "capped": (nano(report.run.cost), 0)}
    assert lines() == spent
    assert sum(cost for cost, _ in spent.values()) <= 500_000_000
    assert KEY.encode() not in (state() / NAME).read_bytes()


def test_another_key_has_a_cap_of_its_own(lab: Lab, api: Simulator) -> None:
    """Money that another key spent does not count."""
    lab.go(lab.job(api.url, name="free", pricing=PRICES, rows=20))
    write("UPDATE spending SET spent = 500000000")
    lab.env["OPENAI_API_KEY"] = "sk-test-another-key-9876543210"
    assert lab.go(lab.job(api.url, name="capped", **CAPPED)).exit_code == 0


def test_what_a_killed_run_had_leased_is_put_right(lab: Lab, api: Simulator) -> None:
    """P25 The lease of a run that was killed counts as spent until its job runs again, which counts
    what its journal says, with the calls that were in flight.
    """
    killed = lab.job(api.url, name="killed", pricing=PRICES, rows=2)
    first = lab.go(killed)
    write("UPDATE spending SET spent = spent - 5, leased = 499000000")
    other = lab.job(api.url, name="other", rows=400, **CAPPED)
    assert lab.go(other).exit_code == 5
    lab.job(api.url, name="killed", pricing=PRICES, rows=3)
    second = lab.go(killed)
    assert lines()["killed"] == (nano(first.run.cost) + nano(second.run.cost), 0)
    assert lab.go(other, limit=5).exit_code == 0


def test_a_lost_file_begins_anew_with_the_journals(lab: Lab, api: Simulator) -> None:
    """P25 Without the file, or with a damaged one, what was spent is read from the journals."""
    lab.go(lab.job(api.url, name="free", pricing=PRICES, rows=20))
    before = lines()
    (state() / NAME).write_bytes(b"x" * 5000)
    lab.go(lab.job(api.url, name="next", pricing=PRICES, rows=1))
    assert lines()["free"] == before["free"]


def test_a_simulated_run_counts_nothing(lab: Lab) -> None:
    """A rehearsal neither needs nor writes the file."""
    assert lab.go(lab.job(**CAPPED), simulate=True).exit_code == 0
    assert not (state() / NAME).exists()


@pytest.mark.parametrize("period", ["day", "month"])
def test_a_price_is_needed(lab: Lab, api: Simulator, period: str) -> None:
    """P25 Without a price the job is refused, and the message shows the line of the cap."""
    body = {"model": "mine", "messages": [{"role": "user", "content": "x"}]}
    limits = {f"max_cost_per_{period}": 1}
    job = lab.job(api.url, limits=limits, request={**body, "max_completion_tokens": 9})
    texts = job.read_text(encoding="utf-8").splitlines()
    line = next(n for n, text in enumerate(texts, start=1) if "max_cost_per" in text)
    with pytest.raises(InputError, match=rf":{line}:\d+: a cap on cost needs pricing\.mine"):
        lab.go(job)
    assert not (state() / NAME).exists()


def test_batches_count_at_their_highest(lab: Lab) -> None:
    """P25 What is in batches counts at its highest cost until they have ended."""
    with serving() as api:
        job = lab.job(api.url, rows=10, mode="batch", **CAPPED)
        assert lab.go(job).exit_code == 6
        planned = batchgen.plan(lab.load(job))
        assert planned.set_aside
        assert lines() == {"job": (nano(planned.set_aside), 0)}
        assert planned.left["limits.max_cost_per_day"] == pytest.approx(0.5 - planned.set_aside)


def test_a_cap_needs_the_file(lab: Lab, api: Simulator) -> None:
    """P25 If the file cannot be written, a job with a cap sends nothing (74); others go on, and say
    that they are not counted.
    """
    state().parent.mkdir(parents=True)
    state().write_text("in the way", encoding="utf-8")
    report = lab.go(lab.job(api.url, name="capped", **CAPPED))
    assert (report.exit_code, report.run.calls) == (OutputError.exit_code, 0)
    assert "limits.max_cost_per_day cannot be kept" in str(report.stopped)
    messages: list[str] = []
    assert lab.go(lab.job(api.url, name="free"), say=messages.append).exit_code == 0
    assert sum("not counted for the caps of other jobs" in each for each in messages) >= 1


def test_json_says_what_is_left(lab: Lab, api: Simulator) -> None:
    """`plan --json` has what is left of each cap."""
    limits = {"max_cost_per_day": 1, "max_cost_per_month": 20}
    job = lab.job(api.url, limits=limits, pricing=PRICES)
    done = CliRunner().invoke(main, ["plan", str(job), "--json"], env=lab.environ())
    (found,) = json.loads(done.stdout)["jobs"]
    assert found["left"] == {f"limits.{name}": value for name, value in limits.items()}
