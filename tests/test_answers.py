"""What a server's reply comes to in the table: its status, its words, its tokens and its cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from answering import answered, answering, asked, chat, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import Lab

from batchgen.kinds import KINDS
from batchgen.replies.finish import BROKEN_OFF, ENDED, INCOMPLETE

KNOWN = sorted((*ENDED, *INCOMPLETE, *BROKEN_OFF, "MAX_TOKENS", "tool-calls"))


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


def test_finish_reasons(lab: Lab) -> None:
    """P18 Whole answers succeed, cut and filtered ones are incomplete under one word, broken-off
    ones are asked again and fail, and a word that nobody knows is incomplete until it is accepted.
    """
    words = {
        **dict.fromkeys(("stop", "eos", "end_turn", "STOP"), "succeeded"),
        **dict.fromkeys(
            ("model_length", "max_tokens", "MAX_TOKENS", "model_context_window_exceeded"), "length"
        ),
        **dict.fromkeys(("sensitive", "SAFETY"), "content_filter"),
        **dict.fromkeys(
            ("error", "abort", "network_error", "insufficient_system_resource"), "failed"
        ),
        "brand_new": "brand_new",
    }
    rows(lab, *words)
    fast = {"attempts": 2}
    with answering(lambda body: chat("The first half of the ans", asked(body))) as api:
        table = answered(lab, api, retry=fast)
        accepted = answered(lab, api, retry=fast, output={"accept": ["brand_new"]})
    for word, line in table.items():
        wanted = words[word]
        if wanted == "succeeded":
            assert (line["status"], line["finish_reason"]) == ("succeeded", word)
        elif wanted == "failed":
            assert (line["status"], line["output"]) == ("failed", "")
            assert line["attempts"] == "2"
            assert word in line["error"]
        else:
            assert (line["status"], line["finish_reason"]) == ("incomplete", wanted)
            assert line["output"] == "The first half of the ans"
    assert "unknown finish reason" in table["brand_new"]["error"]
    assert accepted["brand_new"]["status"] == "succeeded"


def test_no_finish_reason_is_shown_as_none(lab: Lab) -> None:
    """A server that gives no finish reason has none invented for it."""
    rows(lab, "a")
    with answering(lambda _: chat("hi", None)) as api:
        line = answered(lab, api)["a"]
    assert (line["status"], line["finish_reason"], line["output"]) == ("succeeded", "", "hi")


def test_a_blank_answer_is_empty(lab: Lab) -> None:
    """An answer of white space alone does not count."""
    rows(lab, "a")
    with answering(lambda _: chat("  \n")) as api:
        line = answered(lab, api)["a"]
    assert (line["status"], line["finish_reason"]) == ("incomplete", "empty")


def test_the_final_answer_without_the_commentary(lab: Lab) -> None:
    """A response's final answer is the output, and its commentary is not."""

    def message(text: str, phase: str) -> dict[str, Any]:
        parts = [{"type": "output_text", "text": text}]
        return {"type": "message", "status": "completed", "phase": phase, "content": parts}

    def reply(_: dict[str, Any]) -> dict[str, Any]:
        output = [
            message("Let me check the dates.", "commentary"),
            message('{"date": "2026-03-14"}', "final_answer"),
        ]
        return {"id": "r", "status": "completed", "model": "m", "output": output}

    rows(lab, "a")
    with answering(reply) as api:
        line = answered(
            lab,
            api,
            kind="text",
            request={"model": "m", "input": "{{ text }}"},
            output={"columns": {"day": "{{ json.date }}"}},
        )["a"]
    assert (line["output"], line["day"]) == ('{"date": "2026-03-14"}', "2026-03-14")


NO_WORDS = st.integers() | st.booleans() | st.lists(st.sampled_from(KNOWN), max_size=1)


@given(st.text(max_size=30) | st.none() | NO_WORDS | st.sampled_from(KNOWN), st.text())
@settings(deadline=None)
def test_made_up_finish_reasons(reason: Any, text: str) -> None:
    """P18 Whatever the finish reason, an answer has ended only with words, and a known end or
    none.
    """
    reply = {"choices": [{"message": {"content": text}, "finish_reason": reason}]}
    answer = KINDS["chat"].read(reply, {})
    word = "" if reason is None else str(reason).strip().lower().replace("-", "_")
    assert answer.ended == (bool(text.strip()) and (not word or word in ENDED))
    assert bool(answer.broke_off) == (word in BROKEN_OFF)
    assert answer.choices[0].text == text
