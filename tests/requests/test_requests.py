"""Requests: a row becomes the API's own body, its key, its bounds and its files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import Lab, serving
from PIL import Image

from batchgen.job import Job, load_job
from batchgen.requests import (
    Renderer,
    Request,
    RequestError,
    canonical,
    combinations,
    read_upload,
    unchanged,
    with_history,
    without_system_messages,
)
from batchgen.requests.uploads import REMEMBERED, Pictures
from batchgen.staging import result

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "{{ text }}"}]}


def job_of(
    folder: Path, kind: str = "chat", request: dict[str, Any] | None = None, **parts: Any
) -> Job:
    job = {
        "kind": kind,
        "prompts": {"path": "rows.csv"},
        "request": CHAT if request is None else request,
        **parts,
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")
    return load_job(path, environ={})


def renderer(folder: Path, *args: Any, provider: str = "openai", **parts: Any) -> Renderer:
    return Renderer(job_of(folder, *args, **parts), provider)


def made(
    folder: Path, request: dict[str, Any], row: dict[str, Any] | None = None, kind: str = "chat"
) -> Request:
    return renderer(folder, kind, request).request({"text": "hi"} if row is None else row, {})


def fault(
    folder: Path, request: dict[str, Any], row: dict[str, Any] | None = None, kind: str = "chat"
) -> RequestError:
    with pytest.raises(RequestError) as caught:
        made(folder, request, row, kind)
    return caught.value


def picture(path: Path, form: str = "PNG", size: tuple[int, int] = (4, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA" if form == "PNG" else "RGB", size).save(path, form)
    return path


# --- bodies


def test_body_is_the_api_s_own(tmp_path: Path) -> None:
    """Strings are templates, whole expressions keep their type, none drops the key or the item, the
    rest passes through.
    """
    request = {
        "model": "{{ model }}",
        "messages": [
            {"role": "assistant", "content": "{{ none }}"},
            {"role": "user", "content": "Say {{ text }}"},
            "{{ row['more'] }}",
        ],
        "temperature": "{{ heat | float }}",
        "seed": "{{ none }}",
        "stop": None,
        "new_parameter": {"deep": [1, "{{ text }}", None]},
    }
    row = {"text": "hi", "heat": "0.5", "more": None}
    body = renderer(tmp_path, "chat", request).request(row, {"model": "m1"}).body
    assert body == {
        "model": "m1",
        "messages": [{"role": "assistant"}, {"role": "user", "content": "Say hi"}],
        "temperature": 0.5,
        "stop": None,
        "new_parameter": {"deep": [1, "hi", None]},
    }


def test_a_jsonl_list_passes_through(tmp_path: Path) -> None:
    """`messages: "{{ messages }}"` is the row's own list, unchanged and unshared."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "{{ not a template }}"}]}]
    body = made(tmp_path, {"model": "m", "messages": "{{ messages }}"}, {"messages": messages}).body
    assert body["messages"] == messages
    assert body["messages"] is not messages


@pytest.mark.parametrize(
    ("request_", "row", "position", "words"),
    [
        ({**CHAT, "model": "{{ none }}"}, None, "request.model", "came out as none"),
        ({**CHAT, "messages": "{{ text }}"}, None, "request.messages", "list of messages"),
        ({**CHAT, "messages": "{{ [] }}"}, None, "request.messages", "list of messages"),
        (
            {**CHAT, "temperature": "{{ text | float }}"},
            None,
            "request.temperature",
            "not a number",
        ),
        ({**CHAT, "n": "{{ text }}"}, None, "request.n", "whole number"),
        ({**CHAT, "n": "{{ 1 > 0 }}"}, None, "request.n", "whole number"),
        ({**CHAT, "n": -3}, None, "request.n", "whole number"),
        ({**CHAT, "x": "{{ row['x'] }}"}, {"text": "", "x": float("nan")}, "request", "not JSON"),
        ({**CHAT, "x": "{{ 1e308 * 10 }}"}, None, "request", "not JSON"),
        (CHAT, {"text": "\ud800"}, "request", "UTF-8"),
        (CHAT, {}, "request.messages[0].content", "'text' is not a column"),
        (
            {"model": "m", "prompt": "x", "best_of": "{{ 'x' }}"},
            None,
            "request.best_of",
            "whole number",
        ),
    ],
)
def test_rows_without_a_request(
    tmp_path: Path, request_: Any, row: Any, position: str, words: str
) -> None:
    """P30 A row of which no request can be made says why, and where in the job file."""
    found = fault(tmp_path, request_, row, "chat" if "messages" in request_ else "completion")
    assert str(found).startswith(f"{position}: ")
    assert words in found.message


