"""Answers that must be JSON, from the reply to the table: judged, corrected, and judged again."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from answering import answering, chat, rows
from hostile import Hostile
from lab import Lab, serving

from batchgen import InputError, Options, load_job, plan, run
from batchgen.maintenance import redo
from batchgen.queries import show
from batchgen.simulator import Settings

PRICE = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}
FORM = {"type": "json_schema", "json_schema": {"name": "price", "schema": PRICE}}
WRONG, RIGHT = '{"price": "x"}', '{"price": 1}'
MISFIT = '/price: "x" is not of type "number"'
COST = {"gpt-5.6-luna": {"input": 1, "output": 1}}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def scripted(body: dict[str, Any]) -> dict[str, Any]:
    """`wrong 2` is answered wrong twice, and then right; any other text is its own answer."""
    turns = body.get("messages") or body["input"]
    turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else turns
    asked = [turn["content"] for turn in turns if turn["role"] == "user"]
    text = next(each for each in reversed(asked) if "does not fit" not in each)
    if text.startswith("wrong"):
        wrong = SENT.setdefault(text, int(text.split()[1]))
        SENT[text] = wrong - 1
        text = WRONG if wrong > 0 else RIGHT
    if "messages" in body:
        return chat(text)
    part = {"type": "output_text", "text": text}
    message = {"type": "message", "role": "assistant", "content": [part]}
    usage = {"input_tokens": 10, "output_tokens": 5}
    return {"id": "r", "status": "completed", "model": "m", "output": [message], "usage": usage}


SENT: dict[str, int] = {}


@pytest.fixture(autouse=True)
def _begin() -> None:
    SENT.clear()


def bodies(api: Hostile) -> list[dict[str, Any]]:
    return [json.loads(each.partition(b"\r\n\r\n")[2]) for each in api.requests]


def line(lab: Lab, row: str) -> dict[str, str]:
    return next(each for each in lab.table() if each["id"] == row)


@pytest.mark.parametrize("output", [{"schema": PRICE}, {"json": True}, {}])
def test_what_comes_is_judged(lab: Lab, output: dict[str, Any]) -> None:
    """P47 By the schema of the job, by that of the request, or as JSON alone; the rest is told."""
    texts = {
        "right": RIGHT,
        "fence": f"```json\n{RIGHT}\n```",
        "sentence": f"Here it is: {RIGHT} Enjoy!",
        "wrong": WRONG,
        "words": "no JSON",
        "blank": " \n",
        "cut": '{"price": ',
    }

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        name = body["messages"][-1]["content"]
        return chat(texts[name], "length" if name == "cut" else "stop")

    rows(lab, *texts)
    request: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "{{ text }}"}],
    }
    request |= {} if output else {"response_format": FORM}
    with answering(reply) as api:
        report = lab.go(lab.job(api.url, rows=None, output=output, request=request))
    table = {each["id"]: each for each in lab.table()}
    shown = {row: (each["output"], each["unwrapped"]) for row, each in table.items()}
    assert shown["right"] == (RIGHT, "")
    assert shown["fence"] == (RIGHT, "fence")
    assert shown["sentence"] == (RIGHT, "text")
    assert shown["words"] == ("no JSON", "")
    reasons = {row: each["finish_reason"] for row, each in table.items()}
    wrong = "stop" if output == {"json": True} else "schema"
    assert reasons["wrong"] == wrong
    assert (reasons["words"], reasons["blank"], reasons["cut"]) == ("schema", "empty", "length")
    assert table["words"]["error"] == "incomplete: schema: the answer is not one JSON value"
    errors = {each["id"]: each["message"] for each in lab.table(which="errors")}
    assert wrong == "stop" or errors["wrong"] == MISFIT
    assert "text around the JSON taken off 2 answers" in report.line()
    assert (report.exit_code, report.run.calls) == (3, len(texts))


def test_calls_and_refusals_are_not_judged(lab: Lab) -> None:
    """P47 A call of a tool and a refusal are answers of their own kind."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = {
        "call": {"role": "assistant", "content": None, "tool_calls": [call]},
        "refusal": {"role": "assistant", "content": None, "refusal": "No."},
    }

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        answer = chat()
        answer["choices"][0]["message"] = messages[body["messages"][-1]["content"]]
        return answer

    rows(lab, *messages)
    with answering(reply) as api:
        lab.go(lab.job(api.url, rows=None, output={"schema": PRICE}, retry={"validation": 2}))
    assert {each["id"]: each["finish_reason"] for each in lab.table()} == {
        "call": "stop",
        "refusal": "refusal",
    }
    assert len(api.requests) == 2


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_wrong_twice_and_then_right(lab: Lab, kind: str) -> None:
    """P46 P47 Each correction holds the answer before it and its fault, is a call on record, and
    costs what it costs; one row alone is answered in the end.
    """
    rows(lab, "wrong 2", "wrong 3", RIGHT)
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "{{ text }}"}]}
    request = {"model": "gpt-5.6-luna", **(asked if kind == "chat" else {"input": "{{ text }}"})}
    options: dict[str, Any] = {
        "kind": kind,
        "request": request,
        "pricing": COST,
        "limits": {"max_failures": 1},
    }
    with answering(scripted) as api:
        job = lab.job(
            api.url, rows=None, output={"schema": PRICE}, retry={"validation": 2}, **options
        )
        report = lab.go(job)
        assert (report.rows, report.run.calls) == ({"succeeded": 2, "incomplete": 1}, 7)
        assert (report.exit_code, round(report.run.cost or 0, 9)) == (0, 7 * 15e-6)
        assert (lab.go(job).run.calls, len(api.requests)) == (0, 7)
    field = "messages" if kind == "chat" else "input"
    last = [body for body in bodies(api) if "wrong 2" in json.dumps(body)][-1]
    assert last[field][0] == {"role": "user", "content": "wrong 2"}
    assert last[field][1] == {"role": "assistant", "content": WRONG}
    assert MISFIT in last[field][2]["content"]
    assert len(last[field]) == 3
    assert (line(lab, "wrong 2")["output"], line(lab, "wrong 2")["attempts"]) == (RIGHT, "3")
    (shown,) = show(lab.load(job), "wrong 3")
    assert [each["reason"] for each in shown["attempts"]] == ["schema"] * 3
    assert [each["number"] for each in shown["attempts"]] == [1, 2, 3]


