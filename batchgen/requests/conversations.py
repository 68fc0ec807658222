"""Conversations as data sets have them -> messages as the API has them: the filter `messages`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2.exceptions import TemplateRuntimeError

# The roles of data sets, as the API calls them.
ROLES = {
    **{role: role for role in ("system", "developer", "user", "assistant", "tool", "function")},
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
# The keys of a message that the API takes; `weight` and the like are for fine-tuning only.
KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "function_call")


def as_messages(value: Any) -> list[dict[str, Any]]:
    """Messages of a list whose objects have `role` and `content`, or `from` and `value` (ShareGPT).

    Other keys than the API's are left out. Raises TemplateRuntimeError for anything else.
    """
    if not isinstance(value, list):
        raise TemplateRuntimeError("messages: the value is not a list of messages")
    return [_message(each) for each in value]


def _message(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TemplateRuntimeError("messages: an element of the list is not an object")
    sender, text = ("from", "value") if "from" in value else ("role", "content")
    role = value.get(sender)
    if not isinstance(role, str) or role not in ROLES:
        known = ", ".join(ROLES)
        raise TemplateRuntimeError(f"messages: {str(role)[:40]!r} is not one of {known}")
    kept = {key: value[key] for key in KEYS if key in value}
    return {**kept, "role": ROLES[role], "content": value.get(text)}
