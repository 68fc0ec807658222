"""The report: what it counts is true, and it can be made again."""

from __future__ import annotations

import json
import shutil

import pytest
from lab import Lab, serving

import batchgen
from batchgen import maintenance
from batchgen.journal import STATUSES
from batchgen.report import RunTotals, describe_cost
from batchgen.simulator import RequestInfo, Settings, Simulator

PRICING = {"gpt-5.6-luna": {"input": 1, "output": 2}}


def script(request: RequestInfo) -> str | None:
    return (
        "400_policy"
        if "answer 3" in str(request.body)
        else "500"
        if request.seen == 1 and request.n == 2
        else None
    )


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_export_makes_everything_again(lab: Lab, form: str) -> None:
    """P10 Delete everything but the journal: export makes the tables and report.json again, byte
    for byte (Parquet: cell for cell).
    """
    with serving(script=script) as api:
        columns = {"length": "{{ output | length }}"}
        job = lab.job(
            api.url, rows=8, pricing=PRICING, output={"tables": [form], "columns": columns}
        )
        lab.go(job, limit=5)
        lab.go(job)
    names = [f"results.{form}", f"errors.{form}", "report.json"]
    before = {name: (lab.output() / name).read_bytes() for name in names}
    shutil.copy(lab.output() / f"results.{form}", lab.folder / f"kept.{form}")
    for path in lab.output().iterdir():
        if path.name != "journal.db" and path.is_file():
            path.unlink()
    maintenance.export(lab.load(job))
    for name in names:
        if form == "parquet" and name != "report.json":
            continue
        assert (lab.output() / name).read_bytes() == before[name], name
    if form == "parquet":
        from pyarrow import parquet

        again = parquet.read_table(lab.output() / "results.parquet")
        assert again.equals(parquet.read_table(lab.folder / "kept.parquet"))


def test_export_of_pictures_and_conversations_is_the_same(lab: Lab, api: Simulator) -> None:
    """P10 The same for images and for conversations by turns."""
    request = {"model": "gpt-image-2", "prompt": "{{ text }}"}
    lab.go(pictures := lab.job(api.url, name="pictures", kind="image", rows=2, request=request))
    (lab.folder / "t.jsonl").write_text(
        '{"id": "a", "turns": ["ECHO:x", "ECHO:y"]}\n', encoding="utf-8"
    )
    body = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "{{ turn }}"}]}
    talk = lab.job(
        api.url,
        name="talk",
        prompts={"path": "t.jsonl", "id": "id"},
        conversation={"turns": "turns"},
        request=body,
    )
    lab.go(talk)
    for name, job in (("pictures", pictures), ("talk", talk)):
        before = {
            each: (lab.output(name) / each).read_bytes()
            for each in ("results.csv", "errors.csv", "report.json")
        }
        for each in before:
            (lab.output(name) / each).unlink()
        maintenance.export(lab.load(job))
        assert {each: (lab.output(name) / each).read_bytes() for each in before} == before


def test_the_report_counts_rows_calls_tokens_and_money(lab: Lab) -> None:
    """P45 The report's counts sum to its rows, its calls are those the server saw, and its tokens
    and cost those of the attempts, for the run and for all runs.
    """
    with serving(script=script) as api:
        job = lab.job(api.url, rows=6, pricing=PRICING)
        one, two = lab.go(job, limit=4), lab.go(job)
        assert one.run.calls + two.run.calls == two.job.totals.calls == api.requests.received
    assert two.rows == {"succeeded": 5, "failed": 1}
    assert sum(two.rows.values()) == two.total == 6
    assert set(two.rows) <= set(STATUSES)
    assert two.job.failures == {"policy": 1}
    assert two.job.models == ("gpt-5.6-luna",)
    assert one.run.cost is not None
    assert two.run.cost is not None
    assert one.run.cost + two.run.cost == pytest.approx(two.job.totals.cost)
    assert two.job.totals.cost == pytest.approx(sum(float(row["cost"] or 0) for row in lab.table()))
    written = json.loads((lab.output() / "report.json").read_text(encoding="utf-8"))
    assert written == two.as_json()
    assert written["run"]["run"] == 2


def test_the_line_says_what_happened(lab: Lab, api: Simulator) -> None:
    """P45 One line for a person: rows by status, calls or none, tokens, money with enough digits,
    the table.
    """
    job = lab.job(api.url, rows=1, pricing=PRICING)
    line = lab.go(job).line()
    assert line.startswith("job: 1 row: 1 succeeded; 1 call; ")
    assert "$0.0000" in line
    assert line.endswith("results.csv")
    assert "; no call made -> " in lab.go(job).line()


@pytest.mark.parametrize(
    ("cost", "unpriced", "text"),
    [
        (0.0, 0, "$0"),
        (None, 3, "cost unknown"),
        (0.000012, 0, "$0.000012"),
        (1.239, 0, "$1.24"),
        (0.5, 2, "$0.5 and 2 calls of unknown cost"),
    ],
)
def test_an_unknown_cost_is_unknown(cost: float | None, unpriced: int, text: str) -> None:
    """P45 What is unknown is never counted as nothing."""
    assert (
        describe_cost(
            RunTotals(calls=1, input_tokens=0, output_tokens=0, cost=cost, unpriced=unpriced)
        )
        == text
    )


def test_an_unknown_price_leaves_the_cost_empty(lab: Lab, api: Simulator) -> None:
    """P45 A model without a price: cost is empty in the table, null in plan, report.json and status
    (never 0), and its calls are counted as unpriced.
    """
    body = {
        "model": "home-made",
        "messages": [{"role": "user", "content": "{{ text }}"}],
        "max_completion_tokens": 9,
    }
    job = lab.job(api.url, rows=2, request=body)
    planned = batchgen.plan(lab.load(job))
    assert (planned.cost, planned.cost_at_most) == (None, None)
    report = lab.go(job)
    assert (report.run.unpriced, report.run.cost) == (2, None)
    assert "cost unknown" in report.line()
    written = json.loads((lab.output() / "report.json").read_text("utf-8"))
    assert [part["cost"] for part in written.values()] == [None, None]
    assert written["run"]["committed"] is None
    status = lab.run("status", job)
    assert "2 calls, cost unknown" in status.stdout
    assert [row["cost"] for row in lab.table()] == ["", ""]


def test_the_report_says_what_was_learned(lab: Lab) -> None:
    """P45 The limits that the server named are in the line, in report.json and in run.log; nothing
    for a server that named none.
    """
    with serving(Settings(rpm=60_000, tpm=9_000_000)) as api:
        report = lab.go(lab.job(api.url, rows=3))
    assert (
        "learned: the server's headers name 60,000 requests a minute (limits.requests_per_minute)"
        in report.line()
    )
    assert report.run_json()["learned"] == {"named_requests": 60_000, "named_tokens": 9_000_000}
    assert "run 1 learned: the server's headers name 9,000,000 tokens" in (
        lab.output() / "run.log"
    ).read_text("utf-8")
    with serving() as api:
        free = lab.go(lab.job(api.url, name="free", rows=3))
    assert "learned" not in free.line()
