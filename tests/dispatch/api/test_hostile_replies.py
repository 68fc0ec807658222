"""What becomes of replies in which anything may stand: over a socket, for each endpoint."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from answering import answered, answering, chat, rows
from lab import Lab

PRICE = {"gpt-5.6-luna": {"input": 2, "output": 6}}
COUNTS = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
# 10 tokens of input and 5 of output, by PRICE.
COST = "0.00005"
GIF = base64.b64encode(
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
).decode()


def message(content: Any, **more: Any) -> dict[str, Any]:
    """A chat whose message has other fields, too."""
    reply = chat(content)
    reply["choices"][0]["message"] |= more
    return reply


def item(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "status": "completed", **fields}


def response(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"status": "completed", "output": list(output), "usage": COUNTS, **fields}


HI = item("message", content=[{"type": "output_text", "text": "hi"}])
PART = {"type": "image_url", "image_url": {"url": ""}}
TWO = [{"index": "1", "text": "b", "finish_reason": "stop"}, {"index": "0", "text": "a"}]

# Status, finish reason or reason of the failure, output and cost of each reply.
Wanted = tuple[str, str, str, str]
HALF: Wanted = ("incomplete", "length", "hi", COST)
DONE: Wanted = ("succeeded", "stop", "hi", COST)
UNPRICED: Wanted = ("succeeded", "stop", "hi", "")
EMPTY: Wanted = ("incomplete", "empty", "", COST)
PICTURE: Wanted = ("incomplete", "picture", "hi", COST)
CUT: Wanted = ("incomplete", "incomplete", "hi", COST)
JUNK: Wanted = ("failed", "invalid_response", "", COST)
ERROR: Wanted = ("failed", "server", "", COST)

CHATS: dict[str, tuple[Any, Wanted]] = {
    "finish as a list": (chat(finish=["stop"]), ("incomplete", '["stop"]', "hi", COST)),
    "finish as an object": (chat(finish={"type": "length"}), HALF),
    "finish as a number": (chat(finish=0), ("incomplete", "0", "hi", COST)),
    "no content, reasoning": (message(None, reasoning_content="hm"), EMPTY),
    "reasoning as a part": (chat([{"type": "reasoning", "text": "hm"}, {"text": "hi"}]), DONE),
    "content as a number": (chat(7), JUNK),
    "content that names a file": (chat({"path": "/etc/passwd"}), JUNK),
    "part that names a file": (chat([{"path": "images/a.png"}, {"text": "hi"}]), JUNK),
    "refusal as a list": (message(None, refusal=["no"]), EMPTY),
    "calls as a text": (message(None, tool_calls="f()"), EMPTY),
    "no choices": ({**chat(), "choices": []}, JUNK),
    "choices in choices": ({**chat(), "choices": [[]]}, JUNK),
    "a picture without bytes": (message("hi", images=[PART]), PICTURE),
    "a picture that is nothing": (message("hi", images=[{}]), PICTURE),
    "a picture as a text": (message("hi", images=[f"data:image/gif;base64,{GIF}"]), DONE),
    "usage as a text": (chat(usage="15 tokens"), UNPRICED),
    "usage as texts": (chat(usage={"prompt_tokens": "10", "completion_tokens": "5"}), UNPRICED),
    "negative counts": (chat(usage={"prompt_tokens": -10, "completion_tokens": 5}), UNPRICED),
    "enormous counts": (chat(usage={"prompt_tokens": 10**30, "completion_tokens": 5}), UNPRICED),
    "counts with a point": (chat(usage={"prompt_tokens": 10.0, "completion_tokens": 5.0}), DONE),
    "both spellings": (chat(usage={**COUNTS, "prompt_tokens": 0, "completion_tokens": 0}), DONE),
    "an empty error": ({**chat(), "error": {}, "detail": "x"}, DONE),
    "an error as a list": ({**chat(), "error": ["x"]}, ERROR),
    "an error in a choice": ({**chat(), "choices": [{"error": True}]}, ERROR),
}
TEXTS: dict[str, tuple[Any, Wanted]] = {
    "an item in progress": (response({**HI, "status": "in_progress"}), CUT),
    "details of a cut": (response(HI, incomplete_details={"reason": "max_output_tokens"}), HALF),
    "cut for no reason": (response(HI, status="incomplete", incomplete_details=["x"]), CUT),
    "ended and incomplete": (
        response(HI, status="incomplete", incomplete_details={"reason": "stop"}),
        CUT,
    ),
    "content as a text": (response(item("message", content="hi")), DONE),
    "reasoning as a part": (
        response(item("message", content=[{"type": "reasoning_text", "text": "hm"}]), HI),
        DONE,
    ),
    "a picture that failed": (response(item("image_generation_call", result=None), HI), PICTURE),
    "status as a list": (response(HI, status=["completed"]), JUNK),
    "output as an object": (response(HI, output={"x": HI}), JUNK),
    "an error beside it": (response(HI, error={"code": "x", "message": "no"}), ERROR),
    "failed without counts": (
        response(status="failed", error={"code": "server_error"}, usage=None),
        ("failed", "server", "", ""),
    ),
}
COMPLETIONS: dict[str, tuple[Any, Wanted]] = {
    "text as null": ({"choices": [{"text": None}], "usage": COUNTS}, JUNK),
    "finish as a list": (
        {"choices": [{"text": "hi", "finish_reason": ["length"]}], "usage": COUNTS},
        ("incomplete", '["length"]', "hi", COST),
    ),
    "an error in a choice": (
        {"choices": [{"text": "hi", "error": {"code": 404}}]},
        ("failed", "not_found", "", "0.0"),
    ),
}
EMBEDDINGS: dict[str, tuple[Any, Wanted]] = {
    "numbers as texts": ({"data": [{"embedding": ["1"]}]}, ("failed", "invalid_response", "", "")),
    "two for one": ({"data": [{"embedding": [1]}] * 2}, ("failed", "invalid_response", "", "")),
    "an error in its place": (
        {"data": [{"embedding": None, "error": {"code": 400, "message": "no"}}]},
        ("failed", "bad_request", "", "0.0"),
    ),
}
MODERATIONS: dict[str, tuple[Any, Wanted]] = {
    "flagged as a text": (
        {"results": [{"flagged": "false"}]},
        ("failed", "invalid_response", "", ""),
    ),
    "two for one": (
        {"results": [{"flagged": True}, {"flagged": False}]},
        ("failed", "invalid_response", "", ""),
    ),
}
IMAGES: dict[str, tuple[Any, Wanted]] = {
    "no bytes": ({"data": [{"b64_json": ""}]}, ("failed", "invalid_response", "", "")),
    "a path": ({"data": [{"path": "../x"}]}, ("failed", "invalid_response", "", "")),
    "a link without an address": (
        {"data": [{"url": ""}]},
        ("failed", "invalid_response", "", ""),
    ),
    "one_of_two": (
        {"data": [{"index": 1, "error": "x"}, {"index": 0, "b64_json": GIF}]},
        ("incomplete", "fewer_images", "images/one_of_two", ""),
    ),
    "refused": (
        {"data": [{"error": {"code": "moderation_blocked", "message": "no"}}]},
        ("failed", "policy", "", ""),
    ),
}
MODEL = {"model": "gpt-5.6-luna"}
ASKED = {"role": "user", "content": "{{ text }}"}


@pytest.mark.parametrize(
    ("kind", "request_", "replies"),
    [
        ("chat", {"messages": [ASKED]}, CHATS),
        ("text", {"input": "{{ text }}"}, TEXTS),
        ("completion", {"prompt": "{{ text }}"}, COMPLETIONS),
        ("embedding", {"input": "{{ text }}"}, EMBEDDINGS),
        ("moderation", {"input": "{{ text }}"}, MODERATIONS),
        ("image", {"prompt": "{{ text }}"}, IMAGES),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_becomes_of_it(
    lab: Lab, kind: str, request_: dict[str, Any], replies: Mapping[str, tuple[Any, Wanted]]
) -> None:
    """P18 P25 The run goes on; nothing is called succeeded that is not whole, and a cost is what
    the reply says, or unknown.
    """
    rows(lab, *replies)

    def reply(body: dict[str, Any]) -> Any:
        text = json.dumps(body)
        return next(sent for name, (sent, _) in replies.items() if json.dumps(name) in text)

    with answering(reply) as api:
        table = answered(
            lab,
            api,
            kind=kind,
            request={**MODEL, **request_},
            pricing=PRICE,
            retry={"attempts": 1},
            limits={"concurrency": 4},
        )
    failures = {line["id"]: line["reason"] for line in lab.table(which="errors")}
    made = {
        name: (
            line["status"],
            failures[name] if line["status"] == "failed" else line["finish_reason"],
            line["output"].removesuffix(".gif"),
            line["cost"],
        )
        for name, line in table.items()
    }
    assert made == {name: wanted for name, (_, wanted) in replies.items()}
