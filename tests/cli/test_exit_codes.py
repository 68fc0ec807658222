"""P17 Exit codes are as documented, each from a real process, with a sentence on what to do."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from lab import KEY, Lab, serving, stalling

from batchgen import BusyError
from batchgen.cli import main
from batchgen.simulator import Settings, Simulator

NOWHERE = "http://127.0.0.1:9/v1"
# The exit code of several jobs is the first of these that one of them had.
WORST_FIRST = (143, 130, 1, 74, 2, 4, 75, 5, 6, 3, 0)
PRICES: dict[str, Any] = {"pricing": {"gpt-5.6-luna": {"input": 1, "output": 10}}}


def ended(lab: Lab, *args: str | Path, **options: Any) -> tuple[int, str]:
    """The exit code of a command and all that it output."""
    done = lab.run(*args, **options)
    assert "Traceback" not in done.stderr
    assert "a bug" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_0_every_row_succeeded(lab: Lab, api: Simulator) -> None:
    """P17 0: every row succeeded; a second run, with nothing to do, ends with 0 without a key."""
    job = lab.job(api.url)
    assert ended(lab, "run", job)[0] == 0
    assert ended(lab, "run", job, env=lab.environ(OPENAI_API_KEY=""))[0] == 0


def test_0_within_max_failures(lab: Lab) -> None:
    """P17 0: as many rows failed as `max_failures` allows."""
    with serving(
        script=lambda request: "400_policy" if "answer 2" in str(request.body) else None
    ) as api:
        job = lab.job(api.url, limits={"max_failures": 1})
        assert ended(lab, "run", job)[0] == 0
    assert [row["status"] for row in lab.table()].count("failed") == 1


def test_what_a_failed_turn_blocks_is_no_failure_of_its_own(lab: Lab) -> None:
    """P17 `max_failures` counts failed and incomplete rows, not the turns that they block."""
    with serving(
        script=lambda request: "400_policy" if "answer 1" in str(request.body) else None
    ) as api:
        write = "id,thread,text\na,t,ECHO:answer 1\nb,t,ECHO:two\nc,t,ECHO:three\nd,u,ECHO:four\n"
        (lab.folder / "prompts.csv").write_text(write, encoding="utf-8")
        job = lab.job(api.url, rows=None, conversation={"id": "thread"}, limits={"max_failures": 1})
        report = lab.go(job)
    assert (report.exit_code, report.rows) == (0, {"failed": 1, "blocked": 2, "succeeded": 1})


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["run"], "Missing argument"),
        (["rnu"], "run"),
        (["run", "job.yaml", "--limit", "0"], "--limit"),
        (["run", "job.yaml", "--max-cost", "nan"], "--max-cost"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "bad.yaml"], "bad.yaml:2:1: knd"),
        (["run", "template.yaml"], "template.yaml:"),
        (["run", "rows.yaml"], "ragged.csv:3: "),
        (["run", "job.yaml", "--max-cost", "1"], "pricing."),
        (["run", "job.yaml", "job.yaml", "--prompts", "-"], "one job"),
        (["redo", "job.yaml"], "--failed"),
        (["status", "job.yaml"], "has not been run yet"),
    ],
)
def test_2_something_given_is_wrong(
    lab: Lab, api: Simulator, args: list[str], expected: str
) -> None:
    """P17 2: usage, job or prompts are wrong; it is output where, and nothing was sent."""
    lab.job(api.url)
    lab.job(api.url, name="rows", prompts={"path": "ragged.csv"})
    lab.job(
        api.url,
        name="template",
        request={"model": "m", "messages": [{"role": "user", "content": "{{ a b }}"}]},
    )
    (lab.folder / "ragged.csv").write_text("id,text\n1,a\n2,b,c\n", encoding="utf-8")
    (lab.folder / "bad.yaml").write_text("kind: chat\nknd: chat\n", encoding="utf-8")
    code, output = ended(lab, *args)
    assert (code, api.requests.received) == (2, 0), output
    assert expected in output


def test_3_some_rows_failed(lab: Lab) -> None:
    """P17 3: the run ended and some rows have no whole answer; again, with nothing to do, 3 too."""
    with serving(
        script=lambda request: "400_policy" if "answer 2" in str(request.body) else None
    ) as api:
        job = lab.job(api.url)
        assert ended(lab, "run", job)[0] == 3
        received = api.requests.received
        code, output = ended(lab, "run", job)
    assert (code, api.requests.received) == (3, received), output
    assert [row["reason"] for row in lab.table(which="errors")] == ["policy"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, "OPENAI_API_KEY is not set"),
        ("  ", "OPENAI_API_KEY is empty"),
        ("sk-one two", "so it is not a key"),
        ("sk-schlüssel", "so it is not a key"),
    ],
)
def test_4_no_key(lab: Lab, api: Simulator, key: str | None, expected: str) -> None:
    """P17 P39 4: a key that is missing or malformed is named, not sent, and not shown."""
    env = lab.environ()
    del env["OPENAI_API_KEY"]
    code, output = ended(
        lab, "run", lab.job(api.url), env=env if key is None else {**env, "OPENAI_API_KEY": key}
    )
    assert (code, api.requests.received) == (4, 0), output
    assert expected in output
    assert not (key or "").strip() or str(key) not in output


def test_a_key_with_a_newline_is_stripped(lab: Lab) -> None:
    """P39 A key that was read from a file with its line end is the key."""
    with serving(Settings(key=KEY)) as api:
        assert (
            ended(lab, "run", lab.job(api.url), env=lab.environ(OPENAI_API_KEY=f"{KEY}\n"))[0] == 0
        )


@pytest.mark.parametrize("fault", ["401", "403", "quota", "404_model"])
def test_4_the_account_is_refused(lab: Lab, fault: str) -> None:
    """P17 P23 4: key or permission refused, quota empty, no such model: the rest stays pending."""
    with serving(script=lambda request: fault) as api:
        code, output = ended(lab, "run", lab.job(api.url, rows=300, limits={"concurrency": 4}))
        received = api.requests.received
    assert code == 4, output
    assert received < 20
    assert "stopped" in output
    assert [row["status"] for row in lab.table()].count("pending") == 300


def test_4_twenty_refusals_of_one_sort(lab: Lab) -> None:
    """P17 4: if the first twenty answers are the same refusal, the job is wrong, not its rows."""
    with serving(script=lambda request: "400_policy") as api:
        code, output = ended(lab, "run", lab.job(api.url, rows=300, limits={"concurrency": 4}))
        received = api.requests.received
    assert code == 4, output
    assert received < 40
    assert {row["status"] for row in lab.table()} == {"pending"}


@pytest.mark.parametrize("where", ["job", "option"])
def test_5_the_money_is_spent(lab: Lab, api: Simulator, where: str) -> None:
    """P17 P25 5: a cap on cost, of the job or of the command, stops the job in time."""
    limits = {"concurrency": 4, **({"max_cost": 0.002} if where == "job" else {})}
    job = lab.job(api.url, rows=100, limits=limits, **PRICES)
    code, output = ended(lab, "run", job, *(["--max-cost", "0.002"] if where == "option" else []))
    assert code == 5, output
    assert ("limits.max_cost" if where == "job" else "--max-cost") in output
    report = json.loads((lab.output() / "report.json").read_text(encoding="utf-8"))
    assert 0 < report["job"]["cost"] <= 0.002
    assert report["run"]["exit_code"] == 5


def test_the_cap_of_a_command_holds_for_all_its_jobs(lab: Lab, api: Simulator) -> None:
    """P25 All jobs of a command share its `--max-cost`."""
    jobs = [lab.job(api.url, name=name, rows=100, **PRICES) for name in ("one", "two")]
    code, output = ended(lab, "run", *jobs, "--max-cost", "0.002")
    assert code == 5, output
    spent = [
        json.loads((lab.output(name) / "report.json").read_text())["job"]["cost"]
        for name in ("one", "two")
    ]
    assert 0 < sum(spent) <= 0.002


def test_what_was_spent_before_there_was_a_price_counts(lab: Lab, api: Simulator) -> None:
    """P25 `limits.max_cost` holds over all runs.

    Earlier calls of unknown cost are counted at today's price.
    """
    job = lab.job(api.url, rows=20)
    assert lab.go(job, limit=10).exit_code == 0
    assert lab.go(job, limit=10).job.totals.unpriced == 10
    lab.job(
        api.url,
        rows=20,
        pricing={"gpt-5.6-luna": {"input": 100, "output": 1000}},
        limits={"max_cost": 0.15},
    )
    report = lab.go(job)
    assert report.exit_code == 5
    with sqlite3.connect(lab.output() / "journal.db") as journal:
        tokens = journal.execute(
            "SELECT sum(input_tokens), sum(output_tokens) FROM attempts"
        ).fetchone()
    assert report.run.calls > 0
    assert tokens[0] * 100e-6 + tokens[1] * 1000e-6 <= 0.15


def test_5_too_many_rows_failed(lab: Lab) -> None:
    """P17 5: more rows failed than `max_failures` allows, so the rest is not paid for."""
    with serving(script=lambda request: "400_policy" if request.n > 5 else None) as api:
        job = lab.job(api.url, rows=300, limits={"max_failures": 3, "concurrency": 2})
        code, output = ended(lab, "run", job)
        received = api.requests.received
    assert code == 5, output
    assert "max_failures" in output
    assert received < 20


def test_74_the_output_cannot_be_written(lab: Lab, api: Simulator) -> None:
    """P17 P05 74: a file where the output folder belongs is found before the first call."""
    (lab.folder / "outputs").write_text("in the way", encoding="utf-8")
    code, output = ended(lab, "run", lab.job(api.url))
    assert (code, api.requests.received) == (74, 0), output


def test_74_the_journal_is_damaged(lab: Lab, api: Simulator) -> None:
    """P17 P02 74: a journal that is none is named, and not used."""
    job = lab.job(api.url)
    lab.output().mkdir(parents=True)
    (lab.output() / "journal.db").write_bytes(b"no database at all" * 100)
    code, output = ended(lab, "run", job)
    assert (code, api.requests.received) == (74, 0), output
    assert "journal.db" in output


def test_75_the_job_is_running(lab: Lab) -> None:
    """P17 P06 75: a second run of the job ends at once and sends nothing; the first goes on."""
    with stalling() as (api, arrived, released):
        job = lab.job(api.url)
        with lab.start("run", job) as first:
            assert arrived.wait(60)
            received = api.requests.received
            code, output = ended(lab, "run", job)
            assert (code, api.requests.received) == (75, received), output
            assert "another process" in output
            released.set()
            assert first.wait(60) == 0
            first.communicate()


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_130_143_interrupted(lab: Lab, number: signal.Signals, expected: int) -> None:
    """P17 P14 130, 143: calls in flight end and are kept, none begins, tables are written."""
    with stalling() as (api, arrived, released):
        job = lab.job(api.url, rows=100, limits={"concurrency": 2})
        with lab.start("run", job) as run:
            assert arrived.wait(60)
            run.send_signal(number)
            released.set()
            out, err = run.communicate(timeout=60)
        assert run.returncode == expected, out + err
        assert "interrupted" in err
        kept = [row["status"] for row in lab.table()]
        assert len(kept) == 100
        assert 100 > kept.count("succeeded") == api.requests.answered > 0
        assert ended(lab, "run", job)[0] == 0
    assert api.requests.answered == 100


def test_the_worst_of_several_jobs(lab: Lab) -> None:
    """P17 Several jobs run in order, whatever happens to one; the worst exit code counts."""
    with serving(
        script=lambda request: "400_policy" if "answer 2" in str(request.body) else None
    ) as api:
        fine = lab.job(api.url, name="fine", rows=1)
        some = lab.job(api.url, name="some", rows=3, prompts={"path": "three.csv", "id": "id"})
        lab.prompts(3, "three.csv")
        broken = lab.job(api.url, name="broken", rows=None)
        (lab.folder / "outputs").mkdir()
        (lab.folder / "outputs" / "broken").write_text("in the way", encoding="utf-8")
        assert ended(lab, "run", fine, some)[0] == 3
        code, output = ended(lab, "run", broken, some, fine)
        assert code == 74
        assert "fine: 1 row" in output


@pytest.mark.parametrize(("worse", "better"), [*pairwise(WORST_FIRST)])
def test_which_exit_code_of_several_jobs_counts(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, worse: int, better: int
) -> None:
    """P17 Of two jobs that end differently, the exit code that asks for more counts, whichever
    runs first. After an interruption no further job runs.
    """
    jobs = [lab.job(NOWHERE, name=f"ends-{code}") for code in (worse, better)]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(
        "batchgen.cli.run.execute", lambda action, job, **_: (int(job.name.split("-")[1]), {})
    )
    for order in (jobs, jobs[::-1]):
        with pytest.raises(SystemExit) as ended:
            main(["run", *map(str, order)])
        stopped = better if better == 130 and order is not jobs else worse
        assert ended.value.code == stopped


def test_the_page_has_the_same_order() -> None:
    """P17 The README and docs/commands.md say which exit code of several jobs counts."""
    for name in ("README.md", "docs/commands.md"):
        page = (Path(__file__).parents[2] / name).read_text(encoding="utf-8")
        (order,) = re.findall(r"The exit code is the first of\s([\d, ]+) that any", page)
        assert tuple(map(int, order.split(", "))) == WORST_FIRST


def test_no_job_starts_while_another_is_wrong(lab: Lab, api: Simulator) -> None:
    """P17 All jobs are checked before one starts, templates too, and all problems are listed."""
    fine = lab.job(api.url, name="fine")
    lab.job(
        api.url,
        name="template",
        request={"model": "m", "messages": [{"role": "user", "content": "{{ a b }}"}]},
    )
    (lab.folder / "bad.yaml").write_text("kind: chat\nknd: chat\n", encoding="utf-8")
    code, output = ended(lab, "run", fine, "bad.yaml", "template.yaml", "nowhere.yaml")
    assert (code, api.requests.received) == (2, 0), output
    for name in ("bad.yaml:2:1: ", "template.yaml:", "nowhere.yaml"):
        assert name in output
    assert not (lab.folder / "outputs").exists()


def test_3_more_failed_than_allowed_and_nothing_to_do(lab: Lab) -> None:
    """P17 After a run that ended with 5 for `max_failures`, one with nothing to do ends with 3."""
    with serving(
        script=lambda request: "400_policy" if "answer 1" not in str(request.body) else None
    ) as api:
        job = lab.job(api.url, rows=3, limits={"max_failures": 1})
        assert [lab.go(job).exit_code for _ in range(2)] == [5, 3]


def test_75_at_once(lab: Lab) -> None:
    """P06 A run that finds the job's lock taken does not wait for it."""
    job = lab.job("http://127.0.0.1:9/v1")
    lab.output().mkdir(parents=True)
    began = time.monotonic()
    with FileLock(lab.output() / ".lock"), pytest.raises(BusyError):
        lab.go(job)
    assert time.monotonic() - began < 4
