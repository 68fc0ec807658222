"""Files as the Batch API takes and gives them: requests as rows, and results as tables."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import KEY, Lab, serving
from openai.types import (
    Completion,
    CreateEmbeddingResponse,
    ImagesResponse,
    ModerationCreateResponse,
)
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

import batchgen
from batchgen import InputError, Options, load_job, maintenance, plan, queries
from batchgen.batch_format import parse_result, request_line
from batchgen.dispatch.batches import client, collect
from batchgen.kinds import KIND_BY_ENDPOINT
from batchgen.prompts import open_prompts
from batchgen.requests import Renderer
from batchgen.simulator import RequestInfo, Settings, Simulator
from batchgen.workspace import Workspace

PICTURES = Path(__file__).parent.parent.parent / "jobs" / "pictures"
MUG = f"data:image/png;base64,{base64.b64encode((PICTURES / 'mug.png').read_bytes()).decode()}"
CHAT = "/chat/completions"

# A request for each endpoint, and the SDK's type of its reply.
BODIES: dict[str, tuple[dict[str, Any], Any]] = {
    "/responses": ({"model": "gpt-5.6-luna", "input": "Say hello"}, Response),
    "/completions": ({"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello"}, Completion),
    CHAT: (
        {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "ECHO:{{ hello }}"}]},
        ChatCompletion,
    ),
    "/images/generations": (
        {"model": "gpt-image-2", "prompt": "a mug", "size": "64x64"},
        ImagesResponse,
    ),
    "/images/edits": (
        {
            "model": "gpt-image-2",
            "prompt": "a hat",
            "size": "64x64",
            "images": [{"image_url": MUG}],
        },
        ImagesResponse,
    ),
    "/embeddings": (
        {"model": "text-embedding-3-small", "input": ["a", "b"]},
        CreateEmbeddingResponse,
    ),
    "/moderations": ({"model": "omni-moderation-latest", "input": "a"}, ModerationCreateResponse),
}


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": text}], **more}


def write(
    lab: Lab, lines: list[tuple[str, str, dict[str, Any]]], name: str = "requests.jsonl"
) -> Path:
    """A file of requests: id, endpoint and body of each."""
    path = lab.folder / name
    path.write_bytes(b"".join(request_line(*line) for line in lines))
    return path


def job(lab: Lab, url: str, name: str = "job", **parts: Any) -> Path:
    """A job over requests.jsonl, with every kind of table that tests read."""
    whole = {
        "prompts": {"path": "requests.jsonl", "format": "openai-batch"},
        "provider": {"base_url": url},
        "output": {"tables": ["csv", "jsonl", "openai-batch"]},
    }
    path = lab.folder / f"{name}.yaml"
    path.write_text(json.dumps({**whole, **parts}), encoding="utf-8")
    return path


def results_of(lab: Lab, which: str = "results", name: str = "job") -> dict[str, Any]:
    """The lines of a file of results, by custom_id; each once."""
    raw = (lab.output(name) / f"{which}.batch.jsonl").read_bytes().splitlines()
    results = {parse_result(line).custom_id: json.loads(line) for line in raw}
    assert len(results) == len(raw)
    assert len({line["id"] for line in results.values()}) == len(raw)
    return results


def rows(lab: Lab, name: str = "job") -> list[dict[str, Any]]:
    text = (lab.output(name) / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


# --- requests as rows -----------------------------------------------------------------------------


def test_every_endpoint_in_one_file(lab: Lab) -> None:
    """One file may hold requests of every kind. Each is sent unchanged, without running a template
    on it, and each reply is read by its own kind. The SDK can read the results.
    """
    with serving(record=True) as api:
        write(lab, [(endpoint, endpoint, body) for endpoint, (body, _) in BODIES.items()])
        report = lab.go(job(lab, api.url))
        assert (report.exit_code, report.rows) == (0, {"succeeded": len(KIND_BY_ENDPOINT)})
        sent: dict[str, Any] = {each.path.removeprefix("/v1"): each.body for each in api.log}
    for endpoint, (body, kind) in BODIES.items():
        asked = {name: sent[endpoint][name] for name in body if name not in ("images",)}
        assert asked == {name: value for name, value in body.items() if name not in ("images",)}
        assert {
            name: sent[endpoint][name] for name in KIND_BY_ENDPOINT[endpoint].defaults
        } == KIND_BY_ENDPOINT[endpoint].defaults
        response = results_of(lab)[endpoint]["response"]
        assert response["status_code"] == 200
        parsed = kind.model_validate_json(json.dumps(response["body"]), strict=True)
        assert parsed.model_dump(mode="json", exclude_unset=True, by_alias=True) == response["body"]
    table = {row["custom_id"]: row for row in rows(lab)}
    assert table[CHAT]["output"] == "{{ hello }}"
    assert table[CHAT]["body"] == BODIES[CHAT][0]
    assert table["/images/edits"]["output"].startswith("images/")
    assert list(table[CHAT])[:6] == ["custom_id", "method", "url", "body", "choice", "status"]
    assert (lab.output() / "errors.batch.jsonl").read_bytes() == b""


_NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | _NUMBERS
    | _TEXTS
    | st.sampled_from(["{{ x }}", "{% include 'x' %}", "{# #}", "\u2028\x85\r"]),
    lambda inner: st.lists(inner) | st.dictionaries(_TEXTS, inner),
    max_leaves=8,
)


KEPT = ("model", "messages", "n", "best_of", "stream", "background")


def _renderer(folder: Path) -> Renderer:
    path = folder / "any.yaml"
    path.write_text("prompts: {path: '-', format: openai-batch}\n", encoding="utf-8")
    return Renderer(load_job(path, environ={}), "p")


@given(
    more=st.dictionaries(_TEXTS.filter(lambda name: name not in KEPT), _JSON),
    name=_TEXTS.filter(bool),
)
def test_any_body_goes_out_unchanged(
    tmp_path_factory: pytest.TempPathFactory, more: dict[str, Any], name: str
) -> None:
    """P28 A body is sent as it is, with its types. It is data: no template is run on it."""
    body = {**more, **chat("x")}
    renderer = _renderer(tmp_path_factory.getbasetemp())
    [prompt] = open_prompts(
        None,
        stream=io.BytesIO(request_line(name, CHAT, body)),
        display_name="p",
        format="openai-batch",
    )
    request = renderer.request(prompt.columns, {}, row_id=name)
    assert prompt.columns["custom_id"] == name
    assert repr(request.body) == repr(body)
    assert (request.endpoint, request.uploads) == (CHAT, ())


# Fields that are checked.


def test_texts_come_back(lab: Lab) -> None:
    """P28 Any text goes through the whole run, over the wire and back, unchanged."""
    texts = [
        "{{ 7 * 7 }}",
        "a\u2028b\x85c",
        "\r\n",
        "👩‍👩‍👧‍👦 é e\u0301",
        "=1+1",
        "\x00",
        "x" * 300_000,
    ]
    with serving() as api:
        write(lab, [(f"n {n}", CHAT, chat(f"ECHO:{text}")) for n, text in enumerate(texts)])
        # The answer of white space alone is incomplete, and comes back all the same.
        assert lab.go(job(lab, api.url)).exit_code == 3
    results = results_of(lab)
    for n, text in enumerate(texts):
        assert results[f"n {n}"]["response"]["body"]["choices"][0]["message"]["content"] == text


def test_a_csv_job_and_its_requests_are_the_same(lab: Lab, api: Simulator) -> None:
    """P08 The same request has the same fingerprint in whatever kind of file it comes: a CSV job
    that becomes a file of requests sends nothing.
    """
    csv_job = lab.job(api.url, rows=3)
    assert lab.go(csv_job).run.calls == 3
    bodies = [
        (f"r{n}", CHAT, chat(f"ECHO:answer {n}", max_completion_tokens=100)) for n in range(1, 4)
    ]
    write(lab, bodies)
    report = lab.go(job(lab, api.url))
    assert (report.rows, report.run.calls) == ({"succeeded": 3}, 0)
    assert [
        line["response"]["body"]["choices"][0]["message"]["content"]
        for line in results_of(lab).values()
    ] == [f"answer {n}" for n in range(1, 4)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "p:2:1: a value is missing, or is not JSON"),
        ("[1]", "p:2: expected a JSON object"),
        ("{}", "p:2: custom_id: must be a text that is not empty; it names the request"),
        ('{ "custom_id" : 7}', "p:2:17: custom_id: must be a text"),
        ('{"custom_id": ""}', "p:2:15: custom_id: must be a text"),
        ('{"custom_id": "a", "method": "GET"}', 'p:2:30: method: must be "POST"'),
        (
            '{"custom_id": "a", "method": "POST"}',
            "p:2: url: must be one of /v1/responses, /v1/completions, ",
        ),
        (
            '{"body": {"url": "/v1/responses"}, "custom_id": "a", '
            '"method": "POST", "url": "/chat/completions"}',
            "p:2:79: url: must be one of ",
        ),
        (
            '{"custom_id": "a", "method": "POST", "url": "/chat/completions"}',
            "; did you mean '/v1/chat/completions'?",
        ),
        (
            '{"custom_id": "a", "method": "POST", "url": ["/v1/responses"]}',
            "p:2:45: url: must be one of",
        ),
        (
            '{"custom_id": "a", "method": "POST", "url": "/v1/responses"}',
            "p:2: body: must be an object",
        ),
        (
            '{"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": []}',
            "p:2:70: body: must be an object",
        ),
        (
            '{"custom_id": "a", "custom_id": "b"}',
            "p:2: the name 'custom_id' stands twice in one object",
        ),
        (
            '{"custom_id": "a", "body": {"x": 1, "x": 2}}',
            "p:2: the name 'x' stands twice in one object",
        ),
        ('{"custom_id": "a", "body": {"x": 1e999}}', "p:2: the number 1e999 is too large"),
        ('{"custom_id": "a", "body": {"x": NaN}}', "p:2: NaN is not JSON"),
        ('{"custom_id": "\\ud800"}', "is half a character"),
        ('{"custom_id": "a", "body": ' + "[" * 100_000, "p:2: the JSON is nested too deeply"),
    ],
)
def test_lines_that_are_no_requests(line: str, message: str) -> None:
    """P30 A line that is not a request is reported with its line number and, where known, its
    column.
    """
    good = request_line("good", CHAT, chat("x")).decode()
    data = f"{good}{line}\n".encode()
    with pytest.raises(InputError) as caught:
        list(open_prompts(None, stream=io.BytesIO(data), display_name="p", format="openai-batch"))
    [problem] = caught.value.problems
    assert message in str(problem)


_LINES = st.dictionaries(st.sampled_from(["custom_id", "method", "url", "body", "é", ""]), _JSON)


@given(_LINES, st.sampled_from(["", " ", "\t "]))
def test_any_object_is_a_request_or_told(line: dict[str, Any], space: str) -> None:
    """P30 Any object on a line is a request, or the message names the field that is wrong and its
    column.
    """
    text = space + json.dumps(line, separators=(f"{space},{space}", f"{space}:{space}"))
    [prompt] = open_prompts(
        None,
        stream=io.BytesIO(text.encode()),
        display_name="p",
        format="openai-batch",
        bad_rows="fail",
    )
    assert list(prompt.columns)[:4] == ["custom_id", "method", "url", "body"]
    assert prompt.error is not None
    column, _, rest = prompt.error.rpartition("column ")[2].partition(": ")
    field = (rest if column.isdigit() else prompt.error).partition(":")[0]
    assert column.isdigit() == (field in line)
    if field in line:
        assert text[int(column) - 1 :].startswith(
            json.dumps(line[field], separators=(f"{space},{space}", f"{space}:{space}"))
        )


def test_a_job_that_became_one_of_requests(lab: Lab, api: Simulator) -> None:
    """P08 A job whose prompts became requests (or the reverse) shows its old rows until it runs
    again.
    """
    output = {"tables": ["jsonl", "openai-batch"]}
    path = lab.job(api.url, rows=1, output=output)
    lab.go(path)
    write(lab, [("a", CHAT, chat("ECHO:x"))])
    path = job(lab, api.url, output={**output, "columns": {"asked": "{{ request | tojson }}"}})
    maintenance.export(lab.load(path))
    assert (rows(lab)[0]["output"], rows(lab)[0]["asked"]) == ("answer 1", "{}")
    assert list(results_of(lab)) == ["r1"]
    shown = queries.show(lab.load(path), "r1")[0]
    assert "was staged before the job's rows were requests; run again" in shown["request"]["error"]
    lab.go(path)
    assert list(results_of(lab)) == ["a"]
    maintenance.export(lab.load(lab.job(api.url, output=output)))
    assert list(results_of(lab)) == ["a"]


@pytest.mark.parametrize(
    ("endpoint", "body", "message"),
    [
        (CHAT, {}, "body.model: is missing; /v1/chat/completions needs it"),
        (CHAT, {"model": "m"}, "body.messages: is missing"),
        (
            CHAT,
            {"model": " ", "messages": [{"role": "user"}]},
            "body.model: must be the name of a model",
        ),
        (
            CHAT,
            {"model": "m", "messages": []},
            "body.messages: must be a list of messages, each with a role",
        ),
        (CHAT, chat("x", n=0), "body.n: must be a whole number above 0"),
        (
            CHAT,
            chat("x", stream=True),
            "body.stream: batchgen records whole answers and cannot stream; remove it",
        ),
        (
            "/responses",
            {"model": "m", "input": "x", "background": True},
            "body.background: batchgen waits",
        ),
        (
            "/completions",
            {"model": "m", "prompt": "x", "best_of": 1.5},
            "body.best_of: must be a whole number",
        ),
        ("/embeddings", {"model": "m"}, "body.input: is missing"),
        ("/moderations", {}, "body.input: is missing"),
        ("/images/generations", {"model": "m"}, "body.prompt: is missing"),
        ("/images/edits", {"model": "m", "prompt": "x"}, "body.images: is missing"),
        (
            "/images/edits",
            {"model": "m", "prompt": "x", "image": "/etc/passwd"},
            "body.image: is a file of a form",
        ),
    ],
)
def test_bodies_that_cannot_be_sent(
    lab: Lab, endpoint: str, body: dict[str, Any], message: str
) -> None:
    """P30 A request that no server could take, or that batchgen cannot send, is reported with its
    line before anything is sent; the job file is not blamed.
    """
    write(lab, [("good", CHAT, chat("x")), ("bad", endpoint, body)])
    path = job(lab, "http://127.0.0.1:9/v1")
    with pytest.raises(InputError) as caught:
        plan(lab.load(path))
    [problem] = caught.value.problems
    assert str(problem).startswith(f"requests.jsonl:2: {message}")
    assert "job.yaml" not in str(problem)


def test_a_body_that_says_it_does_not_stream(lab: Lab, api: Simulator) -> None:
    """What is off in a body asks for nothing that batchgen cannot do; it goes out as it stands."""
    write(lab, [("a", CHAT, chat("ECHO:x", stream=False))])
    assert lab.go(job(lab, api.url)).exit_code == 0


def test_broken_lines_may_fail(lab: Lab, api: Simulator) -> None:
    """P30 With bad_rows: fail a broken line is a failed row, which the error file has too, and the
    rest runs; a line whose custom_id cannot be read is named by its number.
    """
    good = request_line("good", CHAT, chat("ECHO:x"))
    late = request_line("late", CHAT, chat("x", stream=True))
    (lab.folder / "requests.jsonl").write_bytes(
        b"{nonsense\n" + good + late + b'{"custom_id": 7}\n'
    )
    prompts = {"path": "requests.jsonl", "format": "openai-batch", "bad_rows": "fail"}
    report = lab.go(job(lab, api.url, prompts=prompts))
    assert (report.exit_code, report.rows) == (3, {"succeeded": 1, "failed": 3})
    assert [row["status"] for row in rows(lab)] == ["failed", "succeeded", "failed", "failed"]
    errors = results_of(lab, "errors")
    assert list(errors) == ["(line 1)", "late", "(line 4)"]
    assert errors["late"]["response"] is None
    assert errors["late"]["error"]["code"] == "input"
    assert "cannot stream" in errors["late"]["error"]["message"]


def test_every_line_broken(lab: Lab) -> None:
    """P30 A file without a single valid request is refused line by line; with bad_rows: fail its
    lines are failed rows.
    """
    (lab.folder / "requests.jsonl").write_bytes(b"a\nb\n")
    with pytest.raises(InputError) as caught:
        plan(lab.load(job(lab, "http://127.0.0.1:9/v1")))
    assert [(problem.line, problem.also) for problem in caught.value.problems] == [(1, (2,))]
    prompts = {"path": "requests.jsonl", "format": "openai-batch", "bad_rows": "fail"}
    assert lab.go(job(lab, "http://127.0.0.1:9/v1", prompts=prompts)).rows == {"failed": 2}


def test_ids_twice_are_refused(lab: Lab) -> None:
    """P09 Two requests of one custom_id are refused, with both lines."""
    write(lab, [("a", CHAT, chat("x")), ("a", CHAT, chat("y"))])
    with pytest.raises(
        InputError, match=r"requests\.jsonl:2: custom_id 'a' is the id of line 1 already"
    ):
        plan(lab.load(job(lab, "http://127.0.0.1:9/v1")))


def test_a_file_is_taken_for_requests_only_when_the_job_says_so(lab: Lab, api: Simulator) -> None:
    """A .jsonl of requests is rows like any others until prompts.format says what they are."""
    write(lab, [("a", CHAT, chat("ECHO:x"))])
    request = {"model": "gpt-5.6-luna", "messages": "{{ body.messages }}"}
    path = lab.job(
        api.url, rows=None, prompts={"path": "requests.jsonl", "id": "custom_id"}, request=request
    )
    assert lab.go(path).rows == {"succeeded": 1}


def test_what_a_line_has_beside_its_request(lab: Lab, api: Simulator) -> None:
    """P28 Other fields of a line become columns of the table and are not sent; a field with one of
    batchgen's own names is refused before anything is sent.
    """
    line = json.loads(request_line("a", CHAT, chat("ECHO:x")))
    path = lab.folder / "requests.jsonl"
    path.write_text(json.dumps({"note": [1], **line}), encoding="utf-8")
    assert lab.go(job(lab, api.url)).exit_code == 0
    assert rows(lab)[0]["note"] == [1]
    path.write_text(json.dumps({"status": 1, **line}), encoding="utf-8")
    with pytest.raises(
        InputError, match="the prompts' column 'status' is also a column of the table"
    ):
        lab.go(job(lab, api.url))


def test_a_wrong_model_is_its_rows_fault(lab: Lab, api: Simulator) -> None:
    """P18 Each request chooses its model: one that does not exist fails its row, not the job."""
    write(lab, [("bad", CHAT, chat("x", model="missing-model")), ("good", CHAT, chat("ECHO:x"))])
    report = lab.go(job(lab, api.url))
    assert (report.exit_code, report.rows) == (3, {"succeeded": 1, "failed": 1})


def test_some_requests_have_several_choices(lab: Lab, api: Simulator) -> None:
    """A request with n above 1 has a table line for each choice, and one line in the file of
    results.
    """
    write(lab, [("two", CHAT, chat("x", n=2)), ("one", CHAT, chat("x"))])
    lab.go(job(lab, api.url))
    assert [(row["custom_id"], row["choice"]) for row in rows(lab)] == [
        ("two", 1),
        ("two", 2),
        ("one", None),
    ]
    assert {
        name: len(line["response"]["body"]["choices"]) for name, line in results_of(lab).items()
    } == {
        "two": 2,
        "one": 1,
    }


def test_requests_from_stdin_and_again(lab: Lab, api: Simulator) -> None:
    """Requests may be piped in, and the next run goes on without them."""
    path = job(lab, api.url, prompts={"path": "-", "format": "openai-batch"})
    data = b"".join(request_line(name, CHAT, chat(f"ECHO:{name}")) for name in "ab")
    report = batchgen.run(
        lab.load(path), Options(stdin=io.BufferedReader(io.BytesIO(data)), limit=1)
    )
    assert report.rows == {"succeeded": 1}
    assert list(results_of(lab)) == ["a"]
    assert lab.go(path).run.calls == 1
    assert list(results_of(lab)) == ["a", "b"]


# --- results as tables ----------------------------------------------------------------------------


def _timeless(body: Any) -> Any:
    """A reply without what differs from call to call."""
    return {
        name: value
        for name, value in body.items()
        if name not in ("created", "created_at", "completed_at", "id")
    }


@pytest.mark.parametrize(
    "endpoint", [CHAT, "/embeddings", "/responses", "/images/generations", "/images/edits"]
)
def test_the_results_are_those_of_the_batch_api(lab: Lab, endpoint: str) -> None:
    """A file sent through the Batch API and the same file run by batchgen give the same lines:
    bodies, statuses, ids.
    """
    # The simulator's answer depends on the body, and batchgen adds `store: false` to a response.
    body = BODIES[endpoint][0] | ({"store": False} if endpoint == "/responses" else {})
    path = write(
        lab,
        [
            ("a", endpoint, body),
            ("b", endpoint, {**body, "user": "b"}),
            ("bad", endpoint, {**body, "n": 99}),
        ],
    )
    if endpoint in ("/embeddings", "/responses"):  # which have no n, and take any
        path = write(lab, [("a", endpoint, body), ("b", endpoint, {**body, "user": "b"})])

    async def official(url: str) -> tuple[list[Any], list[Any]]:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
            file = await client.files.create(file=path, purpose="batch")
            made: Any = f"/v1{endpoint}"
            batch = await client.batches.create(
                input_file_id=file.id, endpoint=made, completion_window="24h"
            )
            done = await client.batches.retrieve(batch.id)
            assert (done.status, done.errors) == ("completed", None)
            both = []
            for file_id in (done.output_file_id, done.error_file_id):
                text = (await client.files.content(file_id)).text if file_id else ""
                both.append([json.loads(line) for line in text.splitlines()])
            return both[0], both[1]

    with serving(Settings(batch_speed=0)) as api:
        answers, errors = asyncio.run(official(api.url))
        lab.go(job(lab, api.url))
    mine = results_of(lab)
    assert sorted(mine) == sorted(line["custom_id"] for line in answers)
    for line in answers:
        result = mine[line["custom_id"]]
        assert set(result) == set(line)
        assert set(result["response"]) == set(line["response"])
        assert result["response"]["status_code"] == line["response"]["status_code"]
        theirs, own = _timeless(line["response"]["body"]), _timeless(result["response"]["body"])
        assert _rounded(own) == _rounded(theirs)
    failed = results_of(lab, "errors")
    assert sorted(failed) == sorted(line["custom_id"] for line in errors)
    for line in errors:
        error = line["response"]["body"]["error"]
        result = failed[line["custom_id"]]
        assert set(result["response"]["body"]["error"]) == set(error)
        assert result["response"]["status_code"] == line["response"]["status_code"]
        assert result["response"]["body"]["error"]["message"] == error["message"]


def _rounded(value: Any) -> Any:
    """Numbers as float32 tells them apart."""
    if isinstance(value, float):
        return struct.unpack("f", struct.pack("f", value))
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return (
        {name: _rounded(item) for name, item in value.items()} if isinstance(value, dict) else value
    )


def test_a_mixed_file_in_batches(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 In mode: batch the requests of one file are split by endpoint and model, as the Batch API
    requires, and the results are those of the same file sent online.
    """
    monkeypatch.setattr(client, "BETWEEN_SEARCHES", 0.0)
    monkeypatch.setattr(collect, "BETWEEN_FETCHES", 0.0)
    write(lab, [(endpoint, endpoint, body) for endpoint, (body, _) in BODIES.items()])
    with serving(Settings(batch_speed=0)) as api:
        path = job(lab, api.url, mode="batch")
        assert len(lab.go(path).batches) == len(KIND_BY_ENDPOINT)
        report = lab.go(path)
        assert (report.exit_code, report.rows) == (0, {"succeeded": len(KIND_BY_ENDPOINT)})
        lab.go(job(lab, api.url, name="online"))
    mine, online = results_of(lab), results_of(lab, name="online")
    assert list(mine) == list(online) == list(BODIES)
    for name, line in mine.items():
        assert _timeless(line["response"]["body"]) == _timeless(online[name]["response"]["body"])


