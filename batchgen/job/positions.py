"""Where things stand in a job file: the path of keys to a value, and its line and column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The keys and list indexes that lead to a value, such as ("request", "messages", 0, "content").
KeyPath = tuple[str | int, ...]
# A line and a column, both from 1.
Position = tuple[int, int]

# The line breaks that editors count.
LINE_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A job file as plain data (dict, list, str, int, float, bool, None), with positions.

    values: the position of each value, by key path.
    keys: the position of each key, by the key path of its value.
    """

    data: Any
    values: Mapping[KeyPath, Position]
    keys: Mapping[KeyPath, Position]

    def position(self, key_path: KeyPath, *, key: bool = False) -> Position:
        """The position of the value at a key path, else of the deepest one that contains it.

        With `key`, the position of the key instead.
        """
        if key and key_path in self.keys:
            return self.keys[key_path]
        while key_path and key_path not in self.values:
            key_path = key_path[:-1]
        return self.values.get(key_path, (1, 1))


def text_position(text: str, offset: int) -> Position:
    """The position of a character of the text."""
    breaks = list(LINE_BREAK.finditer(text, 0, offset))
    return len(breaks) + 1, offset - (breaks[-1].end() if breaks else 0) + 1


def dotted(key_path: KeyPath) -> str:
    """A key path as people write it: `request.messages[0].content`."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{shorten(part)}" for part in key_path
    ).lstrip(".")


def shorten(word: str) -> str:
    """A word of the file for a message: as it is if short and printable, else quoted and cut."""
    if len(word) <= 60 and word.isprintable() and " " not in word and word:
        return word
    return repr(word if len(word) <= 60 else f"{word[:59]}…")
