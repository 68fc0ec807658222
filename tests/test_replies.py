"""Kinds: how every shape of reply is read, and that nothing but a real answer counts as one."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.dispatch import LARGE_REPLY
from batchgen.kinds import KIND_BY_ENDPOINT, KINDS
from batchgen.recorder import reader
from batchgen.replies import MAX_TOKENS, Answer, UnreadableReplyError, Usage, read_usage, sniff
from batchgen.replies import data as data_replies
from batchgen.requests import Request


def read(kind: str, response: Any, **body: Any) -> Answer:
    return KINDS[kind].read(response, body)


def chat(content: Any = "hi", reason: Any = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": reason}]}


def response(status: str = "completed", *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"status": status, "output": [{"type": "message", "content": list(parts)}], **more}


CUT_CALL = {"type": "function_call", "status": "incomplete", "name": "f", "arguments": "{"}
HALF = {"type": "output_text", "text": "half"}
FUNCTION = {"name": "f", "arguments": "{}"}
CALL = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("reply", "text", "reason", "ended"),
    [
        (chat(), "hi", "stop", True),
        (chat(reason=None), "hi", None, True),
        (chat(reason="length"), "hi", "length", False),
        (chat(None, "length"), "", "length", False),
        (chat("", "stop"), "", "empty", False),
        (chat(None, "stop"), "", "empty", False),
        (chat("cut", "content_filter"), "cut", "content_filter", False),
        (chat(None, "stop", refusal="No."), "No.", "refusal", False),
        (chat(None, "tool_calls", tool_calls=CALL), json.dumps(CALL), "tool_calls", True),
        (chat(None, "stop", tool_calls=[]), "", "empty", False),
        (chat([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab", "stop", True),
        (chat([{"type": "reasoning", "text": "hm"}, {"text": "a"}]), "a", "stop", True),
        (chat(reason=""), "hi", None, True),
        (chat(reason=7), "hi", "7", False),
        (chat(reason=["stop"]), "hi", '["stop"]', False),
        (chat(reason={"type": "length"}), "hi", "length", False),
        (
            chat(None, "function_call", function_call=FUNCTION),
            json.dumps(FUNCTION),
            "function_call",
            True,
        ),
        (chat(None, "stop", function_call={}), "", "empty", False),
        (
            chat(None, "stop", audio={"id": "a", "transcript": "hello", "data": "AAAA"}),
            "hello",
            "stop",
            True,
        ),
        (chat(None, "stop", audio={"id": "a", "transcript": None}), "", "empty", False),
    ],
)
def test_chat(reply: Any, text: str, reason: str | None, ended: bool) -> None:
    """Finish reasons, refusals, tool calls and emptiness as the API says them; what was cut or
    refused has not ended.
    """
    answer = read("chat", reply)
    assert (answer.choices[0].text, answer.finish_reason, answer.ended) == (text, reason, ended)


@pytest.mark.parametrize(
    ("reply", "text", "reason", "ended"),
    [
        (response("completed", {"type": "output_text", "text": "hi"}), "hi", "stop", True),
        (response("completed"), "", "empty", False),
        (response("completed", {"type": "refusal", "refusal": "No."}), "No.", "refusal", False),
        (
            response(
                "incomplete",
                {"type": "output_text", "text": "h"},
                incomplete_details={"reason": "max_output_tokens"},
            ),
            "h",
            "length",
            False,
        ),
        (
            response("incomplete", incomplete_details={"reason": "content_filter"}),
            "",
            "content_filter",
            False,
        ),
        ({"status": "incomplete", "output": []}, "", "incomplete", False),
        ({"status": "incomplete"}, "", "incomplete", False),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "",
            "length",
            False,
        ),
        (
            response("incomplete", incomplete_details={"reason": "max_tool_calls"}),
            "",
            "max_tool_calls",
            False,
        ),
        (
            response("incomplete", HALF, incomplete_details={"reason": "steered"}),
            "half",
            "steered",
            False,
        ),
        (
            response("incomplete", HALF, incomplete_details={"reason": "stop"}),
            "half",
            "incomplete",
            False,
        ),
        # A completed response whose parts say otherwise.
        (
            response("completed", HALF, incomplete_details={"reason": "max_output_tokens"}),
            "half",
            "length",
            False,
        ),
        (
            {
                "status": "completed",
                "output": [{"type": "message", "status": "in_progress", "content": [HALF]}],
            },
            "half",
            "incomplete",
            False,
        ),
        (
            {"status": "completed", "output": [CUT_CALL]},
            json.dumps([CUT_CALL]),
            "incomplete",
            False,
        ),
        (
            {"status": "completed", "output": [{"type": "message", "content": "hi"}]},
            "hi",
            "stop",
            True,
        ),
        (
            response("completed", {"type": "reasoning_text", "text": "hm"}, HALF),
            "half",
            "stop",
            True,
        ),
        (
            {
                "status": "completed",
                "output": [
                    {"type": "image_generation_call", "status": "failed", "result": None},
                    {"type": "message", "content": [HALF]},
                ],
            },
            "half",
            "picture",
            False,
        ),
        ({"status": "completed", "output": [{"type": "reasoning"}]}, "", "empty", False),
    ],
)
def test_text(reply: Any, text: str, reason: str, ended: bool) -> None:
    """Responses: completed, cut by length, by filter or by what only the server has a word for,
    refused, or billed without a word.
    """
    answer = read("text", reply)
    assert (answer.choices[0].text, answer.finish_reason, answer.ended) == (text, reason, ended)


@pytest.mark.parametrize(
    "sort", ["function_call", "custom_tool_call", "computer_call", "shell_call"]
)
def test_text_tool_calls(sort: str) -> None:
    """A call that the caller is to make is an answer, whatever its sort; beside text, the
    text is.
    """
    call = {"type": sort, "name": "f", "arguments": "{}"}
    answer = read("text", {"status": "completed", "output": [{"type": "reasoning"}, call]})
    assert (answer.choices[0].text, answer.finish_reason, answer.ended) == (
        json.dumps([call]),
        "tool_calls",
        True,
    )


def test_several_choices() -> None:
    """With n above 1 each choice has its text and reason, in the order of their index; one that was
    cut cuts the row.
    """
    choices = [
        {"index": 1, "message": {"content": "b"}, "finish_reason": "length"},
        {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"},
    ]
    answer = read("chat", {"choices": choices, "model": "m-2026", "service_tier": "flex"}, n=2)
    assert [(choice.text, choice.finish_reason) for choice in answer.choices] == [
        ("a", "stop"),
        ("b", "length"),
    ]
    assert (answer.ended, answer.finish_reason, answer.model, answer.service_tier) == (
        False,
        "length",
        "m-2026",
        "flex",
    )


def test_fewer_choices_than_asked() -> None:
    """A server that does not know `n` sends one choice: what came is kept, and the row says that it
    is not all.
    """
    answer = read(
        "chat", {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}, n=3
    )
    assert ([choice.text for choice in answer.choices], answer.ended, answer.finish_reason) == (
        ["a"],
        False,
        "fewer_choices",
    )


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [[1, 2], [3]], "n": 1}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": "a", "n": 3}, 3),
        ({}, 1),
    ],
)
def test_each_prompt_of_a_completion_has_its_choices(body: dict[str, Any], wanted: int) -> None:
    """Fewer choices than prompts times `n` are kept and said to be fewer; a recorded reply, read
    without its request, is as it stands.
    """
    choice = {"text": "a", "finish_reason": "stop"}
    assert read("completion", {"choices": [choice] * wanted}, **body).ended
    if wanted > 1:
        fewer = read("completion", {"choices": [choice] * (wanted - 1)}, **body)
        assert (len(fewer.choices), fewer.ended, fewer.finish_reason) == (
            wanted - 1,
            False,
            "fewer_choices",
        )


def test_completion() -> None:
    """The legacy completion's text."""
    answer = read("completion", {"choices": [{"text": " x", "finish_reason": "stop"}]})
    assert (answer.choices[0].text, answer.ended) == (" x", True)


