"""What a request asks with: texts that are missing, and numbers that stand for texts.

A row of JSONL may hold null or a number where the API takes nothing but text. An empty text is
left to the server: some answer it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

from batchgen.job import KeyPath
from batchgen.kinds import Kind

# Messages of these roles must say something; one of the assistant may be a call of a tool.
_ROLES = ("user", "system", "developer")
_TEXT_PARTS = ("text", "input_text")


def missing_texts(kind: Kind, body: Mapping[str, Any]) -> Iterator[KeyPath]:
    """The places of a body that hold nothing where there must be a text."""
    for path, value in _texts(kind, body):
        if value is None or value == []:
            yield path


def numbers_as_texts(kind: Kind, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body with a text in part of each number or boolean that is a whole text of its own.

    In a longer text it would become the same one.
    """
    paths = [path for path, value in _texts(kind, body) if isinstance(value, bool | int | float)]
    if not paths:
        return body
    body = copy.deepcopy(dict(body))
    for *parents, last in paths:
        part: Any = body
        for key in parents:
            part = part[key]
        part[last] = json.dumps(part[last])
    return body


def _texts(kind: Kind, body: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """The places of a body where the API takes a text, with what they hold."""
    name = kind.text_field
    value = body.get(name)
    if not isinstance(value, list) or not value:
        # `messages` is always a list, which is checked elsewhere.
        if name != "messages":
            yield (name,), value
        return
    for n, item in enumerate(value):
        if item is None:
            yield (name, n), item
        # Numbers in a list are tokens.
        elif isinstance(item, Mapping) and item.get("role") in _ROLES:
            yield from _texts_of(item, (name, n, "content"))


def _texts_of(message: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    content = message.get("content")
    if not isinstance(content, list) or not content:
        yield path, content
        return
    for n, part in enumerate(content):
        if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS:
            yield (*path, n, "text"), part.get("text")
