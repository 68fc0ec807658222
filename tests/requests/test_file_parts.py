"""PDFs and pictures inside messages: `{{ file | data_url }}`, in chat and in responses."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from lab import Lab
from PIL import Image

from batchgen import InputError, plan, queries
from batchgen.simulator import Simulator

CHAT = [
    {"type": "text", "text": "{{ id }}"},
    {"type": "file", "file": {"filename": "{{ file }}", "file_data": "{{ file | data_url }}"}},
]
RESPONSES = [
    {"type": "input_text", "text": "{{ id }}"},
    {"type": "input_file", "filename": "{{ file }}", "file_data": "{{ file | data_url }}"},
]


def files_job(lab: Lab, url: str, kind: str, content: list[Any], **parts: Any) -> Path:
    Image.new("RGB", (20, 20), "red").save(lab.folder / "a.pdf")
    (lab.folder / "notes.txt").write_text("a note", encoding="utf-8")
    (lab.folder / "p.csv").write_text("id,file\nr1,a.pdf\n", encoding="utf-8")
    field = "messages" if kind == "chat" else "input"
    request = {"model": "m", field: [{"role": "user", "content": content}]}
    prompts = {"path": "p.csv", "id": "id"}
    return lab.job(url, rows=None, kind=kind, prompts=prompts, request=request, **parts)


@pytest.mark.parametrize(("kind", "content"), [("chat", CHAT), ("text", RESPONSES)])
def test_a_pdf_is_sent_whole(lab: Lab, api: Simulator, kind: str, content: list[Any]) -> None:
    """A PDF that a row names is a part of its message, byte for byte, as the API takes it."""
    job = files_job(lab, api.url, kind, content)
    assert lab.go(job).rows == {"succeeded": 1}
    body = queries.show(lab.load(job), "r1")[0]["request"]["body"]
    part = body["messages" if kind == "chat" else "input"][0]["content"][1]
    file = part.get("file", part)
    assert file["filename"] == "a.pdf"
    head, data = file["file_data"].split(",")
    assert head == "data:application/pdf;base64"
    assert base64.b64decode(data) == (lab.folder / "a.pdf").read_bytes()
    # Another file of the same name is another request.
    Image.new("RGB", (20, 20), "blue").save(lab.folder / "a.pdf")
    assert plan(lab.load(job)).calls == 1


def test_what_is_no_pdf_is_refused(lab: Lab) -> None:
    """P30 A file of another kind, and a PDF under a cap on cost, are refused before a call."""
    job = files_job(lab, "http://127.0.0.1:9/v1", "chat", CHAT)
    (lab.folder / "p.csv").write_text("id,file\nr1,notes.txt\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"p\.csv:2: .* is not a PNG, .* or a PDF"):
        plan(lab.load(job))
    capped = files_job(lab, "http://127.0.0.1:9/v1", "chat", CHAT, limits={"max_cost": 1})
    with pytest.raises(InputError, match="a cap on cost needs a request without 'file'"):
        plan(lab.load(capped))