def test_deep_rows_are_refused(tmp_path: Path) -> None:
    """A row nested thousands deep fails as a row, not as a crash."""
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    fault(tmp_path, {**CHAT, "x": "{{ deep }}"}, {"text": "", "deep": deep})


@given(
    row=st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=5,
    )
)
@settings(max_examples=80, deadline=None)
def test_any_row_is_a_request_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]
) -> None:
    """P28 Whatever a row holds: its values arrive as they are, or the row fails; nothing else is
    raised.
    """
    request = {
        "model": "m",
        "input": "{{ row }}",
        "x": "{{ row.items() }}",
        "text": "a {{ row }} b",
    }
    job = renderer(tmp_path_factory.getbasetemp(), "text", request)
    try:
        found = job.request(row, {})
    except RequestError:
        return
    assert found.body["input"] == row
    assert found.input_bound >= len(canonical(row).encode())


@pytest.mark.parametrize(
    ("template", "refused"),
    [
        ("{{ row }}", True),
        ("say {{ row }}", True),
        ("{{ row | upper }}", True),
        ("{{ row['text'] }}{{ row }}", True),
        ("{{ row['row'] }}", False),
        ("{{ row.row }} {{ text }}", False),
        ("{% for row in [1] %}{{ row }}{% endfor %}", False),
    ],
)
def test_a_column_called_row_is_not_taken_for_the_whole_row(
    tmp_path: Path, template: str, refused: bool
) -> None:
    """P30 Where a template says `row` and means the whole row or the column of that name, nobody
    can tell which: it is refused before any call, with the way to write the column.
    """
    of = renderer(tmp_path, "text", {"model": "m", "input": template})
    found = of.problems(("text", "row"))
    assert [each.message for each in found] == (
        [
            "request.input: row is the whole row here, and the prompts have a column 'row'; "
            'write row["row"] for the column, or rename it'
        ]
        if refused
        else []
    )
    if "text" not in template and refused:
        assert of.problems(("text",)) == []


def test_columns_named_like_the_language_s_own_words(tmp_path: Path) -> None:
    """A column named turn is a column, unless the job's turns are; one named row is reached by
    row["row"].
    """
    request = {
        "model": "m",
        "messages": [{"role": "user", "content": "{{ turn }} {{ loop }} {{ row['row'] }}"}],
    }
    row = {"turn": "left", "loop": "L", "row": "R", "turns": ["x"]}
    assert made(tmp_path, request, row).body["messages"][0]["content"] == "left L R"
    by_turns = renderer(tmp_path, "chat", request, conversation={"turns": "turns"})
    assert by_turns.request(row, {}, turn="x").body["messages"][0]["content"] == "x L R"


# --- the key


def key(
    folder: Path,
    row: dict[str, Any] | None = None,
    axes: Any = None,
    previous: bytes = b"",
    **parts: Any,
) -> str:
    provider = parts.pop("provider", "openai")
    made = renderer(folder, provider=provider, **parts).request(
        row or {"text": "hi"}, axes or {}, previous=previous
    )
    return made.fingerprint.hex()


