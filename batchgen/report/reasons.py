"""Why rows failed or are incomplete, in the words that people use."""

from __future__ import annotations

_WORDS = {
    # the row or its request
    "input": "a row that cannot be read or sent",
    "policy": "refused by the server's content policy",
    "too_long": "longer than the model or the server takes",
    "bad_request": "refused as a wrong request",
    "not_found": "asked for something that the server does not have",
    "conflict": "refused as a conflict",
    # the server or the way to it
    "throttled": "refused by a rate limit",
    "server": "an error of the server",
    "network": "no connection to the server",
    "reset": "the connection broke off",
    "timeout": "no answer in time",
    "invalid_response": "a reply that is no answer",
    "gave_up": "failed in three runs by passing failures",
    "abandoned": "given up while on its way",
    "interrupted": "on its way when the run died",
    # answers that are not whole
    "length": "cut off at the token limit",
    "content_filter": "cut by the server's content filter",
    "refusal": "refused by the model",
    "empty": "answered with nothing",
    "fewer_choices": "answered with fewer choices than asked for",
    "fewer_images": "answered with fewer pictures than asked for",
    "incomplete": "ended early by the server",
    "max_tool_calls": "ended at the limit of tool calls",
    "schema": "not in the JSON form that was asked for",
}


def describe_reason(reason: str | None) -> str:
    """A reason in words; one that is not known stays as it is."""
    return _WORDS.get(reason or "incomplete", reason or "incomplete")