def test_killed_between_corrections(lab: Lab) -> None:
    """P01 P47 A killed run goes on with the correction that was in flight; no answer is paid for
    twice, and no more corrections are sent than the job allows.
    """
    arrived, released = threading.Event(), threading.Event()

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        if len(body["messages"]) > 1 and not arrived.is_set():
            arrived.set()
            released.wait(60)
            return chat(WRONG)
        return scripted(body)

    rows(lab, "wrong 9")
    with answering(reply) as api:
        job = lab.job(api.url, rows=None, output={"schema": PRICE}, retry={"validation": 2})
        process = lab.start("run", job)
        assert arrived.wait(60)
        process.kill()
        process.communicate()
        released.set()
        assert "1 outdated" in lab.run("status", job).stdout
        report = lab.go(job)
    assert (report.rows, report.run.calls) == ({"incomplete": 1}, 2)
    assert [len(body["messages"]) for body in bodies(api)] == [1, 3, 3, 3]


def test_a_cap_between_corrections(lab: Lab) -> None:
    """P25 P47 A cap stops before the correction that may pass it; raised, the run goes on there."""
    rows(lab, "wrong 2")
    with answering(scripted) as api:
        parts: dict[str, Any] = {
            "rows": None,
            "output": {"schema": PRICE},
            "retry": {"validation": 2},
            "pricing": COST,
        }
        # The first call may cost 0.000221, the correction 0.00044.
        first = lab.go(lab.job(api.url, limits={"max_cost": 0.0004}, **parts))
        assert (first.exit_code, first.rows, first.run.calls) == (5, {"outdated": 1}, 1)
        second = lab.go(lab.job(api.url, limits={"max_cost": 0.01}, **parts))
    assert (second.exit_code, second.rows, second.run.calls) == (0, {"succeeded": 1}, 2)
    assert [len(body["messages"]) for body in bodies(api)] == [1, 3, 3]