def test_embeddings_are_as_they_were_asked_for(lab: Lab, api: Simulator) -> None:
    """Embeddings are numbers in the results although batchgen asks for base64; base64 where the
    request asks for it.
    """
    body = BODIES["/embeddings"][0]
    write(
        lab,
        [("a", "/embeddings", body), ("b", "/embeddings", {**body, "encoding_format": "base64"})],
    )
    lab.go(job(lab, api.url))
    vectors = {
        name: line["response"]["body"]["data"][0]["embedding"]
        for name, line in results_of(lab).items()
    }
    assert math.hypot(*vectors["a"]) == pytest.approx(1, abs=1e-3)
    assert isinstance(vectors["b"], str)


def test_pictures_come_whole(lab: Lab, api: Simulator) -> None:
    """A picture is in its line as the API sent it, although it is kept as a file; when the file is
    gone or changed, its line is left out, and the next run draws it again.
    """
    body = BODIES["/images/generations"][0]
    write(lab, [(name, "/images/generations", {**body, "user": name, "n": 2}) for name in "abc"])
    path = job(lab, api.url)
    lab.go(path)
    folder = lab.output() / "images"
    for name, line in results_of(lab).items():
        data = line["response"]["body"]["data"]
        assert [base64.b64decode(item["b64_json"]) for item in data] == [
            (folder / f"{name}-{n}.png").read_bytes() for n in (1, 2)
        ]
        assert not {"path", "sha256", "size"} & set(data[0])
    (folder / "a-1.png").unlink()
    (folder / "b-1.png").write_bytes(b"other")
    (folder / "b-2.png").unlink()
    (folder / "b-2.png").symlink_to("/etc/passwd")
    maintenance.export(lab.load(path))
    assert list(results_of(lab)) == ["c"]
    (folder / "b-2.png").unlink()
    lab.go(path)
    assert list(results_of(lab)) == ["a", "b", "c"]


