"""The key is nowhere in what a server sends back, and nothing else is changed for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hostile import CHAT, Behaviour, Hostile, http
from hypothesis import given
from hypothesis import strategies as st
from lab import Lab, Server

from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.api.redaction import SHORTEST_KEY, Redaction

# All that a key may consist of and JSON may escape.
KEY = 'sk/proj"Zq9\\W3xV/nightjar+Pb5='


def chat(**fields: Any) -> dict[str, Any]:
    """A chat completion whose message has these fields."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **fields}}
    return {**CHAT, "choices": [choice]}


def run_against(lab: Lab, behaviour: Behaviour, key: str, **parts: Any) -> Any:
    """One `batchgen run` of a job against a server that always answers so."""
    server = Hostile(lambda n: behaviour)
    thread = Server(server.start, server.stop)
    try:
        tables = {"tables": ["csv", "jsonl"]}
        job = lab.job(server.url, rows=1, output=tables, retry={"attempts": 1}, **parts)
        return lab.run("run", job, env=lab.environ(OPENAI_API_KEY=key))
    finally:
        thread.close()


def written(folder: Path) -> str:
    """Every byte of every file, without the escapes of JSON: `\\/`, `\\"`, `\\\\`."""
    data = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return data.decode("latin-1").replace("\\", "").replace('""', '"')


@pytest.mark.parametrize("key", ["x", "1", "test", "EMPTY", "ollama", "fifteen-letters"])
def test_a_short_key_changes_no_answer(lab: Lab, key: str) -> None:
    """P28 A key that is a word, as servers without keys are given, is left in the answers, and
    that is said once."""
    text = f"the latest: {key}, 1 x"
    done = run_against(lab, http(200, chat(content=text)), key)
    assert done.returncode == 0, done.stderr
    assert [row["output"] for row in lab.table()] == [text]
    assert done.stderr.count("fewer than 16 characters") == 1


def test_a_key_of_the_usual_length_says_nothing(lab: Lab) -> None:
    """The other side: no word about a key that is redacted."""
    done = run_against(lab, http(200, chat(content="fine")), "k" * SHORTEST_KEY)
    assert (done.returncode, "characters" in done.stderr) == (0, False)


def slashes(body: Any) -> bytes:
    """JSON as PHP writes it."""
    return json.dumps(body).replace("/", "\\/").encode()


def all_escaped(body: Any) -> bytes:
    """JSON in which each character of the key is an escape."""
    escaped = "".join(f"\\u{ord(each):04X}" for each in KEY)
    return json.dumps(body).replace(json.dumps(KEY)[1:-1], escaped).encode()


@pytest.mark.parametrize("write", [lambda body: json.dumps(body).encode(), slashes, all_escaped])
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_escaped_key_is_nowhere(lab: Lab, write: Any, status: int) -> None:
    """P40 A key with `/`, `"` and a backslash, echoed in any escape of JSON, in an answer, a name,
    a model, a message or JSON within a string, stands in no file and on no screen."""
    inside = json.dumps({"authorization": KEY})
    call = {"type": "function", "function": {"name": "f", "arguments": inside}}
    body = {
        **chat(content=f"so {KEY}", tool_calls=[call]),
        "model": f"m-{KEY}",
        KEY: [{KEY: KEY}],
        **({"error": {"message": f"{KEY} {inside}", "code": KEY}} if status != 200 else {}),
    }
    done = run_against(lab, http(status, write(body)), KEY)
    assert done.returncode in (0, 3, 5), done.stderr
    for text in (written(lab.output()), done.stdout + done.stderr):
        assert KEY.replace("\\", "") not in text.replace("\\", "")
        assert "nightjar" not in text


@pytest.mark.parametrize("write", [slashes, all_escaped])
def test_a_page_that_is_no_json_holds_no_escaped_key(lab: Lab, write: Any) -> None:
    """P40 A reply that breaks off cannot be parsed; the message that quotes it has no key."""
    done = run_against(lab, http(200, write({"a": KEY, "b": 1})[:-1]), KEY)
    assert done.returncode in (3, 5)
    text = written(lab.output()) + done.stdout + done.stderr
    assert "nightjar" not in text
    # Two characters of the key: four hex digits alone stand in many an id.
    assert not re.search(r"006e\W*u?0069", text.lower())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_a_reply_without_the_key_is_kept_byte_for_byte(value: Any) -> None:
    """P28 Any JSON without the key passes as it came, whatever its escapes and spaces."""
    for indent in (None, 1):
        body = json.dumps(value, indent=indent).encode()
        reply = Redaction(KEY).reply(Reply(headers={}, body=body))
        assert (reply.body, reply.parsed) == (body, (value,))


def test_backslashes_cost_no_time() -> None:
    """P18 A megabyte of backslashes is searched in one pass."""
    text = "\\" * 1_000_000
    assert Redaction(KEY).text(text) == text


def test_a_reply_as_deep_as_json_can_be() -> None:
    """P18 The walk through a reply needs no recursion."""
    body = b"[" * 900 + json.dumps(KEY).encode() + b"]" * 900
    assert b"[key]" in Redaction(KEY).reply(Reply(headers={}, body=body)).body