def test_corrections_in_batches(lab: Lab) -> None:
    """P12 P47 In mode batch the correction goes out with the next batch."""
    request = {
        "model": "gpt-5.6-luna",
        "messages": [{"role": "user", "content": "{{ text }}"}],
        "response_format": FORM,
    }
    rows(lab, f"ECHO:{WRONG}", f"ECHO:{RIGHT}")
    with serving(Settings(batch_speed=0)) as api:
        job = lab.job(api.url, rows=None, mode="batch", request=request, retry={"validation": 1})
        reports = [lab.go(job) for _ in range(3)]
        assert [(each.exit_code, each.run.calls, each.in_batches) for each in reports] == [
            (6, 0, 2),
            (6, 2, 1),
            (0, 1, 0),
        ]
    assert reports[-1].rows == {"succeeded": 2}


def test_corrections_of_a_conversation(lab: Lab) -> None:
    """P13 P47 The turn after a correction knows the corrected answer alone, and one that never
    fits blocks the turns after it.
    """
    (lab.folder / "prompts.csv").write_text(
        f"id,thread,text\na1,a,wrong 1\na2,a,'{RIGHT}'\nb1,b,wrong 7\nb2,b,never\n".replace(
            "'", '"'
        ).replace(f'"{RIGHT}"', '"{""price"": 1}"'),
        encoding="utf-8",
    )
    with answering(scripted) as api:
        job = lab.job(
            api.url,
            rows=None,
            output={"schema": PRICE},
            retry={"validation": 1},
            conversation={"id": "thread"},
        )
        report = lab.go(job)
    assert report.rows == {"succeeded": 2, "incomplete": 1, "blocked": 1}
    (last,) = [body for body in bodies(api) if body["messages"][-1]["content"] == RIGHT]
    assert [turn["content"] for turn in last["messages"]] == ["wrong 1", RIGHT, RIGHT]


def test_redo_asks_as_at_first(lab: Lab) -> None:
    """P07 `redo` sends the request as it is, and its corrections are counted anew."""
    rows(lab, "wrong 3")
    with answering(scripted) as api:
        job = lab.job(api.url, rows=None, output={"schema": PRICE}, retry={"validation": 1})
        assert lab.go(job).rows == {"incomplete": 1}
        assert redo(lab.load(job), statuses=["incomplete"]) == 1
        assert lab.go(job).rows == {"succeeded": 1}
    assert [len(body["messages"]) for body in bodies(api)] == [1, 3, 1, 3]


def test_a_schema_is_added_later(lab: Lab) -> None:
    """P08 P47 Recorded answers are judged again without a call, told, and no call follows; without
    the schema they are again what they were.
    """
    rows(lab, WRONG, RIGHT, "words")
    with answering(scripted) as api:
        plain = lab.job(api.url, rows=None)
        assert lab.go(plain).rows == {"succeeded": 3}
    messages: list[str] = []
    strict = lab.job(api.url, rows=None, output={"schema": PRICE}, retry={"validation": 3})
    report = run(lab.load(strict), Options(say=messages.append))
    assert (report.rows, report.run.calls) == ({"succeeded": 1, "incomplete": 2}, 0)
    assert "2 do not fit it any more, 0 fit it now" in messages[0]
    assert line(lab, WRONG)["error"] == f"incomplete: schema: {MISFIT}"
    messages.clear()
    assert run(lab.load(strict), Options(say=messages.append)).exit_code == 3
    assert messages == []
    assert lab.go(lab.job(api.url, rows=None, output={"json": True})).rows == {
        "succeeded": 2,
        "incomplete": 1,
    }
    report = lab.go(lab.job(api.url, rows=None))
    assert (report.rows, report.exit_code) == ({"succeeded": 3}, 0)
    assert len(api.requests) == 3