def test_how_rows_end(lab: Lab) -> None:
    """Succeeded and incomplete requests have a line in one file, failed ones in the other: as a
    response where the server refused them, as an error where there was no response or none that
    could be read. Requests that have not ended have no line.
    """

    def script(request: RequestInfo) -> str | None:
        text = str(request.body)
        return next(
            (fault for fault in ("400_policy", "wrong_json", "reset", "503") if fault in text), None
        )

    with serving(script=script) as api:
        names = ["fine", "400_policy", "wrong_json", "reset", "503", "cut"]
        bodies = [
            (name, CHAT, chat(name, **({"max_completion_tokens": 1} if name == "cut" else {})))
            for name in names
        ]
        write(lab, [*bodies, ("later", CHAT, chat("later"))])
        path = job(lab, api.url, retry={"attempts": 1})
        report = lab.go(path, limit=6)
        assert report.rows == {"succeeded": 1, "incomplete": 1, "failed": 4}
        assert list(results_of(lab)) == ["fine", "cut"]
        errors = results_of(lab, "errors")
        assert list(errors) == ["400_policy", "wrong_json", "reset", "503"]
        assert {
            name: (line["response"] or {}).get("status_code") for name, line in errors.items()
        } == {"400_policy": 400, "wrong_json": None, "reset": None, "503": 503}
        assert (
            errors["400_policy"]["response"]["body"]["error"]["code"] == "content_policy_violation"
        )
        assert errors["wrong_json"]["error"]["code"] == "invalid_response"
        # An answer to the row's earlier request is not shown as an answer to this one.
        write(lab, [("fine", CHAT, chat("changed")), ("later", CHAT, chat("later"))])
        lab.go(path, limit=1)
        assert list(results_of(lab)) == ["fine"]
        write(lab, [("later", CHAT, chat("later")), ("fine", CHAT, chat("changed again"))])
        lab.go(path, limit=1)
        assert list(results_of(lab)) == ["later"]


