"""A server whose replies a test makes, and a job that asks it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hostile import Hostile, http
from lab import Lab, Server

Reply = Callable[[dict[str, Any]], dict[str, Any]]


@contextmanager
def answering(reply: Reply) -> Iterator[Hostile]:
    """A server that answers each request's body with `reply`."""

    def script(n: int) -> Any:
        return http(200, reply(json.loads(hostile.requests[n - 1].partition(b"\r\n\r\n")[2])))

    hostile = Hostile(script)
    server = Server(hostile.start, hostile.stop)
    try:
        yield hostile
    finally:
        server.close()


def asked(body: dict[str, Any]) -> str:
    """What the user's message says."""
    return str(body["messages"][-1]["content"])


def chat(content: Any = "hi", finish: Any = "stop", usage: Any = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    counted = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "x", "model": "m", "choices": [choice], "usage": usage or counted}


def rows(lab: Lab, *texts: str) -> None:
    """A prompts file whose rows are named as their texts."""
    with open(lab.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *((text, text) for text in texts)])


def answered(lab: Lab, api: Hostile, **parts: Any) -> dict[str, dict[str, str]]:
    """The lines of the results table by id, after a run over the prompts that are there."""
    lab.go(lab.job(api.url, rows=None, **parts))
    return {line["id"]: line for line in lab.table()}