def test_images() -> None:
    """Bytes are pictures still to be written; fewer than asked is no end."""
    reply = {"data": [{"b64_json": "QUJD"}, {"b64_json": "REVG"}]}
    assert read("image", reply, n=2).pictures == ("QUJD", "REVG")
    assert read("image", reply, n=2).ended
    fewer = read("image_edit", reply, n=3)
    assert (fewer.ended, fewer.finish_reason) == (False, "fewer_images")
    stored = read("image", {"data": [{"path": "images/a.png", "sha256": "x", "size": 3}]})
    assert (stored.choices[0].text, stored.pictures) == ("images/a.png", ())


def test_a_link_is_no_picture() -> None:
    """P37 A link in place of bytes fails the row for good, with the way out; nothing is
    downloaded.
    """
    with pytest.raises(UnreadableReplyError, match="b64_json") as caught:
        read("image", {"data": [{"url": "https://example.com/a.png"}]})
    assert caught.value.final
    # The picture that came is kept, and the row says that one is missing.
    beside = {"data": [{"b64_json": "QUJD"}, {"url": "https://example.com/a.png"}]}
    answer = read("image", beside, n=2)
    assert (answer.pictures, answer.finish_reason) == (("QUJD",), "fewer_images")


def test_embeddings() -> None:
    """Vectors as a list or as base64 of float32, one for each input, in the order of their
    index.
    """
    packed = base64.b64encode(struct.pack("<3f", 0.1, -2.5, 1e-9)).decode()
    assert (
        read("embedding", {"data": [{"embedding": packed}]}, input="a").choices[0].text
        == "[0.100000001,-2.5,9.99999972e-10]"
    )
    assert struct.pack("<3f", *json.loads("[0.100000001,-2.5,9.99999972e-10]")) == base64.b64decode(
        packed
    )
    assert (
        read("embedding", {"data": [{"embedding": [1, 0.5]}]}, input=[1, 2, 3]).choices[0].text
        == "[1,0.5]"
    )
    two = {"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]}
    assert read("embedding", two, input=["a", "b"]).choices[0].text == "[[1],[2]]"
    assert read("embedding", two, input=[[1], [2]]).choices[0].text == "[[1],[2]]"


@pytest.mark.parametrize(("size", "off"), [(LARGE_REPLY + 1, True), (100, False)])
def test_large_replies_are_read_off_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, size: int, off: bool
) -> None:
    """P19 Reading a reply of megabytes takes seconds: other calls and their deadlines do not wait
    for it.
    """
    loops: list[bool] = []

    def spied(reply: Any, body: Any) -> Answer:
        loops.append(asyncio._get_running_loop() is None)
        return KINDS["embedding"].read(reply, body)

    monkeypatch.setitem(KIND_BY_ENDPOINT, "/spied", replace(KINDS["embedding"], check=spied))
    folder: Any = None
    request = Request(
        fingerprint=b"k",
        endpoint="/spied",
        body={"input": "a"},
        input_bound=1,
        answer_bound=0,
        pictures=0,
    )
    received = asyncio.run(
        reader.FolderReplyReader(folder, folder).receive(
            request, {"data": [{"embedding": [1]}]}, b" " * size
        )
    )
    assert received.answer.choices[0].text == "[1]"
    assert loops == [off]