def test_tables_of_any_job(lab: Lab, api: Simulator) -> None:
    """Any job's results can have the Batch API's form. A request is named by its id where that is
    unique, else by id, axes in the job's order, and turn.
    """
    output = {"tables": ["openai-batch"]}
    lab.go(lab.job(api.url, name="plain", rows=2, output=output))
    assert list(results_of(lab, name="plain")) == ["r1", "r2"]
    assert sorted(path.name for path in lab.output("plain").glob("*.jsonl")) == [
        "errors.batch.jsonl",
        "results.batch.jsonl",
    ]
    matrix = {"tone": ["dry", "warm"], "at": 2}
    lab.go(lab.job(api.url, name="crossed", rows=1, output=output, matrix=matrix))
    assert list(results_of(lab, name="crossed")) == [
        '["r1","dry",1]',
        '["r1","dry",2]',
        '["r1","warm",1]',
        '["r1","warm",2]',
    ]
    (lab.folder / "talk.jsonl").write_text(
        '{"id": "t", "turns": ["ECHO:a", "ECHO:b"]}\n', encoding="utf-8"
    )
    request = chat("{{ turn }}")
    talk: dict[str, Any] = {
        "prompts": {"path": "talk.jsonl", "id": "id"},
        "conversation": {"turns": "turns"},
        "request": request,
    }
    lab.go(lab.job(api.url, name="talk", output=output, **talk))
    assert list(results_of(lab, name="talk")) == ['["t",1]', '["t",2]']
    lab.prompts(3)
    lab.go(lab.job(api.url, name="nameless", output=output, prompts={"path": "prompts.csv"}))
    assert len(results_of(lab, name="nameless")) == 3


