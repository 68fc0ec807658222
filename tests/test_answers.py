"""What a server's reply comes to in the table: its status, its words, its tokens and its cost."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
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


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_cache_hits_beside_the_other_counts(lab: Lab) -> None:
    """P25 Cache hits that DeepSeek and Moonshot count beside the others have the cached price."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        hits = {"deepseek": "prompt_cache_hit_tokens", "moonshot": "cached_tokens"}[asked(body)]
        counts = {"prompt_tokens": 100_000, "completion_tokens": 10, "total_tokens": 100_010}
        return chat(usage={**counts, hits: 99_000})

    rows(lab, "deepseek", "moonshot")
    price = {"gpt-5.6-luna": {"input": 0.15, "cached_input": 0.003, "output": 0.6}}
    with answering(reply) as api:
        table = answered(lab, api, pricing=price)
    for line in table.values():
        assert (line["cached_tokens"], float(line["cost"])) == ("99000", 0.000453)


def test_reasoning_outside_the_completion(lab: Lab) -> None:
    """P25 What the total has beyond the input and the output is output, and is paid for."""
    usage = {
        "grok": {
            "prompt_tokens": 10_120,
            "completion_tokens": 1_499,
            "total_tokens": 14_428,
            "prompt_tokens_details": {"cached_tokens": 128},
            "completion_tokens_details": {"reasoning_tokens": 2_809},
        },
        "gemini": {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
    }
    rows(lab, *usage)
    price = {"gpt-5.6-luna": {"input": 2, "cached_input": 0.3, "output": 6}}
    with answering(lambda body: chat(usage=usage[asked(body)])) as api:
        table = answered(lab, api, pricing=price)
    assert float(table["grok"]["cost"]) == 0.0458704
    assert table["gemini"]["output_tokens"] == "603"


@pytest.mark.parametrize("cap", [6_000, 100])
def test_max_cost_holds_for_hidden_reasoning(lab: Lab, cap: int) -> None:
    """P25 Reasoning that is counted apart does not pass the cap on money, be it within the cap on
    the answer or beyond.
    """
    counts = {"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 5_120}
    rows(lab, *(f"q{n}" for n in range(60)))
    with answering(lambda _: chat(usage=counts)) as api:
        job = lab.job(
            api.url,
            rows=None,
            request={
                "model": "m",
                "max_completion_tokens": cap,
                "messages": [{"role": "user", "content": "{{ text }}"}],
            },
            pricing={"m": {"input": 2, "output": 6}},
            limits={"max_cost": 0.1},
        )
        assert lab.run("run", job).returncode == 5
    assert len(api.requests) == 3
    assert sum(float(line["cost"] or 0) for line in lab.table()) == pytest.approx(0.09192)
