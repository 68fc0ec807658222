"""output.columns: cells out of an answer, or the reason why there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchgen.job import load_job
from batchgen.requests import Blank, Renderer

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "{{ text }}"}]}


def renderer(folder: Path, columns: dict[str, str], **parts: Any) -> Renderer:
    job = {"kind": "chat", "prompts": {"path": "rows.csv"}, "request": REQUEST, **parts}
    path = folder / "job.yaml"
    path.write_text(json.dumps({**job, "output": {"columns": columns}}), encoding="utf-8")
    return Renderer(load_job(path, environ={}), "p")


def cells(folder: Path, output: str, **columns: str) -> dict[str, Any]:
    made = renderer(folder, columns)
    assert made.problems(["text"]) == []
    return made.columns.cells({"text": "hi"}, {"model": "asked"}, {"model": "m"}, output)


def problems(folder: Path, template: str, header: list[str] | None = None) -> list[str]:
    """What is wrong with one column, without the name of the file."""
    found = renderer(folder, {"a": template}, matrix={"tone": ["dry"]}).problems(header)
    assert all(problem.line and problem.column for problem in found)
    return [problem.message for problem in found]


def test_the_names_of_an_answer(tmp_path: Path) -> None:
    """P08 Templates see row, request, response, output and json, and keep JSON's types."""
    found = cells(
        tmp_path,
        '{"name": 7,\n"list": ["a"]}',
        first="{{ output.splitlines()[0] }}",
        name="{{ json.name }}",
        of_row="{{ row['text'] }}!",
        model="{{ request.model }} {{ response.model }}",
        list="{{ json.list | map('upper') }}",
    )
    assert found == {
        "first": '{"name": 7,',
        "name": 7,
        "of_row": "hi!",
        "model": "asked m",
        "list": ["A"],
    }


@pytest.mark.parametrize(
    "output",
    [
        '{"a": 1}',
        ' {"a": 1}\n',
        '```json\n{"a": 1}\n```',
        '```\r\n{"a": 1}```\n',
        '```JSON \n{"a":1}\n```',
        'Here: {"a": 1}',
    ],
)
def test_json_in_a_fence(tmp_path: Path, output: str) -> None:
    """P18 An answer that is JSON in a fence of Markdown or in a sentence is JSON all the same."""
    assert cells(tmp_path, output, a="{{ json.a }}") == {"a": 1}


@pytest.mark.parametrize(
    ("output", "template", "reason", "detail"),
    [
        ("two words", "{{ json.a }}", "the answer is no JSON", "line 1 column 1"),
        ('{"a": 1} or {"a": 2}', "{{ json.a }}", "the answer is no JSON", "line 1 column"),
        ('```json\n{"a": 1', "{{ json.a }}", "the answer is no JSON", ""),
        ("```", "{{ json.a }}", "the answer is no JSON", ""),
        ("```\n```", "{{ json }}", "the answer is no JSON", ""),
        ("[" * 100_000, "{{ json.a }}", "the answer is no JSON", "recursion"),
        ("9" * 5000, "{{ json }}", "the answer is no JSON", "digits"),
        ("", "{{ output.splitlines()[0] }}", "no such field or item", "the list has no 0"),
        ('{"b": 1}', "{{ json.a }}", "no such field or item", "the object has no 'a'"),
        ("null", "{{ json.a }}", "no such field or item", "null has no 'a'"),
        ('{"a": null}', "{{ json.a }}", "null", "the template gives null"),
        ('{"a": NaN}', "{{ json.a }}", "null", "the template gives null"),
        ("12 EUR", "{{ output | int }}", "the template fails", "'12 EUR' is not a number"),
        ("1e308", "{{ (output | float) * 10 }}", "a value that is no JSON", ""),
        ("1e308", "{{ [(output | float) * 10] }}", "a value that is no JSON", ""),
        ("x", "{{ output * 99999999 }}", "the template takes too much", "characters"),
    ],
)
def test_why_a_cell_is_empty(
    tmp_path: Path, output: str, template: str, reason: str, detail: str
) -> None:
    """P18 A cell that an answer leaves empty says why, in general words and in detail."""
    (cell,) = cells(tmp_path, output, a=template).values()
    assert isinstance(cell, Blank)
    assert cell.reason == reason
    assert detail in cell.detail