def test_golden_keys(tmp_path: Path) -> None:
    """The recipe of the key never changes under one scheme: a changed recipe would pay for every
    answer again.
    """
    assert key(tmp_path) == "6a56c00c8eda407ee96f7d1d64851465beecffe65cb54927206ea847089faa10"
    assert (
        key(tmp_path, {"text": "中\n€"}, previous=b"\xab\xcd")
        == "a4d890e1ced9edcf0ce3b628db4cef23fb53522948cde421596bf08feb7c878b"
    )
    edit = {"model": "m", "prompt": "p", "image": "{{ text }}"}
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    assert (
        key(tmp_path, {"text": "a.png"}, kind="image_edit", request=edit)
        == "2f883aaaa5a3ae1ff5b1368c7eef7eaad26ebd3a97adefed579d9050bdac686a"
    )


def test_what_is_out_of_the_key(tmp_path: Path) -> None:
    """Knobs, output, unused columns and batchgen's own defaults are no part of the key: changing
    them pays nothing.
    """
    plain = key(tmp_path)
    for part in (
        {"limits": {"concurrency": 3, "max_cost": 1}},
        {"retry": {"attempts": 1, "timeout": 5}},
        {"batch": {"keep_files": True}},
        {"output": {"columns": {"x": "{{ output }}"}, "tables": ["jsonl"], "prefix": "b_"}},
        {"pricing": {"m": {"input": 1}}},
        {"name": "another"},
    ):
        assert key(tmp_path, **part) == plain, part
    assert key(tmp_path, {"text": "hi", "note": "x"}) == plain
    assert key(tmp_path, request=dict(reversed(CHAT.items()))) == plain
    text = renderer(tmp_path, "text", {"model": "m", "input": "x"}).request({}, {})
    assert text.body["store"] is False
    assert (
        text.fingerprint
        == hashlib.sha256(b'[1,"openai","/responses",[],""]\n{"input":"x","model":"m"}').digest()
    )


def test_what_is_in_the_key(tmp_path: Path) -> None:
    """Each word of the body, the provider, the endpoint, the turn before and the uploads' bytes
    make another key.
    """
    text = {"model": "m", "input": "x"}
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", size=(5, 5))
    picture(tmp_path / "same.png")
    edit = {"model": "m", "prompt": "p", "image": "{{ text }}"}
    keys = [
        key(tmp_path),
        key(tmp_path, {"text": "hi "}),
        key(tmp_path, request={**CHAT, "model": "m2"}),
        key(tmp_path, request={**CHAT, "temperature": 0}),
        key(tmp_path, provider="other"),
        key(tmp_path, previous=b"x"),
        key(tmp_path, kind="text", request=text),
        key(tmp_path, kind="text", request={**text, "store": True}),
        key(tmp_path, {"text": "a.png"}, kind="image_edit", request=edit),
        key(tmp_path, {"text": "b.png"}, kind="image_edit", request=edit),
        key(
            tmp_path,
            {"text": "a.png"},
            kind="image_edit",
            request={**edit, "image": ["{{ text }}"]},
        ),
        key(tmp_path, {"text": "a.png"}, kind="image_edit", request={**edit, "mask": "{{ text }}"}),
    ]
    assert len(set(keys)) == len(keys)
    assert key(tmp_path, {"text": "same.png"}, kind="image_edit", request=edit) == keys[8]


def test_signature_sees_what_pass_1_depends_on(tmp_path: Path) -> None:
    """Pass 1 is skipped only while the request, the provider and the included files are the
    same.
    """
    include = {**CHAT, "instructions": '{% include "tone.md" %}'}
    (tmp_path / "tone.md").write_text("calm", encoding="utf-8")
    one = renderer(tmp_path, "chat", include).signature()
    assert renderer(tmp_path, "chat", include, limits={"concurrency": 2}).signature() == one
    assert renderer(tmp_path, "chat", include, provider="other").signature() != one
    (tmp_path / "tone.md").write_text("loud", encoding="utf-8")
    assert renderer(tmp_path, "chat", include).signature() != one


