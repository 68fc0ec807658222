"""What a server sends, without the key: in every string of its JSON, and in every message.

JSON has many ways to write a character (`/`, `\\/`, `\\u002f`), so a reply is redacted after it was
parsed, and a text that is not JSON in whatever way the key is escaped in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchgen.batch_format import encoded
from batchgen.dispatch import Failure
from batchgen.dispatch.api.http import Reply
from batchgen.escapes import one_line
from batchgen.replies import decoded, parse

# A shorter key, such as `test` or `EMPTY`, is a word that answers contain; no secret is so short.
SHORTEST_KEY = 16

_KEY_LIKE = re.compile(r"\b(sk-|Bearer\s+)[A-Za-z0-9_\-.*]{8,}")


class Redaction:
    """Puts `[key]` in place of a key."""

    def __init__(self, key: str | None) -> None:
        """`key` of a server; None for a server without keys, which needs no redaction."""
        self._is_short = bool(key) and len(key or "") < SHORTEST_KEY
        self._key = None if self._is_short else key or None
        self._escaped = re.compile("".join(map(_any_escape, self._key or "")))

    @property
    def is_complete(self) -> bool:
        """Whether the key is redacted; a short one is not, as it is a word."""
        return not self._is_short

    def text(self, text: str) -> str:
        """The text without the key, however it is escaped."""
        if self._key is None:
            return text
        text = text.replace(self._key, "[key]")
        return self._escaped.sub("[key]", text) if "\\" in text else text

    def message(self, text: str) -> str:
        """The text without the key, and without anything that looks like a key."""
        return _KEY_LIKE.sub("[key]", self.text(text))

    def failure(self, failure: Failure) -> Failure:
        """Redact every text of the server and cut it to one line of 500 characters at most."""
        code, request_id = (
            one_line(self.message(text))[:200] if text else text
            for text in (failure.code, failure.request_id)
        )
        message = one_line(self.message(failure.message))[:500]
        return replace(failure, message=message, code=code, request_id=request_id)

    def reply(self, reply: Reply) -> Reply:
        """The reply, parsed if it is JSON; its bytes are those that came, if nothing had to change.

        Servers send the key back in answers, in pages and in headers.
        """
        headers = reply.headers
        if self._key and self._key in " ".join(headers.values()):
            headers = {name.lower(): self.text(value) for name, value in headers.items()}
        try:
            value, changed = self._parsed(reply.body)
        except (ValueError, RecursionError):
            body = self.text(reply.body.decode("utf-8", "surrogateescape"))
            return replace(reply, headers=headers, body=body.encode("utf-8", "surrogateescape"))
        body_bytes = encoded(value) if changed else reply.body
        return replace(reply, headers=headers, body=body_bytes, parsed=(value,))

    def json(self, data: bytes) -> Any:
        """The JSON of a server's bytes, redacted. Raises ValueError, RecursionError."""
        return self._parsed(data)[0]

    def _parsed(self, data: bytes) -> tuple[Any, bool]:
        """The redacted JSON, and whether it differs from what was sent."""
        text = decoded(data)
        value, as_sent = parse(text)
        # Without the key in plain sight and without an escape, no string can hold it.
        if self._key is None or (self._key not in text and "\\" not in text):
            return value, not as_sent
        holder = [value]
        changed = self._redact_in(holder)
        return holder[0], changed or not as_sent

    def _redact_in(self, holder: list[Any]) -> bool:
        """Redact every string within a list, in place; returns whether one has changed.

        Without recursion: JSON may be nested as deep as Python allows.
        """
        changed = False
        containers: list[Any] = [holder]
        while containers:
            container = containers.pop()
            names = _names(container)
            for name in names:
                value = container[name]
                if isinstance(value, str):
                    text = self.text(value)
                    if text != value:
                        container[name], changed = text, True
                elif isinstance(value, dict | list):
                    containers.append(value)
                if isinstance(name, str) and (new_name := self.text(name)) != name:
                    container[new_name] = container.pop(name)
                    changed = True
        return changed


def _names(container: Mapping[str, Any] | list[Any]) -> list[Any] | range:
    return list(container) if isinstance(container, Mapping) else range(len(container))


def _any_escape(character: str) -> str:
    """A pattern of a character, escaped or not, also within JSON that is itself in a string.

    Each level of strings within strings doubles the backslashes; bounded, so that matching is fast.
    """
    return rf"(?:\\{{0,16}}{re.escape(character)}|\\{{1,16}}(?i:u{ord(character):04x}))"