def test_the_files_are_tables_like_others(lab: Lab, api: Simulator) -> None:
    """P10 The files are not rewritten while nothing changes; a missing file and export write them
    again.
    """
    path = lab.job(
        api.url, rows=2, output={"tables": ["csv", "openai-batch"], "csv": {"safe": True}}
    )
    lab.go(path)
    file = lab.output() / "results.batch.jsonl"
    before, made = file.read_bytes(), file.stat().st_ino
    lab.go(path)
    assert file.stat().st_ino == made
    file.unlink()
    lab.go(path)
    assert file.read_bytes() == before
    file.unlink()
    maintenance.export(lab.load(path))
    assert file.read_bytes() == before


def test_the_key_is_that_of_the_endpoint(lab: Lab) -> None:
    """Requests of two endpoints with one body are two: url is part of the key."""
    renderer = _renderer(lab.folder)
    body = {"model": "m", "input": "x"}
    keys = {
        renderer.request({"custom_id": "a", "url": f"/v1{endpoint}", "body": body}, {}).fingerprint
        for endpoint in ("/responses", "/embeddings", "/moderations")
    }
    assert len(keys) == 3


def test_only_what_draws_needs_a_folder(lab: Lab, api: Simulator) -> None:
    """P05 The folder for pictures is made and checked before the first call of a file that asks for
    pictures.
    """
    write(lab, [("a", CHAT, chat("x"))])
    lab.go(job(lab, api.url))
    assert not (lab.output() / "images").exists()
    write(
        lab,
        [("a", CHAT, chat("x")), ("b", "/images/generations", BODIES["/images/generations"][0])],
    )
    (lab.output() / "images").symlink_to(lab.folder)
    with pytest.raises(batchgen.OutputError, match="images"):
        lab.go(job(lab, api.url))
    workspace = Workspace.of(lab.load(job(lab, api.url)))
    with workspace.peek() as journal:
        assert workspace.staged(journal).draws
