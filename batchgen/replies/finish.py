"""What each finish reason means, as data.

Providers have their own words for the same few ends of an answer. Words are compared without regard
to case, with `-` as `_`, up to a colon: Gemini sends `content_filter: PROHIBITED_CONTENT`. A word
that is in no table leaves its row incomplete, because nobody knows whether the answer is whole;
`output.accept` takes it.

Sources, for the words in the order of the tables: OpenAI, Anthropic, Mistral, vLLM and TGI, Gemini,
z.ai, DeepSeek, Cohere and Bedrock name them in the references of their APIs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

# The answer is whole. The word stays as the server says it.
ENDED = frozenset(
    {
        "stop",
        "tool_calls",
        "function_call",
        "completed",
        "end_turn",
        "stop_sequence",
        "tool_use",
        "tool_call",
        "eos",
        "eos_token",
        "stop_token",
        "complete",
        "stop_string",
        "end",
        "finished",
    }
)

# The answer was cut or filtered: the server's word -> the word in the tables.
INCOMPLETE = {
    **dict.fromkeys(
        (
            "length",
            "max_output_tokens",
            "max_tokens",
            "max_completion_tokens",
            "max_new_tokens",
            "max_length",
            "model_length",
            "model_context_window_exceeded",
            "context_window_exceeded",
            "context_length_exceeded",
            "context_length",
            "error_limit",
            "limit",
        ),
        "length",
    ),
    **dict.fromkeys(
        (
            "content_filter",
            "content_filtered",
            "content_policy",
            "sensitive",
            "safety",
            "image_safety",
            "recitation",
            "image_recitation",
            "blocklist",
            "prohibited_content",
            "image_prohibited_content",
            "spii",
            "language",
            "model_armor",
            "error_toxic",
            "guardrail_intervened",
            "blocked",
        ),
        "content_filter",
    ),
    "refusal": "refusal",
    **dict.fromkeys(("incomplete", "pause_turn", "repetition"), "incomplete"),
    **dict.fromkeys(("no_image", "image_other"), "picture"),
    **dict.fromkeys(("max_tool_calls", "too_many_tool_calls"), "max_tool_calls"),
}

# The answer broke off through no fault of the request: it is asked again.
BROKEN_OFF = frozenset(
    {
        "error",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "timeout",
        "network_error",
        "server_error",
        "internal_error",
        "insufficient_system_resource",
        "malformed_function_call",
        "malformed_response",
        "unexpected_tool_call",
    }
)

# batchgen's own words, for what no server says.
_OWN = frozenset({"empty", "fewer_choices", "fewer_images", "picture", "schema"})


def finish_word(reason: object) -> str | None:
    """The word of the tables for a server's finish reason; None if it gives none.

    What is no word is one that nobody knows, written as JSON.
    """
    if isinstance(reason, Mapping) and isinstance(reason.get("type"), str):
        # SGLang's own form: {"type": "length", "length": 5}
        reason = reason["type"]
    word = reason if isinstance(reason, str) else "" if reason is None else json.dumps(reason)
    return INCOMPLETE.get(_plain(word), word.strip()) or None


def is_whole(word: str | None) -> bool:
    """Whether an answer with this word of the tables is whole. One without a word is."""
    return word is None or _plain(word) in ENDED


def broke_off(reason: object) -> bool:
    """Whether a server's finish reason says that the answer broke off."""
    return isinstance(reason, str) and _plain(reason) in BROKEN_OFF


def accepted(words: Iterable[str]) -> frozenset[str]:
    """What `output.accept` names, for `is_accepted`: a provider's own word stands for ours."""
    return frozenset(_plain(INCOMPLETE.get(_plain(word), word)) for word in words)


def is_accepted(word: str | None, accept: frozenset[str]) -> bool:
    """Whether `output.accept` takes an answer with this word of the tables as a success."""
    return word is not None and _plain(word) in accept


def explained(word: str | None) -> str:
    """Why a row is incomplete, in words; for a word that nobody knows, also what to do."""
    known = word is None or word in _OWN or word in INCOMPLETE.values()
    if known:
        return word or "incomplete"
    return f"{word} (an unknown finish reason; output.accept: [{word}] takes it as success)"


def _plain(reason: str) -> str:
    return reason.partition(":")[0].strip().lower().replace("-", "_")
