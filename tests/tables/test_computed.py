"""output.columns in the tables: what is empty is counted, what cannot work is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lab import Lab, serving

import batchgen
from batchgen import maintenance, queries
from batchgen.simulator import Simulator

COLUMNS = {"a": "{{ json.a }}", "whole": "{{ output }}"}
EMPTY = "column a: 3 of 4 cells empty: "
REASONS = {"the answer is no JSON": 2, "no such field or item": 1}


@pytest.fixture
def api(lab: Lab) -> Iterator[Simulator]:
    """A server that echoes the four answers of the prompts."""
    answers = {"clean": {"a": 1}, "other": {"b": 1}, "prose": "Here you go", "half": '{"a": '}
    rows = (
        {"id": name, "text": f"ECHO:{text if isinstance(text, str) else json.dumps(text)}"}
        for name, text in answers.items()
    )
    (lab.folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with serving() as simulator:
        yield simulator


def parts(columns: dict[str, str]) -> dict[str, Any]:
    return {
        "rows": None,
        "prompts": {"path": "p.jsonl", "id": "id"},
        "output": {"columns": columns},
    }


def test_empty_cells_are_counted_with_their_reasons(lab: Lab, api: Simulator) -> None:
    """P45 Cells that an answer leaves empty are in the summary, in run.log and, with the reasons
    and the first of them, in report.json; also where the tables are found as they are.
    """
    job = lab.job(api.url, **parts(COLUMNS))
    for _ in range(2):
        report = lab.go(job)
        assert (report.exit_code, report.rows) == (0, {"succeeded": 4})
        assert f"; {EMPTY}" in report.line()
        written = json.loads((lab.output() / "report.json").read_text("utf-8"))
        assert written == report.as_json()
        ((name, found),) = written["job"]["columns"].items()
        assert (name, found["cells"], found["empty"], found["reasons"]) == ("a", 4, 3, REASONS)
        assert found["first"] == {"id": "other", "error": "the object has no 'a'"}
    assert report.run.calls == 0
    assert (lab.output() / "run.log").read_text("utf-8").count(f"run 2 {EMPTY}") == 1
    assert [row["a"] for row in lab.table()] == ["1", "", "", ""]


def test_export_counts_them_again(lab: Lab, api: Simulator) -> None:
    """P10 A mended template and export: nothing is sent, and the count is that of the new cells."""
    job = lab.job(api.url, **parts({"b": "{{ json.b }}"}))
    lab.go(job)
    lab.job(api.url, **parts(COLUMNS))
    done = lab.run("export", job)
    assert (done.returncode, api.requests.received) == (0, 4)
    assert EMPTY in done.stderr
    lab.job(api.url, **parts({"a": "{{ json.a | default('') }}"}))
    done = lab.run("export", job)
    assert done.stderr == ""
    assert json.loads((lab.output() / "report.json").read_text("utf-8"))["job"]["columns"] == {}


def test_many_columns_are_told_briefly(lab: Lab, api: Simulator) -> None:
    """P45 Of many columns the line tells the first five, report.json all."""
    report = lab.go(lab.job(api.url, **parts({f"c{n}": f"{{{{ json.c{n} }}}}" for n in range(9)})))
    assert report.line().count("cells empty") == 5
    assert "; 4 more columns with empty cells (see report.json)" in report.line()
    assert len(report.as_json()["job"]["columns"]) == 9


@pytest.mark.parametrize(
    "template", ["{{ output.spltlines() }}", "{{ json.a | uper }}", "{{ answer }}", "{{ row.txt }}"]
)
@pytest.mark.parametrize("staged", [False, True])
def test_a_template_that_cannot_work_is_refused_before_a_call(
    lab: Lab, api: Simulator, template: str, staged: bool
) -> None:
    """P30 It ends plan, run, export and results with 2 and its place in the job, also when the rows
    are staged already and some have no answer.
    """
    job = lab.job(api.url, **parts(COLUMNS | {"b": "{{ output }}"}))
    if staged:
        lab.go(job, limit=2)
    calls = api.requests.received
    lab.job(api.url, **parts(COLUMNS | {"b": template}))
    later = (maintenance.export, queries.results) if staged else ()
    for ask in (batchgen.plan, batchgen.run, *later):
        with pytest.raises(batchgen.InputError, match=r"^\S*job\.yaml:\d+:\d+: output\.columns\.b"):
            ask(lab.load(job))
    assert lab.run("cancel", job).returncode == 2
    assert api.requests.received == calls


def test_no_table_holds_what_is_no_json(lab: Lab, api: Simulator) -> None:
    """P28 A column that computes an infinite number is empty: results.jsonl stays JSON."""
    output = {"tables": ["jsonl"], "columns": {"a": "{{ [1e308 * 10] }}", "b": "{{ json }}"}}
    lab.go(lab.job(api.url, **{**parts({}), "output": output}))
    for line in (lab.output() / "results.jsonl").read_text("utf-8").splitlines():
        assert json.loads(line, parse_constant=pytest.fail)["a"] is None
