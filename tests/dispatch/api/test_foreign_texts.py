"""Texts of a server in messages, logs and reports: one line each, and nothing that steers."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import pytest
from hostile import CHAT, Hostile, http
from hypothesis import given
from hypothesis import strategies as st
from lab import Lab, Server

from batchgen.escapes import escape_controls, one_line

FORGED = "run 9 ended: 0 calls, exit 0"
# Line breaks of all kinds, a terminal's escapes, DEL, C1, marks and isolates of direction, half of
# a surrogate pair.
STEERING = (
    f"no\n{FORGED}\r\n\x1b[2J\x7f\x9b31m\u2028{FORGED}\u2029\u202e\u2066\u2069\u061c\ud83d\x85"
)
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def run_against(lab: Lab, status: int, body: Any, *, rows: int) -> Any:
    """`batchgen run` against a server that always answers so."""
    # The escapes of JSON can say what UTF-8 cannot.
    behaviour = http(status, json.dumps(body).encode(), {"X-Request-Id": "r\x9b1"})
    server = Hostile(lambda n: behaviour)
    thread = Server(server.start, server.stop)
    try:
        return lab.run("run", lab.job(server.url, rows=rows, retry={"attempts": 1}))
    finally:
        thread.close()


@pytest.mark.parametrize(
    ("status", "rows", "code"), [(401, 1, 4), (400, 1, 3), (400, 40, 4), (500, 1, 3)]
)
def test_a_message_is_one_line(lab: Lab, status: int, rows: int, code: int) -> None:
    """P18 P44 A message with line breaks, controls and half a character ends the run with its
    exit code, forges no line on the terminal or in run.log, and `export` still works."""
    error = {"error": {"message": STEERING, "code": STEERING if status != 401 else None}}
    done = run_against(lab, status, error, rows=rows)
    assert done.returncode == code, done.stdout + done.stderr
    log = (lab.output() / "run.log").read_text(encoding="utf-8")
    report = (lab.output() / "report.json").read_text(encoding="utf-8")
    for text in (done.stdout + done.stderr, log, report):
        assert not RAW.search(text.replace("\t", ""))
        assert not any(line.startswith(FORGED) for line in text.splitlines())
    assert lab.run("export", "job.yaml").returncode == 0
    assert lab.run("status", "job.yaml", "--json").returncode == 0


def test_names_of_a_server_do_not_steer(lab: Lab) -> None:
    """P18 A model, a tier and a finish reason are words on one line, in report.json too; the
    answer beside them is data, and stays as it came."""
    text = "line 1\nline 2 \u202e"
    choice = {"index": 0, "finish_reason": STEERING, "message": {"content": text}}
    body = {**CHAT, "model": f"m {STEERING}", "service_tier": STEERING, "choices": [choice]}
    done = run_against(lab, 200, body, rows=1)
    assert done.returncode in (0, 3), done.stderr
    report = (lab.output() / "report.json").read_text(encoding="utf-8")
    assert not RAW.search(report)
    (model,) = json.loads(report)["job"]["models"]
    assert "\n" not in model
    (row,) = lab.table()
    assert row["output"] == text
    assert "\n" not in row["finish_reason"]


@given(st.text(st.characters(exclude_categories=())))
def test_a_foreign_text_is_one_line(text: str) -> None:
    """P18 Whatever a text holds, it is one line that UTF-8 can hold and no terminal obeys."""
    shown = one_line(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not RAW.search(shown)
    assert one_line(shown) == shown
    assert not {unicodedata.category(each) for each in escape_controls(text)} & {"Zl", "Zp"}
