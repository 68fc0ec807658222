"""Numbers that JSON has not: NaN, Infinity and 1e400 become null when a reply is received."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile import CHAT, Hostile, http
from lab import Lab, Server

from batchgen.batch_format import request_line
from batchgen.replies import parse

NUMBERS = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400 + ".0"]


def reply(number: str) -> bytes:
    """A chat completion with such a number beside its answer."""
    choice = {**CHAT["choices"][0], "logprobs": {"content": [{"logprob": "NUMBER"}]}}
    body = json.dumps({**CHAT, "choices": [choice], "score": "NUMBER"})
    return body.replace('"NUMBER"', number).encode()


def strict(text: str) -> Any:
    """JSON by the standard: it has no NaN and no Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def files(folder: Path) -> list[Any]:
    """Every line of every JSONL table, as JSON by the standard."""
    lines = [line for path in folder.rglob("*.jsonl") for line in path.read_text().splitlines()]
    return [strict(line) for line in lines]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_answer_beside_it_is_kept(lab: Lab, number: str) -> None:
    """P18 P28 Online, the answer is recorded and paid once; the tables are JSON, a column that
    shows the number is empty, and `show` and `run-batch` can write it."""
    server = Hostile(lambda n: http(200, reply(number)))
    thread = Server(server.start, server.stop)
    try:
        job = lab.job(
            server.url,
            rows=1,
            output={
                "tables": ["csv", "jsonl"],
                "columns": {"score": "{{ response.score }}", "all": "{{ response | tojson }}"},
            },
        )
        done = lab.run("run", job)
        assert done.returncode == 0, done.stderr
        source = lab.folder / "in.jsonl"
        body = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "x"}]}
        source.write_bytes(request_line("a", "/chat/completions", body))
        batch = ("run-batch", "-i", source, "-o", "out.jsonl", "--base-url", server.url)
        for _ in range(2):
            sent = lab.run(*batch)
            assert sent.returncode == 0, sent.stdout + sent.stderr
        assert len(server.requests) == 2
    finally:
        thread.close()
    (record,) = files(lab.output())
    assert record["output"] == "a real answer"
    assert strict(record["all"])["score"] is None
    (line,) = [strict(line) for line in (lab.folder / "out.jsonl").read_text().splitlines()]
    assert line["response"]["body"]["score"] is None
    shown = lab.run("show", job, "r1", "--json")
    assert strict(shown.stdout), shown.stderr


@pytest.mark.parametrize("number", NUMBERS)
def test_only_such_numbers_change(number: str) -> None:
    """The other side: a number in a string, and the largest that a float holds, stay."""
    text = f'[{number}, "{number}", 1.7e308, 1e-400, -0.0, 7]'
    assert parse(text).value == [None, number, 1.7e308, 0.0, -0.0, 7]
    assert parse(text[: text.index("[") + 1] + text[text.index('"') :]).as_sent