@given(
    st.lists(
        st.floats()
        | st.integers(-(10**400), 10**400)
        | st.sampled_from([1e308, -1e308, True, None, "1", [1.0]]),
        max_size=6,
    )
    | st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode())
    | st.text(max_size=9)
)
@settings(deadline=None)
def test_a_check_of_an_embedding_takes_what_its_reader_takes(embedding: Any) -> None:
    """P18 P19 A run checks an embedding without making its text, which would take milliseconds on
    the event loop, and takes and refuses the same replies: only numbers that JSON has.
    """
    reply = {"data": [{"embedding": embedding}], "model": "m"}
    kind = KINDS["embedding"]
    assert kind.check is not None
    try:
        read = kind.read(reply, {"input": "a"})
    except UnreadableReplyError:
        with pytest.raises(UnreadableReplyError):
            kind.check(reply, {"input": "a"})
        return
    checked = kind.check(reply, {"input": "a"})
    assert checked.choices[0].text == ""
    assert replace(checked, choices=read.choices) == read
    numbers = json.loads(read.choices[0].text)
    assert numbers
    assert all(type(number) in (int, float) and abs(number) <= 10**400 for number in numbers)
    assert "NaN" not in read.choices[0].text
    assert "Infinity" not in read.choices[0].text


def test_a_run_makes_no_text_of_an_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    """P19 What a run does with the reply to an embedding costs its text nothing: nobody makes it
    before the tables.
    """

    def unwanted(*args: object) -> Any:
        raise AssertionError("the text is made")

    kind = replace(KINDS["embedding"], read=unwanted)
    monkeypatch.setitem(KIND_BY_ENDPOINT, "/embeddings", kind)
    monkeypatch.setattr(data_replies, "_decimal", unwanted)
    request = Request(
        fingerprint=b"k",
        outcome_id="r1",
        axes={},
        id="r1",
        endpoint="/embeddings",
        body={"input": "x"},
        input_bound=1,
        answer_bound=0,
        pictures=0,
    )
    reply: dict[str, Any] = {"data": [{"embedding": "AAAAPwAAgD8="}]}
    folder: Any = None
    reading = reader.FolderReplyReader(folder, folder).receive(request, reply, b"{}")
    assert asyncio.run(reading).answer.choices[0].text == ""


