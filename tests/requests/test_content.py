"""What a request asks with: a row that holds nothing is refused, a number goes out as a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving

import batchgen
from batchgen.job import load_job
from batchgen.kinds import KINDS
from batchgen.requests import Renderer, RequestError
from batchgen.requests.content import missing_texts, numbers_as_texts
from batchgen.simulator import Simulator

NOTHING = "is nothing (null, missing or an empty list), and the API needs a text here"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "{{ text }}"}]}


def renderer(folder: Path, request: dict[str, Any], kind: str = "chat") -> Renderer:
    path = folder / "job.yaml"
    job = {"kind": kind, "prompts": {"path": "rows.jsonl"}, "request": request}
    path.write_text(json.dumps(job), encoding="utf-8")
    return Renderer(load_job(path, environ={}), "openai")


def talk(content: Any, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": None}, {"role": role, "content": content}]


@pytest.mark.parametrize(
    ("kind", "value", "places"),
    [
        *(("chat", talk(None, role), ["messages[1].content"]) for role in ("user", "system")),
        ("chat", talk([], "developer"), ["messages[1].content"]),
        ("chat", [{"role": "user"}], ["messages[0].content"]),
        ("chat", talk([{"type": "text", "text": None}]), ["messages[1].content[0].text"]),
        ("chat", talk([{"type": "text"}, {"type": "image_url"}]), ["messages[1].content[0].text"]),
        ("chat", [{"role": "tool"}, {"role": "assistant", "tool_calls": []}], []),
        ("chat", talk(""), []),
        ("chat", talk([{"type": "text", "text": ""}]), []),
        ("text", None, ["input"]),
        ("text", [], ["input"]),
        ("text", talk(None), ["input[1].content"]),
        ("text", talk([{"type": "input_text", "text": None}]), ["input[1].content[0].text"]),
        ("text", [{"type": "function_call_output", "output": "x"}], []),
        ("embedding", ["a", None], ["input[1]"]),
        ("embedding", [], ["input"]),
        ("embedding", [1, 2], []),
        ("moderation", [None], ["input[0]"]),
        ("completion", None, ["prompt"]),
        ("completion", ["a", None], ["prompt[1]"]),
        ("image", None, ["prompt"]),
        ("image_edit", [], ["prompt"]),
        ("image", "", []),
    ],
)
def test_what_holds_nothing(kind: str, value: Any, places: list[str]) -> None:
    """P30 Each place of each kind's body where the API needs a text is known, however deep; an
    empty text is left to the server.
    """
    of = KINDS[kind]
    found = [
        "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:]
        for path in missing_texts(of, {of.text_field: value})
    ]
    assert found == places


@pytest.mark.parametrize(
    ("kind", "value", "sent"),
    [
        ("chat", talk(5), talk("5")),
        ("chat", talk(0.5, "system"), talk("0.5", "system")),
        ("chat", talk(True), talk("true")),
        ("chat", talk([{"type": "text", "text": 5}]), talk([{"type": "text", "text": "5"}])),
        ("chat", [{"role": "tool", "content": 5}], None),
        ("chat", talk("5"), None),
        ("text", 5, "5"),
        ("text", talk(5), talk("5")),
        ("embedding", -1.5, "-1.5"),
        ("embedding", [1, 2], None),
        ("completion", [[1, 2]], None),
        ("moderation", False, "false"),
        ("image", 2026, "2026"),
        ("image_edit", 10**30, "1" + "0" * 30),
    ],
)
def test_a_number_goes_out_as_a_text(kind: str, value: Any, sent: Any) -> None:
    """P29 A number or a boolean that is the whole text is sent as the text that it becomes in a
    longer one; lists of tokens stay lists of numbers, and the row's own value is not touched.
    """
    field = KINDS[kind].text_field
    body = {"model": "m", field: value}
    before = json.dumps(body)
    found = numbers_as_texts(KINDS[kind], body)
    assert found == {"model": "m", field: value if sent is None else sent}
    assert (found is body) == (sent is None)
    assert json.dumps(body) == before


@pytest.mark.parametrize(
    ("value", "fingerprint"),
    [
        (5, "d18cf84b5813f909a9c202e11307e17a92565466665a4f9d9354c340a6beb120"),
        (True, "7400894a33050310311f6532f79fc7fe486f882d2ccfd4014c3a368dd624122d"),
        ("5", "74459e6cc8c5bd95120104194294c9e78110f6600a8295cdcca00bb64192da55"),
    ],
)
def test_the_fingerprint_is_that_of_the_row(tmp_path: Path, value: Any, fingerprint: str) -> None:
    """P08 What a number is sent as does not change its fingerprint: a server that took numbers has
    been paid for these answers.
    """
    request = renderer(tmp_path, CHAT).request({"text": value}, {})
    assert request.fingerprint.hex() == fingerprint
    assert isinstance(request.body["messages"][0]["content"], str)


def test_a_row_that_holds_nothing_is_refused_with_its_place(lab: Lab, api: Simulator) -> None:
    """P30 plan and run end with 2 before any call: file and line of the row, the place in the job,
    and what to do; with bad_rows: fail only that row fails, and the number is sent as a text.
    """
    rows = [{"id": "a", "q": "five"}, {"id": "b", "q": None}, {"id": "c", "q": 5}]
    (lab.folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    parts: dict[str, Any] = {
        "rows": None,
        "request": {"model": "m", "messages": [{"role": "user", "content": "{{ q }}"}]},
    }
    prompts = {"path": "p.jsonl", "id": "id", "empty": "send"}
    job = lab.job(api.url, prompts=prompts, **parts)
    for command in ("plan", "run"):
        done = lab.run(command, job)
        assert (done.returncode, api.requests.received) == (2, 0)
        assert f"p.jsonl:2: request.messages[0].content: {NOTHING}; give the row" in done.stderr
        assert "set prompts.bad_rows: fail" in done.stderr
        assert "/job.yaml:" in done.stderr
    with serving(record=True) as recorded:
        prompts |= {"bad_rows": "fail"}
        report = lab.go(lab.job(recorded.url, prompts=prompts, **parts))
        sent = [(each.body or {})["messages"][0]["content"] for each in recorded.log]
    assert (report.rows, sorted(sent)) == ({"succeeded": 2, "failed": 1}, ["5", "five"])
    (error,) = lab.table(which="errors")
    assert (error["id"], error["reason"]) == ("b", "input")


def test_what_no_row_can_mend_is_a_problem_of_the_job(tmp_path: Path) -> None:
    """P30 A message of the job itself without content is told once, at its place."""
    request = {"model": "m", "messages": [{"role": "system"}, {"role": "user", "content": "x"}]}
    (problem,) = renderer(tmp_path, request).problems(["text"])
    assert problem.message == f"request.messages[0].content: {NOTHING}; give it one"
    assert problem.line == 1


def test_a_request_of_a_file_is_refused_but_never_changed(tmp_path: Path) -> None:
    """P28 A line that is itself a request is refused when it holds nothing, and its numbers stay:
    it is sent as it is.
    """
    path = tmp_path / "job.yaml"
    path.write_text("prompts: {path: '-', format: openai-batch}\n", encoding="utf-8")
    of = Renderer(load_job(path, environ={}), "p")
    row = {"url": "/v1/chat/completions", "body": {"model": "m", "messages": talk(5)}}
    assert of.request(row, {}).body["messages"] == talk(5)
    with pytest.raises(RequestError, match=r"body\.messages\[1\]\.content: is nothing"):
        of.request({**row, "body": {"model": "m", "messages": talk(None)}}, {})


def test_a_number_in_a_later_turn(lab: Lab) -> None:
    """P29 A conversation keeps the texts that were sent in its history."""
    (lab.folder / "p.jsonl").write_text('{"id": "a", "turns": [1, 2]}\n', encoding="utf-8")
    with serving(record=True) as api:
        job = lab.job(
            api.url,
            rows=None,
            prompts={"path": "p.jsonl", "id": "id"},
            conversation={"turns": "turns"},
            request={"model": "m", "messages": [{"role": "user", "content": "{{ turn }}"}]},
        )
        assert batchgen.run(lab.load(job)).exit_code == 0
        last = (api.log[-1].body or {})["messages"]
    assert [each["content"] for each in last if each["role"] == "user"] == ["1", "2"]
