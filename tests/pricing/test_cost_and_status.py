"""Cost and status beside the body: made-up usage and ends, for every endpoint, judged by what the
body itself says, without the code that reads it."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.job import Price
from batchgen.kinds import KINDS
from batchgen.pricing import Prices
from batchgen.replies import MAX_TOKENS, Answer, UnreadableReplyError
from batchgen.replies.finish import BROKEN_OFF, ENDED, INCOMPLETE

# USD per million tokens, and so nano-dollars per token in thousands.
PRICES = Prices({"m": Price(input=2, output=6)}, "http://127.0.0.1:8000/v1")
INPUT, OUTPUT = 2_000, 6_000

IN = ("prompt_tokens", "input_tokens")
OUT = ("completion_tokens", "output_tokens")
CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
WRITTEN = ("cache_creation_input_tokens",)
COUNT = st.integers(0, 5_000) | st.sampled_from([0, 1, 7.0, MAX_TOKENS])
# What is no count.
ODD = st.sampled_from([None, -1, 1.5, "7", True, [7], {"n": 7}, 10**12, 1e300])
COUNTS = COUNT | COUNT | ODD
DETAILS = st.dictionaries(
    st.sampled_from(["cached_tokens", "reasoning_tokens", "audio_tokens", "text_tokens"]), COUNTS
)
# A server that counts everything, and may leave hidden reasoning out of the completion.
USUAL = st.fixed_dictionaries(
    {"prompt_tokens": COUNT, "completion_tokens": COUNT},
    optional={"total_tokens": st.integers(0, 20_000), "prompt_tokens_details": DETAILS},
)
# A server that counts anything.
WILD = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys([*IN, *OUT, *CACHED, *WRITTEN, "total_tokens", "reasoning_tokens"], COUNTS),
        "prompt_tokens_details": DETAILS,
        "completion_tokens_details": DETAILS | ODD,
    },
)
USAGES = USUAL | WILD
BILLS = st.none() | st.none() | st.none() | st.floats(0, 5) | st.integers(0, 5)
# Every known word, words that nobody knows, and what is no word.
NO_WORD = st.sampled_from([[], ["stop"], 0, True, {"type": 3}])
REASONS = st.sampled_from([*ENDED, *INCOMPLETE, *BROKEN_OFF, "new", "", None]) | NO_WORD
TEXTS = st.sampled_from(["hi", "hi", "hi", "", " \n", None])


def tokens(source: Any, *names: str) -> int | None:
    """The highest count under these names."""
    found = [source.get(name) for name in names] if isinstance(source, dict) else []
    counts = [
        int(each)
        for each in found
        if isinstance(each, int | float) and not isinstance(each, bool) and each == each // 1
        if 0 <= each <= MAX_TOKENS
    ]
    return max(counts, default=None)


def bounds(usage: Mapping[str, Any]) -> tuple[int, int] | None:
    """The least and the most that these counts can cost; None where they do not say enough."""
    inside, outside = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    asked, made, total = tokens(usage, *IN), tokens(usage, *OUT), tokens(usage, "total_tokens")
    hits = max(tokens(usage, *CACHED) or 0, tokens(inside, "cached_tokens") or 0)
    cached = hits + (tokens(usage, *WRITTEN) or 0)
    hidden = max(tokens(usage, "reasoning_tokens") or 0, tokens(outside, "reasoning_tokens") or 0)
    beyond = (total or 0) - (asked or 0)
    if asked is None or (made is None and beyond <= cached):
        return None
    if not (asked or made or cached or beyond > 0 or (hidden and total is None)):
        # Zeros alone are no counts.
        return None
    most_made = max(made or 0, beyond, (made or 0) + hidden)
    least_made = max(made or 0, beyond - cached)
    return max(asked, cached) * INPUT + least_made * OUTPUT, (
        asked + cached
    ) * INPUT + most_made * OUTPUT


def check_cost(reply: Mapping[str, Any], answer: Answer, bill: float | None) -> None:
    """The cost is the bill, or within what the counts say, or unknown where they do not."""
    cost = PRICES.cost("m", answer.usage)
    if bill is not None:
        assert cost == pytest.approx(bill * 1e9, abs=1)
        return
    between = bounds(reply.get("usage") or {})
    if between is not None:
        assert cost is not None
        assert between[0] <= cost <= between[1]
    elif cost is not None:
        # Only a cached part can make up for a count that is missing.
        assert tokens(reply["usage"], *IN) is not None


def with_usage(body: dict[str, Any], usage: dict[str, Any], bill: float | None) -> dict[str, Any]:
    """A reply as it comes over the wire."""
    billed = usage if bill is None else {**usage, "cost": bill}
    sent: dict[str, Any] = json.loads(json.dumps({**body, "usage": billed}))
    return sent


@given(st.sampled_from(["chat", "completion"]), REASONS, TEXTS, USAGES, BILLS)
@settings(deadline=None)
def test_chats_and_completions(
    kind: str, reason: Any, text: str | None, usage: dict[str, Any], bill: float | None
) -> None:
    """P18 P25 An answer has ended only with words, and a known end or none; its cost is the
    server's bill, or what its counts say at least and at most, or unknown without them."""
    part = {"message": {"content": text}} if kind == "chat" else {"text": text}
    reply = with_usage({"choices": [{**part, "finish_reason": reason}]}, usage, bill)
    try:
        answer = KINDS[kind].read(reply, {})
    except UnreadableReplyError:
        assert text is None
        return
    check_cost(reply, answer, bill)
    known = reason is None or (isinstance(reason, str) and reason in {*ENDED, ""})
    assert answer.ended == (known and bool((text or "").strip()))
    assert bool(answer.broke_off) == (isinstance(reason, str) and reason in BROKEN_OFF)


