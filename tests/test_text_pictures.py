"""Pictures and sound that come inside chats and responses."""

from __future__ import annotations

import base64
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from answering import answered, answering, chat, rows
from lab import Lab

from batchgen.maintenance import export, redo, verify
from batchgen.simulator.pictures import draw

PNG = draw("kettle", size=(64, 64), seed=1, transparent=False, form="png", compression=None)
DATA = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{DATA}"
LINK = "https://example.com/kettle.png"
ASKS = {"modalities": ["image", "text"]}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def message(content: Any, **more: Any) -> dict[str, Any]:
    reply = chat(content)
    reply["choices"][0]["message"] |= more
    return reply


def response(*output: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5}
    return {"id": "r", "status": "completed", "model": "m", "output": list(output), "usage": usage}


def text_item(text: str) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text}]}


IMAGE = {"type": "image_url", "image_url": {"url": URL}}
# The tool's status stays `generating` in some replies that hold the picture.
CALL = {"type": "image_generation_call", "id": "ig", "status": "generating", "result": DATA}
REPLIES: dict[str, tuple[dict[str, Any], str]] = {
    "images": (message("Here.", images=[IMAGE]), "Here."),
    "images alone": (message("", images=[IMAGE]), ""),
    "images, null": (message(None, images=[{"url": URL}]), ""),
    "image": (message("Here.", image={"url": URL}), "Here."),
    "parts": (message([{"type": "text", "text": "Here."}, IMAGE]), "Here."),
    "output_image": (message([{"type": "output_image", "image_url": URL}]), ""),
    "inline": (message([{"inline_data": {"mime_type": "image/png", "data": DATA}}]), ""),
    "data URL": (message(URL), ""),
    "call": (response(CALL, text_item("Here.")), "Here."),
    "call alone": (response(CALL, text_item("")), ""),
}


def of_kind(reply: dict[str, Any]) -> dict[str, Any]:
    """The job's kind and request, for a reply."""
    if "choices" in reply:
        asked = [{"role": "user", "content": "{{ text }}"}]
        return {"kind": "chat", "request": {"model": "m", "messages": asked, **ASKS}}
    tools = [{"type": "image_generation"}]
    return {"kind": "text", "request": {"model": "m", "input": "{{ text }}", "tools": tools}}


@pytest.mark.parametrize("name", REPLIES)
def test_a_picture_is_stored(lab: Lab, name: str) -> None:
    """P48 Its bytes are a file, its base64 is not in the journal, and the Batch API's file has the
    reply as it came.
    """
    reply, text = REPLIES[name]
    rows(lab, "kettle")
    parts = {"output": {"tables": ["csv", "jsonl", "openai-batch"]}, **of_kind(reply)}
    with answering(lambda body: reply) as api:
        line = answered(lab, api, **parts)["kettle"]
        job = lab.job(api.url, rows=None, **parts)
        assert lab.go(job).run.calls == 0
        assert len(api.requests) == 1
    assert (line["status"], line["output"]) == ("succeeded", text or "images/kettle.png")
    assert json.loads(line["pictures"]) == ["images/kettle.png"]
    assert (lab.output() / "images/kettle.png").read_bytes() == PNG
    with sqlite3.connect(lab.output() / "journal.db") as journal:
        ((stored,),) = journal.execute("SELECT response FROM outcomes").fetchall()
    assert len(stored) < len(DATA)
    given = json.loads((lab.output() / "results.batch.jsonl").read_text("utf-8"))
    assert given["response"]["body"] == reply
    assert verify(lab.load(job)) == []
    (lab.output() / "images/kettle.png").unlink()
    (fault,) = verify(lab.load(job))
    assert "kettle.png" in fault


@pytest.mark.parametrize(
    "picture",
    [
        {"type": "image_url", "image_url": {"url": LINK}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "image_url", "image_url": {"url": URL[:-40]}},
    ],
)
def test_what_is_no_picture_is_told(lab: Lab, picture: dict[str, Any]) -> None:
    """P37 P48 A link and a picture that does not decode leave the row incomplete, with its text;
    nothing is asked or paid for again.
    """
    rows(lab, "kettle")
    reply = message("Here.", images=[picture])
    with answering(lambda body: reply) as api:
        line = answered(lab, api, **of_kind(reply))["kettle"]
    assert (line["status"], line["output"], line["finish_reason"]) == (
        "incomplete",
        "Here.",
        "picture",
    )
    assert len(api.requests) == 1
    assert not list(lab.output().glob("images/*.png"))


def test_no_reply_claims_a_file(lab: Lab) -> None:
    """P48 A reply that names a stored picture is no answer: it could claim any file."""
    rows(lab, "kettle")
    claimed = {"path": "../../secret.png", "sha256": "0" * 64, "size": 3, "head": ""}
    reply = message("Here.", images=[{"type": "image_url", "image_url": {"url": claimed}}])
    with answering(lambda body: reply) as api:
        line = answered(lab, api, retry={"attempts": 1}, **of_kind(reply))["kettle"]
    assert line["status"] == "failed"
    assert "only batchgen stores pictures" in line["error"]


def test_redo_replaces_them(lab: Lab) -> None:
    """P48 An answer without a picture owns none; the one before is moved aside."""
    rows(lab, "kettle")
    replies = [message("Here.", images=[IMAGE]), message("None.")]
    with answering(lambda body: replies[len(api.requests) - 1]) as api:
        parts = of_kind(replies[0])
        answered(lab, api, **parts)
        redo(lab.load(lab.job(api.url, rows=None, **parts)), ["kettle"])
        line = answered(lab, api, **parts)["kettle"]
    assert (line["output"], line["pictures"]) == ("None.", "")
    assert not list(lab.output().glob("images/*.png"))
    assert len(list(lab.output().glob("images/replaced/*.png"))) == 1


def test_later_turns_are_sent_the_text(lab: Lab) -> None:
    """P13 P48 The history of a conversation has the texts alone, in the form that servers take."""
    (lab.folder / "prompts.csv").write_text("id,thread,text\na,t,one\nb,t,two\n", "utf-8")
    replies = [message([{"type": "text", "text": "Here."}, IMAGE]), message("two")]
    with answering(lambda body: replies[len(api.requests) - 1]) as api:
        parts = of_kind(replies[0])
        lab.go(lab.job(api.url, rows=None, conversation={"id": "thread"}, **parts))
        sent = json.loads(api.requests[1].partition(b"\r\n\r\n")[2])["messages"]
    assert sent[1] == {"role": "assistant", "content": [{"type": "text", "text": "Here."}]}


def test_sound_is_told(lab: Lab) -> None:
    """P48 The transcript is the output, and the summary says that there is sound."""
    rows(lab, "kettle")
    reply = message(None, audio={"id": "a", "data": "QUJD", "transcript": "Hello."})
    with answering(lambda body: reply) as api:
        job = lab.job(api.url, rows=None, **of_kind(reply))
        report = lab.go(job)
    assert lab.table()[0]["output"] == "Hello."
    assert "sound came with 1 answer" in report.line()
    assert "pictures came with" not in report.line()
    export(lab.load(job))