def test_many_embeddings_are_written_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """P19 json holds Python's lock for all that it is given at once, and would stop the event loop
    from any thread.
    """
    largest: list[int] = []
    dumps = json.dumps

    def spied(value: Any, **options: Any) -> str:
        largest.append(len(value) * (len(value[0]) if isinstance(value[0], list) else 1))
        return dumps(value, **options)

    monkeypatch.setattr("batchgen.replies.data.json.dumps", spied)
    vectors = {"data": [{"embedding": [0.5] * 64}] * 200}
    text = read("embedding", vectors, input=["a"] * 200).choices[0].text
    assert json.loads(text) == [[0.5] * 64] * 200
    assert max(largest) == 64


def test_moderation() -> None:
    """A verdict and the categories that were hit, one for each input."""
    verdict = {"flagged": True, "categories": {"violence": True, "hate": False}}
    assert json.loads(read("moderation", {"results": [verdict]}, input="a").choices[0].text) == {
        "flagged": True,
        "categories": ["violence"],
    }
    assert (
        len(
            json.loads(
                read("moderation", {"results": [verdict] * 2}, input=["a", "b"]).choices[0].text
            )
        )
        == 2
    )


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        *((kind, {}) for kind in KINDS),
        ("chat", {"choices": None}),
        ("chat", {"choices": []}),
        ("chat", {"choices": [None]}),
        ("chat", {"choices": [{}]}),
        ("chat", {"choices": [{"message": {"content": 7}}]}),
        ("chat", {"choices": [{"message": {"content": ["x"]}}]}),
        ("chat", {"id": None, "choices": None, "error": {"message": "x"}}),
        ("completion", {"choices": [{"text": None}]}),
        ("text", {"status": "failed", "error": {"code": "server_error"}, "output": []}),
        ("text", {"status": "completed", "output": []}),
        ("text", {"status": "in_progress", "output": [1]}),
        ("text", {"status": ["completed"]}),
        ("text", {"status": "completed"}),
        ("text", {"status": "completed", "output": None}),
        ("text", {"status": "incomplete", "output": [1]}),
        ("text", {"status": "incomplete", "output": {"a": 1}}),
        ("image", {"data": [{}]}),
        ("image", {"data": [{"b64_json": ""}]}),
        ("image", {"data": [{"b64_json": 5}]}),
        ("embedding", {"data": [{"embedding": []}]}),
        ("embedding", {"data": [{"embedding": ""}]}),
        ("embedding", {"data": [{"embedding": "AAA="}]}),
        ("embedding", {"data": [{"embedding": "%%%"}]}),
        ("embedding", {"data": [{"embedding": "é"}]}),
        ("embedding", {"data": [{"embedding": [True]}]}),
        ("embedding", {"data": [{"embedding": ["1"]}]}),
        ("embedding", {"data": [{"embedding": [float("nan")]}]}),
        (
            "embedding",
            {"data": [{"embedding": base64.b64encode(struct.pack("<f", float("inf"))).decode()}]},
        ),
        ("embedding", {"data": [{"embedding": [1]}, {"embedding": [2]}]}),
        ("moderation", {"results": [{"flagged": "yes"}]}),
        ("moderation", {"results": []}),
    ],
)
def test_junk_is_no_answer(kind: str, reply: Any) -> None:
    """P18 Whatever is not a real answer is unreadable, though its status was 200."""
    with pytest.raises(UnreadableReplyError):
        read(kind, reply, input="a")