def test_the_signature_stays(tmp_path: Path) -> None:
    """P07 What a run looks at and renders does not change what pass 1 is known by: the next run
    finds it current.
    """
    (tmp_path / "tone.md").write_text("calm {{ text }}", encoding="utf-8")
    (tmp_path / "cell.md").write_text("{{ output }}", encoding="utf-8")
    job = renderer(
        tmp_path,
        request={**CHAT, "user": '{% include "tone.md" %}'},
        output={"columns": {"cell": '{% include "cell.md" %}'}},
    )
    before = job.signature()
    assert job.problems(["text"]) == []
    job.request({"text": "hi"}, {})
    assert job.columns.cells({"text": "hi"}, {}, {}, "out") == {"cell": "out"}
    assert job.signature() == before


# --- combinations, conversations


def test_combinations() -> None:
    """Every combination, the last axis turning fastest; one without a matrix."""
    assert combinations({}) == [{}]
    found = combinations({"a": [1, 2], "b": ["x", "y"]})
    assert found == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


def test_history(tmp_path: Path) -> None:
    """P13 A later turn carries the conversation so far and its own messages less the leading system
    ones; key unchanged.
    """
    system = {"role": "system", "content": "Be calm."}
    request = {
        "model": "m",
        "messages": [system, {"role": "developer", "content": "d"}, *CHAT["messages"]],
    }
    second = renderer(tmp_path, "chat", request).request({"text": "two"}, {}, previous=b"k1")
    history = [
        system,
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1" * 500},
    ]
    whole = with_history(second, history)
    assert [message["content"] for message in whole.body["messages"]] == [
        "Be calm.",
        "one",
        "1" * 500,
        "two",
    ]
    assert whole.fingerprint == second.fingerprint
    assert whole.input_bound >= second.input_bound + 400
    assert without_system_messages([system, {"role": "user"}, system]) == [{"role": "user"}, system]
    assert without_system_messages([system]) == []


# --- bounds