STATUSES = st.sampled_from(["completed"] * 5 + ["incomplete", "in_progress", None, ["completed"]])
ITEMS = st.sampled_from(["completed", "incomplete", "in_progress"]) | st.none()


@given(STATUSES, ITEMS, st.none() | st.none() | REASONS, TEXTS, USAGES, BILLS)
@settings(deadline=None)
def test_responses(
    status: Any,
    of_item: Any,
    reason: Any,
    text: str | None,
    usage: dict[str, Any],
    bill: float | None,
) -> None:
    """P18 P25 A response has ended only if it, its item and its details say so, and with words."""
    content = [{"type": "output_text", "text": text}]
    item = {"type": "message", "status": of_item, "content": content}
    body = {"status": status, "output": [item], "incomplete_details": {"reason": reason}}
    reply = with_usage(body, usage, bill)
    try:
        answer = KINDS["text"].read(reply, {})
    except UnreadableReplyError:
        assert status not in ("completed", "incomplete")
        return
    check_cost(reply, answer, bill)
    is_cut = status == "incomplete" or of_item in ("incomplete", "in_progress") or bool(reason)
    assert answer.ended == (not is_cut and bool((text or "").strip()))


VECTOR = base64.b64encode(struct.pack("<2f", 0.5, 1)).decode()
DATA: dict[str, dict[str, Any]] = {
    "image": {"data": [{"b64_json": "QUJD"}]},
    "image_edit": {"data": [{"b64_json": "QUJD"}]},
    "embedding": {"data": [{"embedding": VECTOR}]},
    "moderation": {"results": [{"flagged": False}]},
}


@given(st.sampled_from(sorted(DATA)), st.booleans(), USAGES, BILLS)
@settings(deadline=None)
def test_data(kind: str, is_empty: bool, usage: dict[str, Any], bill: float | None) -> None:
    """P18 P25 Pictures, vectors and verdicts are answers if they are there."""
    sent = {name: [] for name in DATA[kind]} if is_empty else DATA[kind]
    reply = with_usage(sent, usage, bill)
    try:
        answer = KINDS[kind].read(reply, {"input": "a", "prompt": "a"})
    except UnreadableReplyError:
        assert is_empty
        return
    assert answer.ended
    check_cost(reply, answer, bill)