KEYS = st.sampled_from(
    [
        *(
            "choices",
            "message",
            "content",
            "text",
            "finish_reason",
            "refusal",
            "tool_calls",
            "error",
            "index",
            "status",
        ),
        *(
            "output",
            "type",
            "data",
            "b64_json",
            "url",
            "path",
            "embedding",
            "results",
            "flagged",
            "categories",
            "usage",
        ),
        *(
            "prompt_tokens",
            "prompt_tokens_details",
            "cached_tokens",
            "incomplete_details",
            "reason",
            "model",
            "function_call",
        ),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["completed", "incomplete", "message", "stop", "length", "function_call", "AAAAAA=="]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


@given(
    reply=st.dictionaries(KEYS, VALUES, max_size=5),
    body=st.dictionaries(st.sampled_from(["n", "input"]), VALUES),
)
@settings(max_examples=400, deadline=None)
def test_any_json_is_an_answer_or_unreadable(reply: Any, body: Any) -> None:
    """P18 No reply raises anything but UnreadableReplyError, and an answer has a choice and a
    reason.
    """
    for kind in KINDS.values():
        try:
            answer = kind.read(reply, body)
        except UnreadableReplyError:
            continue
        assert answer.choices
        assert isinstance(answer.finish_reason, str)
        assert answer.finish_reason


def test_usage() -> None:
    """Both spellings are read; what is absent or odd is unknown, never 0."""
    assert read_usage(
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 9,
                "prompt_tokens_details": {
                    "cached_tokens": 4,
                    "cache_write_tokens": 2,
                    "image_tokens": 1,
                    "audio_tokens": 6,
                },
                "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 5},
            }
        }
    ) == Usage(
        input_tokens=10,
        output_tokens=9,
        cached_tokens=4,
        cache_write_tokens=2,
        image_tokens=1,
        audio_tokens=6,
        reasoning_tokens=3,
        output_audio_tokens=5,
    )
    assert read_usage(
        {
            "usage": {
                "input_tokens": 1,
                "output_tokens": 2,
                "input_tokens_details": {"cached_tokens": 1},
            }
        }
    ) == Usage(input_tokens=1, output_tokens=2, cached_tokens=1)
    odd: tuple[Any, ...] = (None, "7", 1.5, -1, True, [], {}, MAX_TOKENS + 1, 10**400)
    for value in odd:
        assert (
            read_usage({"usage": {"prompt_tokens": value, "prompt_tokens_details": value}})
            == Usage()
        )
        assert read_usage({"usage": value}) == Usage()