@pytest.mark.parametrize(
    "template",
    [
        "{{ json.a | default('') }}",
        "{{ (json or {}).get('a', '') }}",
        "{% if json %}{{ json.a }}{% endif %}",
    ],
)
def test_empty_on_purpose(tmp_path: Path, template: str) -> None:
    """An empty text that the template itself gives is a cell like any other."""
    assert cells(tmp_path, "no JSON", a=template) == {"a": ""}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text() | st.recursive(st.none() | st.floats(), st.lists, max_leaves=5).map(json.dumps))
def test_any_answer_gives_json_or_a_reason(tmp_path: Path, output: str) -> None:
    """P18 P28 Whatever the answer, a cell is JSON or says why it is empty."""
    for cell in cells(
        tmp_path, output, a="{{ json }}", b="{{ json[0] }}", c="{{ output }}"
    ).values():
        if not isinstance(cell, Blank):
            json.dumps(cell, allow_nan=False)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ output.spltlines()[0] }}",
            "no method is called 'spltlines'; did you mean 'splitlines'?",
        ),
        ("{{ json.a.upperr() }}", "no method is called 'upperr'; did you mean 'upper'?"),
        ("{{ output | upperr }}", "no filter is called 'upperr'; did you mean 'upper'?"),
        ("{% if json %}{{ json.a | truncat }}{% endif %}", "no filter is called 'truncat'"),
        ("{{ output is numbr }}", "no test is called 'numbr'"),
        ("{{ outptu }}", "'outptu' is not one of json, output, request, response, row; did you"),
        ("{{ text }}", 'response, row; a column is written row["text"]'),
        ("{{ row.txt }}", "'txt' is not a column (columns: text, tone); did you mean 'text'?"),
        (
            "{{ output.headline }}",
            "output is text and has no 'headline'; a field of JSON is written json.headline",
        ),
        ("{{ output['headline'] }}", "output is text and has no 'headline'"),
        ("{{ request.modle }}", "the request has no field 'modle' (fields: messages, model)"),
        ("{{ json.a", "template syntax, line 1"),
        ("{% include 'no.md' %}", "not a file below the job's folder"),
    ],
)
def test_what_can_never_work(tmp_path: Path, template: str, message: str) -> None:
    """P30 A template that no answer could ever fill is a problem of the job, at its place."""
    (found,) = problems(tmp_path, template, ["text"])
    assert found.startswith("output.columns.a: ")
    assert message in found


@pytest.mark.parametrize(
    "template",
    [
        "{{ row.text }} {{ row.tone }} {{ row.items() | list }}",
        "{{ request.messages[0].content }} {{ request.get('seed') }}",
        "{{ output.strip().partition(':')[2].title() }}",
        "{{ json['x y'].z | default(none) }}",
        "{% for output in json %}{{ output.name }}{% endfor %}",
        "{% for a in json %}{{ loop.cycle('x', 'y') }}{{ loop.changed(a) }}{% endfor %}",
        "{% set c = cycler('a', 'b') %}{{ c.next() }}",
        "{% block title %}{{ output }}{% endblock %} {{ self.title() }} {{ self.any_name() }}",
        "{% macro m(a) %}{{ caller() }}{% endmacro %}{% call m(1) %}{% endcall %}",
        "{% import 'macros.md' as macros %}{{ macros.anything(output) }}",
    ],
)
def test_what_may_work_is_let_through(tmp_path: Path, template: str) -> None:
    """P30 Nothing is refused that some answer could fill."""
    (tmp_path / "macros.md").write_text("{% macro anything(a) %}{{ a }}{% endmacro %}", "utf-8")
    assert problems(tmp_path, template, ["text"]) == []


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """P30 A template that cannot be read hides no problem of another one."""
    wrong = {"a": "{{ json.a", "b": "{% include 'no.md' %}", "c": "{{ outptu }}", "d": "{{ json }}"}
    found = [problem.message[:17] for problem in renderer(tmp_path, wrong).problems(["text"])]
    assert found == ["output.columns.a:", "output.columns.b:", "output.columns.c:"]


def test_names_are_known_without_the_prompts(tmp_path: Path) -> None:
    """P30 What does not depend on the prompts' header is found before they are read."""
    assert len(problems(tmp_path, "{{ outptu }} {{ row.anything }}")) == 1
