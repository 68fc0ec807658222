"""A text -> the one JSON value in it, although models put marks and sentences around it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from batchgen.replies import parse

# What was around a value: nothing, a code fence (with or without sentences), or sentences.
Wrapping = Literal["", "fence", "text"]

_BRACKET = re.compile(r"[{}\[\]]")
_BACKTICKS = re.compile(r"^[ \t]*```.*$", re.MULTILINE)


class Found(NamedTuple):
    """A JSON value, its text, and what was around it."""

    value: Any
    text: str
    wrapping: Wrapping


def find_json(text: str) -> Found | None:
    """The one JSON value that a text is, or that stands in it; None if there is none, or several.

    A value within sentences must be an object or a list. What was cut or broken is no value, and
    no part of it is taken for one.
    """
    for wrapping, candidate in _candidates(text.strip().removeprefix("\ufeff")):
        try:
            value, as_sent = parse(candidate)
        except (ValueError, RecursionError):
            continue
        # JSON has no NaN and no Infinity.
        if as_sent:
            return Found(value, candidate, wrapping)
    return None


def _candidates(text: str) -> Iterator[tuple[Wrapping, str]]:
    yield "", text
    marks = list(_BACKTICKS.finditer(text))
    if len(marks) == 2 and marks[1][0].strip() == "```":
        around = text[: marks[0].start()], text[marks[1].end() :]
        # Else the fence stands within a value that is broken.
        if all(part.count(a) == part.count(b) for part in around for a, b in ("{}", "[]")):
            yield "fence", text[marks[0].end() : marks[1].start()].strip()
    # All brackets of the text must be those of the value: none of a part of it, or of a second one.
    if (first := _BRACKET.search(text)) and first[0] in "{[":
        yield "text", text[first.start() : max(map(text.rfind, "{}[]")) + 1]