@given(st.text())
@settings(deadline=None)
def test_input_bound_covers_every_byte(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """P25 A token is a byte at least: the bound is never below the text's bytes and 16 a
    message.
    """
    found = made(tmp_path_factory.getbasetemp(), CHAT, {"text": text})
    assert found.input_bound >= len(text.encode()) + 16


def test_pictures_are_bounded_by_their_number(tmp_path: Path) -> None:
    """P25 A picture shown to a model costs tokens that its bytes do not tell, by link or as data;
    text cannot fake one.
    """
    picture(tmp_path / "a.png")

    def bound(part: Any, text: str = "hi") -> int:
        content = [{"type": "text", "text": "{{ text }}"}, part]
        return made(
            tmp_path,
            {"model": "m", "messages": [{"role": "user", "content": content}]},
            {"text": text},
        ).input_bound

    words = bound({"type": "text", "text": "x"})
    link = bound({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})
    data = bound({"type": "image_url", "image_url": {"url": "{{ 'a.png' | data_url }}"}})
    assert words < 200
    assert 50_000 < data <= link + 100 < 51_000
    faked = '"type":"image_url","url":"data:image/png;base64,' + "A" * 900 + '"'
    assert 900 < bound({"type": "text", "text": "x"}, faked) < 2000


@pytest.mark.parametrize(
    ("kind", "more", "bound"),
    [
        ("chat", {}, None),
        ("chat", {"max_completion_tokens": 10}, 10),
        ("chat", {"max_tokens": 10, "n": 3}, 30),
        ("chat", {"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ("chat", {"max_tokens": -1}, None),
        ("chat", {"max_tokens": "{{ 'x' }}"}, None),
        ("chat", {"max_tokens": True}, None),
        ("chat", {"max_tokens": 10, "n": None}, 10),
        ("completion", {"max_tokens": 10, "n": 2, "best_of": 5}, 50),
        ("completion", {"max_tokens": 10, "prompt": ["a", "b", "c"]}, 30),
        ("completion", {"max_tokens": 10, "prompt": [[1, 2], [3]]}, 20),
        ("completion", {"max_tokens": 10, "prompt": [1, 2, 3]}, 10),
        ("text", {"max_output_tokens": 16}, 16),
        ("embedding", {}, 0),
        ("moderation", {}, 0),
        ("image", {"n": 4}, 0),
    ],
)
def test_answer_bound(tmp_path: Path, kind: str, more: dict[str, Any], bound: int | None) -> None:
    """P25 The answers' cap times everything that multiplies it; None where nothing bounds it."""
    field = {
        "chat": {"messages": CHAT["messages"]},
        "completion": {"prompt": "x"},
        "image": {"prompt": "x"},
    }
    request = {"model": "m", **field.get(kind, {"input": "x"}), **more}
    found = made(tmp_path, request, kind=kind)
    assert found.answer_bound == bound
    assert found.pictures == (4 if kind == "image" else 0)


# --- uploads


EDIT = {"model": "m", "prompt": "p", "image": "{{ text }}"}


SCHEMA = {
    "type": "object",
    "properties": {"conversation": {"type": "string"}, "file_id": {"type": "string"}},
}


@pytest.mark.parametrize(
    ("kind", "more", "field"),
    [
        ("chat", {}, None),
        (
            "chat",
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]},
            None,
        ),
        (
            "chat",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": SCHEMA},
                }
            },
            None,
        ),
        ("chat", {"web_search_options": {}}, "web_search_options"),
        (
            "chat",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "file", "file": {"file_id": "f-1"}}]}
                ]
            },
            "file_id",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "input_audio",
        ),
        ("text", {"tools": [{"type": "web_search"}]}, "tools"),
        ("text", {"tools": ["{{ text }}"]}, "tools"),
        ("text", {"previous_response_id": "resp_1"}, "previous_response_id"),
        ("text", {"conversation": "{{ none }}"}, None),
        ("text", {"prompt": {"id": "pmpt_1"}}, "prompt"),
        ("text", {"input": [{"type": "input_image", "file_id": "file-1"}]}, "file_id"),
        ("text", {"input": '"type":"file" {{ row["text"] }}'}, None),
        ("completion", {}, None),
        ("chat", {"plugins": [{"id": "web"}]}, "plugins"),
        ("chat", {"plugins": []}, None),
        ("chat", {"models": ["a", "b"]}, "models"),
        ("chat", {"model": "openai/gpt-4o:online"}, "model: openai/gpt-4o:online"),
        ("chat", {"model": "gpt-4o-search-preview"}, "model: gpt-4o-search-preview"),
        ("text", {"model": "o3-deep-research"}, "model: o3-deep-research"),
        ("chat", {"model": "groq/compound"}, "model: groq/compound"),
        ("chat", {"model": "nousresearch/hermes-4-70b"}, None),
        ("chat", {"search_parameters": {"mode": "auto"}}, "search_parameters"),
        ("chat", {"search_parameters": {"mode": "off"}}, None),
        ("chat", {"enable_search": True}, "enable_search"),
        ("chat", {"enable_search": False}, None),
        ("chat", {"data_sources": [{"type": "azure_search"}]}, "data_sources"),
    ],
)
def test_what_the_server_reads_besides(
    tmp_path: Path, kind: str, more: dict[str, Any], field: str | None
) -> None:
    """P25 A field that has the server read more than the body is named, since no bound holds for
    it; a schema's property or a row's text that looks like one is none.
    """
    required = {
        "chat": CHAT,
        "text": {"model": "m", "input": "x"},
        "completion": {"model": "m", "prompt": "x"},
    }
    row = {"text": '"file_id":"x"'}
    assert made(tmp_path, {**required[kind], **more}, row, kind).unbounded_by == field


def test_uploads(tmp_path: Path) -> None:
    """One path or a list of pictures become files of the multipart request, the mask beside
    them.
    """
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "b.jpg", "JPEG")
    picture(tmp_path / "c.webp", "WEBP")
    request = {**EDIT, "image": ["{{ text }}", "b.jpg", "c.webp", "{{ none }}"], "mask": "in/a.png"}
    found = made(tmp_path, request, {"text": "in/a.png"}, "image_edit")
    assert found.body == {"model": "m", "prompt": "p"}
    assert [(each.field, each.name, each.media_type) for each in found.uploads] == [
        ("image[]", "in/a.png", "image/png"),
        ("image[]", "b.jpg", "image/jpeg"),
        ("image[]", "c.webp", "image/webp"),
        ("mask", "in/a.png", "image/png"),
    ]
    assert read_upload(found.uploads[0]) == (tmp_path / "in" / "a.png").read_bytes()
    one = made(tmp_path, {**EDIT, "mask": "{{ none }}"}, {"text": "b.jpg"}, "image_edit")
    assert [each.field for each in one.uploads] == ["image"]


