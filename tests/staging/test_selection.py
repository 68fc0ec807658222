"""Rows with an empty prompt stop a job, are left out of it, or are sent; never unseen."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import Lab

import batchgen
from batchgen import Options, maintenance, queries
from batchgen.simulator import Simulator
from batchgen.workspace import Workspace

WOO = "id,name,text\n1,Shirt,Cotton\n2,Shirt S,\n3,Shirt M, \n4,Cap,Wool\n"


def woo(lab: Lab, url: str, empty: str | None = None, **parts: Any) -> Path:
    """A job over four rows, of which two have no text."""
    (lab.folder / "prompts.csv").write_text(WOO, encoding="utf-8")
    prompts = {"path": "prompts.csv", "id": "id", **({"empty": empty} if empty else {})}
    return lab.job(url, rows=None, prompts=prompts, **parts)


def test_empty_prompts_are_refused_in_one_message(lab: Lab, api: Simulator) -> None:
    """P30 Rows without a prompt stop the job before any call: how many, where, why, and what to
    do."""
    job = woo(lab, api.url)
    for action in (batchgen.plan, batchgen.run):
        with pytest.raises(batchgen.InputError) as caught:
            action(lab.load(job))
        assert str(caught.value) == (
            "prompts.csv:3: 2 rows have an empty prompt (lines 3, 4): nothing in text; fill them, "
            "or set prompts.empty: skip (left out) or send (sent as they are)"
        )
    assert api.requests.received == 0


def test_skipped_rows_are_counted_and_in_no_table(lab: Lab, api: Simulator) -> None:
    """A row that is left out is not sent and in no table; plan, run, status and report.json say how
    many there are."""
    job = woo(lab, api.url, "skip")
    assert batchgen.plan(lab.load(job)).left_out == {"prompts.empty": 2}
    assert "2 rows left out by prompts.empty" in lab.run("plan", job).stdout
    report = lab.go(job)
    assert "2 rows: 2 succeeded; 2 rows left out by prompts.empty; 2 calls" in report.line()
    assert [row["id"] for row in lab.table()] == ["1", "4"]
    assert queries.status(lab.load(job))["left_out"] == {"prompts.empty": 2}
    assert "2 rows left out by prompts.empty" in lab.run("status", job).stdout
    written = json.loads((lab.output() / "report.json").read_bytes())
    assert written["job"]["left_out"] == {"prompts.empty": 2}
    assert batchgen.plan(lab.load(job)).left_out == {"prompts.empty": 2}
    assert lab.go(job).run.calls == 0
    maintenance.export(lab.load(job))
    exported = json.loads((lab.output() / "report.json").read_bytes())
    assert exported["job"] == written["job"]


def test_sent_rows_are_said(lab: Lab, api: Simulator) -> None:
    """prompts.empty: send sends them, and plan and run say how many."""
    job = woo(lab, api.url, "send")
    message = "2 rows with an empty prompt, sent by prompts.empty: send"
    assert message in lab.run("plan", job).stdout
    ran = lab.run("run", job)
    assert (ran.returncode, message in ran.stderr) == (0, True)
    assert api.requests.received == 4


def test_a_limit_counts_the_rows_that_are_kept(lab: Lab, api: Simulator) -> None:
    """--limit N takes the first N rows that are not left out."""
    job = lab.load(woo(lab, api.url, "skip"))
    assert batchgen.plan(job, limit=2).calls == 2
    assert batchgen.plan(job, limit=9).calls == 2
    report = batchgen.run(job, Options(limit=2))
    assert (report.total, report.run.calls) == (2, 2)


def test_no_row_is_left(lab: Lab, api: Simulator) -> None:
    """A job that leaves every row out does nothing, says so and writes an empty table."""
    job = woo(lab, api.url, "skip")
    (lab.folder / "prompts.csv").write_text("id,name,text\n1,a,\n", encoding="utf-8")
    report = lab.go(job)
    assert (report.exit_code, report.total) == (0, 0)
    assert report.line().startswith("job: 0 rows; 1 row left out by prompts.empty; no call made")
    assert lab.table() == []
    assert "job: 0 rows; 0 calls" in lab.run("status", job).stdout
    assert "rows:     0\n" in lab.run("plan", job).stdout


def test_an_answer_comes_back_with_its_row(lab: Lab, api: Simulator) -> None:
    """What a left-out row was answered before is not lost: taking the row in again pays nothing,
    also where the prompts came from stdin."""
    request = {
        "model": "gpt-5.6-luna",
        "messages": [{"role": "user", "content": "{{ text }}"}],
        "max_completion_tokens": 100,
    }

    def job(empty: str) -> Path:
        prompts = {"path": "-", "format": "csv", "id": "id", "empty": empty}
        return lab.job(api.url, rows=None, prompts=prompts, request=request)

    stdin = io.BufferedReader(io.BytesIO(WOO.encode()))
    assert lab.go(job("send"), stdin=stdin).run.calls == 4
    assert lab.go(job("skip")).total == 2
    assert len(lab.table()) == 2
    assert lab.go(job("send")).run.calls == 0
    assert len(lab.table()) == 4


@pytest.mark.parametrize(
    ("parts", "empty"),
    [
        ({}, [False, True, True, True]),
        ({"content": "{{ name }}: {{ text }}"}, [False, False, True, False]),
        ({"content": 'Say {{ row["text"] }} in {{ axis }}'}, [False, True, True, True]),
        ({"content": "{% for name in row %}{{ row[name] }}{% endfor %}"}, [False] * 4),
        ({"content": "Tell me something."}, [False] * 4),
        ({"content": '{% include "ask.md" %}'}, [False, True, True, True]),
        ({"model": "{{ name }}", "content": "{{ text }}"}, [False, True, True, True]),
    ],
)
def test_what_is_empty(lab: Lab, parts: dict[str, str], empty: list[bool]) -> None:
    """A row is empty when nothing is in any column that the prompt uses: other fields, axes and
    columns that no template uses do not fill it."""
    (lab.folder / "ask.md").write_text("Describe {{ text }}", encoding="utf-8")
    rows: list[dict[str, Any]] = [
        {"name": "a", "text": 0, "tags": ["x"]},
        {"name": "b", "text": ["", {"x": None}], "tags": ["x"]},
        {"name": None, "text": None, "tags": ["x"]},
        {"name": "d", "text": "\n\t", "tags": ["x"]},
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (lab.folder / "p.jsonl").write_text(lines, encoding="utf-8")
    job = lab.job(
        "http://127.0.0.1:9/v1",
        rows=None,
        prompts={"path": "p.jsonl", "empty": "send"},
        matrix={"axis": ["German"]},
        request={
            "model": parts.get("model") or "gpt-5.6-luna",
            "messages": [{"role": "user", "content": parts.get("content", "{{ text }}")}],
            "max_completion_tokens": 100,
        },
    )
    renderer = Workspace.of(lab.load(job)).renderer
    assert [renderer.leaves_empty(row) for row in rows] == empty


def test_turns_without_a_word_are_empty(lab: Lab) -> None:
    """A conversation is empty when all of its turns are, and a photo does not stand for a
    question."""
    turns = lab.job(
        "http://127.0.0.1:9/v1",
        rows=None,
        prompts={"path": "p.jsonl"},
        conversation={"turns": "asked"},
        request={"model": "m", "messages": [{"role": "user", "content": "{{ turn }}"}]},
    )
    edit = lab.job(
        "http://127.0.0.1:9/v1",
        name="edit",
        rows=None,
        kind="image_edit",
        prompts={"path": "p.jsonl"},
        request={"model": "m", "image": "{{ photo }}", "prompt": "{{ wish }}"},
    )
    of = Workspace.of
    assert of(lab.load(turns)).renderer.leaves_empty({"asked": ["", " "], "turn": "x"})
    assert not of(lab.load(turns)).renderer.leaves_empty({"asked": ["", "why"]})
    assert of(lab.load(edit)).renderer.leaves_empty({"photo": "a.png", "wish": ""})


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.sampled_from(["", " ", "x", "\u3000"]), min_size=1, max_size=6))
def test_every_row_is_somewhere(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """The rows of a table and the rows left out are together the rows of the file."""
    lab = Lab(tmp_path_factory.mktemp("job"))
    lines = "".join(f"{n},{text}\n" for n, text in enumerate(texts))
    (lab.folder / "prompts.csv").write_text(f"id,text\n{lines}", encoding="utf-8")
    prompts = {"path": "prompts.csv", "id": "id", "empty": "skip"}
    planned = batchgen.plan(lab.load(lab.job("http://127.0.0.1:9/v1", rows=None, prompts=prompts)))
    assert planned.total == sum(bool(text.strip()) for text in texts)
    assert planned.total + sum(planned.left_out.values()) == len(texts)


# --- prompts.where
# --------------------------------------------------------------------------------------------------


def chosen(lab: Lab, url: str, where: str, **prompts: Any) -> Path:
    """A job over the four rows that takes those for which an expression holds."""
    (lab.folder / "prompts.csv").write_text(WOO, encoding="utf-8")
    keys = {"path": "prompts.csv", "id": "id", "where": where, **prompts}
    return lab.job(url, rows=None, prompts=keys)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ('text.strip() != ""', ["1", "4"]),
        ('row["name"] in ["Cap", "Shirt"]', ["1", "4"]),
        ("id | int > 3", ["4"]),
        ('name is not defined or "}}" in name', []),
    ],
)
def test_rows_for_which_an_expression_does_not_hold_are_left_out(
    lab: Lab, api: Simulator, where: str, ids: list[str]
) -> None:
    """They are not sent and in no table, and they are counted before emptiness is asked for."""
    job = chosen(lab, api.url, where)
    assert batchgen.plan(lab.load(job)).left_out == {"prompts.where": 4 - len(ids)}
    report = lab.go(job)
    assert (report.exit_code, report.run.calls) == (0, len(ids))
    assert [row["id"] for row in lab.table()] == ids
    assert f"{4 - len(ids)} rows left out by prompts.where" in lab.run("status", job).stdout


def test_rows_that_come_in_again_are_not_paid_twice(lab: Lab, api: Simulator) -> None:
    """P08 The answers of rows that were left out for a while are still theirs."""
    assert lab.go(chosen(lab, api.url, "id | int in [1, 4]")).run.calls == 2
    assert lab.go(chosen(lab, api.url, "id == '1'")).run.calls == 0
    assert [row["id"] for row in lab.table()] == ["1"]
    assert lab.go(chosen(lab, api.url, "id | int in [1, 4]")).run.calls == 0
    assert [row["status"] for row in lab.table()] == ["succeeded", "succeeded"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("naem == 'Cap'", "job.yaml:6:12: prompts.where: 'naem' is not a column"),
        ('row["naem"]', "did you mean 'name'?"),
        ("name ==", "prompts.where: template syntax"),
        ("name }} {{ id", "prompts.where: template syntax"),
        ("id | int > name", "prompts.csv:2: prompts.where: TypeError"),
    ],
)
def test_an_expression_that_is_wrong(lab: Lab, where: str, message: str) -> None:
    """P30 A wrong name or syntax is told with the line of the job, before any call; so is a row
    for which the expression has no value, with its line."""
    job = chosen(lab, "http://127.0.0.1:9/v1", where)
    with pytest.raises(batchgen.InputError) as caught:
        batchgen.plan(lab.load(job))
    assert message in str(caught.value)


def test_an_expression_cannot_reach_python(lab: Lab) -> None:
    """P41 It runs in the sandbox of the templates."""
    job = chosen(lab, "http://127.0.0.1:9/v1", "name.__class__.__mro__", bad_rows="fail")
    assert batchgen.plan(lab.load(job)).rows == {"failed": 4}