def test_a_correction_that_is_not_wanted_any_more(lab: Lab) -> None:
    """P47 A correction that was due is not sent once the job asks for none."""
    rows(lab, "wrong 2")
    with answering(scripted) as api:
        parts: dict[str, Any] = {"rows": None, "output": {"schema": PRICE}, "pricing": COST}
        retry, limits = {"validation": 2}, {"max_cost": 0.0004}
        assert lab.go(lab.job(api.url, retry=retry, limits=limits, **parts)).exit_code == 5
        assert lab.go(lab.job(api.url, **parts)).rows == {"incomplete": 1}
    assert len(api.requests) == 1


def test_accepted_all_the_same(lab: Lab) -> None:
    """P47 `output.accept: [schema]` takes answers that do not fit."""
    rows(lab, "words")
    with answering(scripted) as api:
        report = lab.go(lab.job(api.url, rows=None, output={"json": True, "accept": ["schema"]}))
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"output": {"schema": {"type": "strng"}}}, "output.schema: it is not a valid JSON"),
        ({"output": {"schema": {"$ref": "http://127.0.0.1:1/a"}}}, "output.schema: it is not"),
        ({"output": {"schema": "none.json"}}, "output.schema: none.json: No such file"),
        ({"output": {"schema": "torn.json"}}, "torn.json:3:1: not JSON: "),
        ({"output": {"schema": 5}}, "output.schema: must be the name of a file or"),
        ({"kind": "embedding", "output": {"json": True}}, "output: json and schema need one of"),
        ({"kind": "embedding", "retry": {"validation": 1}}, "retry: validation needs one of"),
        (
            {
                "request": {"model": "m", "messages": [{"role": "user", "content": "{{ text }}"}]}
                | {"response_format": {**FORM, "json_schema": {"schema": {"type": "strng"}}}}
            },
            "request.response_format: its JSON Schema is not valid: /type: ",
        ),
    ],
)
def test_a_schema_that_is_not_valid(lab: Lab, parts: dict[str, Any], message: str) -> None:
    """P30 P47 A schema that cannot be used is a problem of the job with its line, and nothing is
    sent.
    """
    (lab.folder / "torn.json").write_text('{\n "type"\n}', encoding="utf-8")
    with answering(scripted) as api:
        path = lab.job(api.url, **parts)
        for command in (run, plan):
            with pytest.raises(InputError) as caught:
                command(load_job(path, environ=lab.environ()))
            (problem,) = caught.value.problems
            assert message in str(problem)
            assert problem.line
    assert not api.requests


def test_requests_bring_their_own_schemas(lab: Lab) -> None:
    """P47 Rows that are requests are judged by their own schemas, and refused with the line of one
    that is not valid.
    """

    def row(name: str, content: str, schema: Any) -> str:
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        messages = [{"role": "user", "content": content}]
        body = {"model": "m", "messages": messages, "response_format": form}
        line = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line) + "\n"

    source, target = lab.folder / "in.jsonl", lab.folder / "out.jsonl"
    source.write_text(row("a", WRONG, PRICE) + row("b", WRONG, {}), encoding="utf-8")
    with answering(scripted) as api:
        command = ("run-batch", "-i", source, "-o", target, "--base-url", api.url)
        done = lab.run(*command)
        assert done.returncode == 3
        assert "1 succeeded, 1 incomplete" in done.stdout
        source.write_text(row("a", WRONG, {"type": "strng"}), encoding="utf-8")
        refused = lab.run(*command)
        assert refused.returncode == 2
        assert "in.jsonl:1: body.response_format: its JSON Schema is not valid" in refused.stderr
    assert len(api.requests) == 2