def test_sniff() -> None:
    """A picture's format is what its first bytes say."""
    assert [
        sniff(data)
        for data in (
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe0",
            b"RIFF....WEBP",
            b"GIF89a",
            b"RIFF....WAVE",
            b"",
        )
    ] == [*("png", "jpeg", "webp", "gif"), None, None]


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        # Cache hits beside the other counts: DeepSeek, Moonshot.
        (
            {"prompt_tokens": 100, "completion_tokens": 1, "prompt_cache_hit_tokens": 90},
            {"input_tokens": 100, "cached_tokens": 90, "output_tokens": 1},
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 1, "cached_tokens": 90},
            {"input_tokens": 100, "cached_tokens": 90, "output_tokens": 1},
        ),
        # Anthropic counts the cached part apart from the input.
        (
            {
                "input_tokens": 5,
                "output_tokens": 1,
                "cache_read_input_tokens": 90,
                "cache_creation_input_tokens": 10,
            },
            {
                "input_tokens": 105,
                "cached_tokens": 90,
                "cache_write_tokens": 10,
                "output_tokens": 1,
            },
        ),
        # Hidden reasoning: xAI counts it apart, Gemini only in the total.
        (
            {
                "prompt_tokens": 10_120,
                "completion_tokens": 1_499,
                "total_tokens": 14_428,
                "completion_tokens_details": {"reasoning_tokens": 2_809},
            },
            {"input_tokens": 10_120, "output_tokens": 4_308, "reasoning_tokens": 2_809},
        ),
        (
            {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
            {"input_tokens": 20, "output_tokens": 603},
        ),
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 100,
                "completion_tokens_details": {"reasoning_tokens": 5_000},
            },
            {"input_tokens": 20, "output_tokens": 5_100, "reasoning_tokens": 5_000},
        ),
        ({"prompt_tokens": 5, "total_tokens": 5}, {"input_tokens": 5}),
        # Anthropic counts the cached input apart, and proxies that add its names do not.
        (
            {"input_tokens": 900, "output_tokens": 5, "cache_read_input_tokens": 100},
            {"input_tokens": 1_000, "output_tokens": 5, "cached_tokens": 100},
        ),
        (
            {"prompt_tokens": 900, "completion_tokens": 5, "cache_read_input_tokens": 100},
            {"input_tokens": 900, "output_tokens": 5, "cached_tokens": 100},
        ),
        (
            {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14, "cached_tokens": 8},
            {"input_tokens": 9, "output_tokens": 5, "cached_tokens": 8},
        ),
        # Searches that the server made.
        ({"server_tool_use": {"web_search_requests": 2}}, {"web_searches": 2}),
        # Pictures: text has another price than what was drawn.
        (
            {
                "input_tokens": 5,
                "output_tokens": 110,
                "output_tokens_details": {"text_tokens": 10, "image_tokens": 100},
            },
            {
                "input_tokens": 5,
                "output_tokens": 110,
                "output_text_tokens": 10,
                "output_image_tokens": 100,
            },
        ),
        # The server's own bill: OpenRouter, xAI, Perplexity, DeepInfra.
        ({"cost": 0.00001}, {"cost": 10_000}),
        ({"cost": 0}, {"cost": 0}),
        ({"cost_in_usd_ticks": 2_709_000, "cost": 9}, {"cost": 270_900}),
        ({"cost": {"request_cost": 0.005, "total_cost": 0.0051}}, {"cost": 5_100_000}),
        ({"estimated_cost": 0.5}, {"cost": 500_000_000}),
        (
            {
                "cost": 0.01,
                "is_byok": True,
                "cost_details": {"upstream_inference_cost": 0.2},
            },
            {"cost": 210_000_000},
        ),
        ({"cost": 0, "is_byok": True}, {}),
        ({"cost": -1, "prompt_tokens": 1}, {"input_tokens": 1}),
        ({"cost": True, "prompt_tokens": 1}, {"input_tokens": 1}),
        ({"cost": "1", "prompt_tokens": 1}, {"input_tokens": 1}),
        ({"cost": 1e300, "prompt_tokens": 1}, {"input_tokens": 1}),
    ],
)
def test_usage_of_other_providers(usage: dict[str, Any], read: dict[str, int]) -> None:
    """Cached, hidden and billed parts are found wherever a provider puts them."""
    assert read_usage({"usage": usage}) == Usage(**read)


COUNTS = st.none() | st.integers(-1, 2_000) | st.sampled_from([True, 1.5, "7", MAX_TOKENS + 1])
NAMES = (
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_tokens",
    "prompt_cache_hit_tokens",
    "cache_creation_input_tokens",
    "reasoning_tokens",
    "cost",
    "cost_in_usd_ticks",
)
DETAILS = st.none() | st.dictionaries(
    st.sampled_from(
        ["cached_tokens", "cache_write_tokens", "reasoning_tokens", "image_tokens", "text_tokens"]
    ),
    COUNTS,
)


@given(
    st.dictionaries(st.sampled_from(NAMES), COUNTS),
    DETAILS,
    DETAILS,
)
@settings(deadline=None)
def test_made_up_usage_never_contradicts_itself(
    counts: dict[str, Any], inside: Any, outside: Any
) -> None:
    """P25 Parts are within their whole, nothing of the total is lost, and no count is negative."""
    details = {"prompt_tokens_details": inside, "completion_tokens_details": outside}
    usage = read_usage({"usage": {**counts, **details}})
    if usage.input_tokens is not None:
        assert (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0) <= usage.input_tokens
    if usage.output_tokens is not None and "total_tokens" not in counts:
        assert (usage.reasoning_tokens or 0) <= usage.output_tokens
    total = counts.get("total_tokens")
    if type(total) is int and 0 <= total <= MAX_TOKENS and usage.input_tokens is not None:
        assert usage.input_tokens + (usage.output_tokens or 0) >= total
    assert usage.cost is None or usage.cost >= 0