def test_files_stay_below_their_folder(tmp_path: Path) -> None:
    """P36 A row names files below the prompts' folder only: not absolute, no .., no link out, no
    device, pipe or folder.
    """
    folder = tmp_path / "jobs"
    secret = picture(tmp_path / "secret.png")
    picture(folder / "in" / "a.png")
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    (folder / "empty.png").touch()
    (folder / "anim.gif").write_bytes(b"GIF89a" + bytes(20))
    (folder / "out.png").symlink_to(secret)
    (folder / "outside").symlink_to(tmp_path)
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "inside.png").symlink_to(folder / "in" / "a.png")
    os.mkfifo(folder / "pipe.png")
    with open(folder / "huge.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(50_000_000)
    job = renderer(folder, "image_edit", EDIT)
    assert job.request({"text": "inside.png"}, {}).uploads[0].path == str(folder / "in" / "a.png")
    assert job.request({"text": "./in/a.png"}, {}).uploads
    bad: list[Any] = [
        str(secret),
        "../secret.png",
        "in/../../secret.png",
        "out.png",
        "outside/secret.png",
        "device.png",
    ]
    bad += [
        "loop.png",
        "pipe.png",
        "in",
        ".",
        "",
        " ",
        "huge.png",
        "text.png",
        "empty.png",
        "anim.gif",
        "nope.png",
        "a\0b",
    ]
    bad += [
        "\ud800.png",
        "x" * 5000,
        "..\\secret.png",
        "/dev/stdin",
        7,
        None,
        [],
        ["in/a.png"] * 17,
        {"a": 1},
        "a\nb",
    ]
    data = renderer(folder, "text", {"model": "m", "input": "{{ text | data_url }}"})
    for given_ in bad:
        for each in (job, data):
            with pytest.raises(RequestError):
                each.request({"text": given_}, {})
    assert (
        data.request({"text": "in/a.png"}, {})
        .body["input"]
        .startswith("data:image/png;base64,iVBOR")
    )


def test_prompts_files_names_another_folder(tmp_path: Path) -> None:
    """P36 With prompts.files rows name files below that folder, and not below the prompts' own."""
    picture(tmp_path / "a.png")
    picture(tmp_path / "pictures" / "b.png")
    job = renderer(tmp_path, "image_edit", EDIT, prompts={"path": "rows.csv", "files": "pictures"})
    assert job.request({"text": "b.png"}, {}).uploads
    for name in ("a.png", "../a.png"):
        with pytest.raises(RequestError):
            job.request({"text": name}, {})


def test_masks(tmp_path: Path) -> None:
    """P36 A mask is one PNG below 4 MB."""
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.jpg", "JPEG")
    with open(picture(tmp_path / "big.png"), "r+b") as file:
        file.truncate(4_000_000)
    for mask in ("b.jpg", "big.png", ["a.png"]):
        fault(tmp_path, {**EDIT, "mask": mask}, {"text": "a.png"}, "image_edit")
    assert made(tmp_path, {**EDIT, "mask": "a.png"}, {"text": "big.png"}, "image_edit").uploads


def test_a_picture_that_changes(tmp_path: Path) -> None:
    """P08 A picture edited between pass 1 and the call is noticed: nothing is sent under a key that
    is not its own.
    """
    path = picture(tmp_path / "a.png")
    job = renderer(tmp_path, "image_edit", EDIT)
    upload = job.request({"text": "a.png"}, {}).uploads[0]
    with job.recording_pictures() as read:
        job.request({"text": "a.png"}, {})
    seen = [list(each) for each in read]
    assert unchanged(seen)
    picture(path, size=(9, 9))
    assert not unchanged(seen)
    with pytest.raises(RequestError, match="has changed"):
        read_upload(upload)
    path.unlink()
    assert not unchanged(seen)
    with pytest.raises(RequestError, match="cannot be read"):
        read_upload(replace(upload, path=str(path)))


def test_pictures_are_noted_again_by_the_next_pass(tmp_path: Path) -> None:
    """P08 Each pass notes every picture that its rows name, also one whose hash an earlier pass had
    made; outside of a pass nothing is noted.
    """
    path = picture(tmp_path / "a.png")
    job = renderer(tmp_path, "image_edit", EDIT)
    for _ in range(2):
        with job.recording_pictures() as read:
            for _ in range(3):
                job.request({"text": "a.png"}, {})
        assert [mark[0] for mark in read] == [str(path)]
        job.request({"text": str(picture(tmp_path / "b.png").name)}, {})
        assert len(read) == 1


def test_few_hashes_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 Rows that each name another picture leave no trace of each in memory."""
    monkeypatch.setattr(Pictures, "_read", lambda self, mark: "0" * 64)
    pictures = Pictures(tmp_path)
    for n in range(REMEMBERED + 500):
        pictures._sha256((str(n), n, n))
    assert pictures._sha256.cache_info().currsize == REMEMBERED


def test_pass_1_is_skipped_while_every_picture_stays(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, renderings: list[str]
) -> None:
    """P08 P31 Pictures are noted in pages, of which one is in memory: pass 1 is skipped while all
    of them stay, and a picture of any page that changes is noticed.
    """
    monkeypatch.setattr(result, "PICTURES", 2)
    names = [picture(lab.folder / f"{n}.png", size=(4, 4 + n)).name for n in range(5)]
    (lab.folder / "prompts.csv").write_text(
        "id,text\n" + "".join(f"{n},{n}\n" for n in names), encoding="utf-8"
    )
    request = {"model": "gpt-image-2", "prompt": "p", "image": "{{ text }}", "size": "1024x1024"}
    with serving() as api:
        job = lab.job(api.url, rows=None, kind="image_edit", request=request)
        assert lab.go(job).rows == {"succeeded": 5}
        for name in (None, "0.png", "4.png", None):
            if name is not None:
                picture(lab.folder / name, size=(99, 99))
            renderings.clear()
            report = lab.go(job)
            assert report.rows == {"succeeded": 5}
            assert (report.run.calls, len(renderings)) == ((1, 6) if name else (0, 0))


@pytest.mark.parametrize(
    ("kind", "request_", "reads"),
    [
        ("chat", CHAT, False),
        ("image_edit", EDIT, True),
        ("text", {"model": "m", "input": "{{ text | data_url }}"}, True),
        ("text", {"model": "m", "input": '{% include "shown.md" %}'}, True),
    ],
)
def test_requests_that_read_files_are_known(
    tmp_path: Path, kind: str, request_: Any, reads: bool
) -> None:
    """P19 A request that reads pictures while it is made is made off the event loop, where no
    deadline waits for it.
    """
    (tmp_path / "shown.md").write_text("{{ text | data_url }}", encoding="utf-8")
    assert renderer(tmp_path, kind, request_).reads_files == reads


def test_pictures_are_hashed_off_the_event_loop(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P19 Making a request, and reading and hashing what it uploads, holds up no other call and no
    deadline.
    """
    made_on_loop: list[bool] = []
    render = Renderer.request

    def spied(self: Renderer, *args: Any, **kwargs: Any) -> Request:
        made_on_loop.append(asyncio._get_running_loop() is not None)
        return render(self, *args, **kwargs)

    monkeypatch.setattr(Renderer, "request", spied)
    # The page shows requests when the run, and its loop, have ended.
    monkeypatch.setattr("batchgen.session.session.write_page", lambda *_: None)
    picture(lab.folder / "a.png")
    request = {"model": "gpt-image-2", "prompt": "p", "image": "a.png", "size": "1024x1024"}
    with serving() as api:
        assert lab.go(lab.job(api.url, rows=2, kind="image_edit", request=request)).rows == {
            "succeeded": 2
        }
        assert lab.go(lab.job(api.url, name="chat", rows=2)).rows == {"succeeded": 2}
    assert made_on_loop == [False] * 8


# --- what is wrong whatever the row


def problems(folder: Path, header: list[str] | None = None, **parts: Any) -> list[str]:
    found = renderer(folder, **parts).problems(header)
    return [str(problem).removeprefix(str(folder) + "/") for problem in found]


def test_problems_of_the_job(tmp_path: Path) -> None:
    """P30 Missing fields, syntax and unknown columns are found before any row, all at once, with
    place and columns.
    """
    assert problems(tmp_path, ["text"]) == []
    assert problems(tmp_path, ["text"], request={"model": "m"}) == [
        "job.yaml:1:62: request.messages is missing; kind chat needs it"
    ]
    wrong = problems(
        tmp_path, ["text"], request={**CHAT, "user": "{{ Key facts }}", "x": ["{% if %}"]}
    )
    assert [line.split(": ")[1] for line in wrong] == ["request.user", "request.x[0]"]
    assert 'row["Key facts"]' in wrong[0]
    unknown = problems(
        tmp_path,
        ["txt", "b c"],
        request={**CHAT, "x": "{{ row['bc'] }}", "y": "{{ lang }}"},
        matrix={"lang": ["a"]},
    )
    assert [line.split(": ", 1)[1] for line in unknown] == [
        "request.messages[0].content: 'text' is not a column (columns: txt, b c, lang); did "
        "you mean 'txt'?",
        "request.x: 'bc' is not a column (columns: txt, b c, lang); did you mean 'b c'?",
    ]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", None, "must be the name of a model"),
        ("model", " ", "must be the name of a model"),
        ("model", 5, "must be the name of a model"),
        ("messages", [], "must be a list of messages, each with a role"),
        ("n", 0, "must be a whole number above 0"),
    ],
)
def test_what_no_row_can_mend_is_told_once(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    """P30 A field that is wrong whatever the row is a problem of the job, at its place, and not one
    of every row.
    """
    (problem,) = problems(tmp_path, ["text"], request={**CHAT, field: value})
    assert problem.split(": ", 1)[1] == f"request.{field}: {message}"


def test_unknown_columns_in_includes_and_turns(tmp_path: Path) -> None:
    """P30 Included files are looked through too; `turn` is known only to jobs with turns."""
    (tmp_path / "a.md").write_text("{{ nope }}", encoding="utf-8")
    assert (
        "'nope' is not a column"
        in problems(tmp_path, ["text"], request={**CHAT, "x": '{% include "a.md" %}'})[0]
    )
    assert (
        "not a file below"
        in problems(tmp_path, ["text"], request={**CHAT, "x": '{% include "b.md" %}'})[0]
    )
    turns = {"model": "m", "messages": [{"role": "user", "content": "{{ turn }}"}]}
    assert "'turn' is not a column" in problems(tmp_path, ["text"], request=turns)[0]
    assert problems(tmp_path, ["text"], request=turns, conversation={"turns": "text"}) == []


def test_files_that_rows_name_are_a_problem_of_the_job(tmp_path: Path) -> None:
    """P30 P41 An include of what a row says, or of what is not there, is told with its place before
    any row is read, also where an included file does it and the columns are not known yet.
    """
    (tmp_path / "outer.md").write_text("{% include text %}", encoding="utf-8")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-canary", encoding="utf-8")
    for source, words in (
        ("{% include text %}", "text in quotes"),
        ('{% include "outer.md" %}', "text in quotes"),
        ('{% include ".env" %}', "hidden"),
        ('{% include "nope.md" %}', "not a file below"),
    ):
        for header in (None, ["text"]):
            (found,) = problems(tmp_path, header, request={**CHAT, "user": source})
            assert found.startswith("job.yaml:1:")
            assert "request.user: " in found
            assert words in found
            (found,) = problems(tmp_path, header, output={"columns": {"a": source}})
            assert "output.columns.a: " in found
