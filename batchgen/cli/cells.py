"""Text in the cells of a terminal: how wide it is, and how it is wrapped, cut and padded.

Chinese, Japanese and Korean letters and most pictographs take two cells, accents none.
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterator

# The narrowest terminal that text is laid out for.
_NARROWEST = 40


def terminal_width() -> int:
    """The columns of the terminal, at least 40; $COLUMNS has the last word, and 80 without one."""
    return max(_NARROWEST, shutil.get_terminal_size().columns)


def width_of(text: str) -> int:
    """The cells that a text of one line takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def pad(text: str, width: int) -> str:
    """The text with spaces behind it, to this many cells."""
    return text + " " * (width - width_of(text))


def wrap(text: str, width: int) -> list[str]:
    """The lines of a text, none wider than this many cells (2 or more); broken at spaces where
    there are some.

    Its own line breaks stay, and so does white space inside a line that is not broken.
    """
    return [part for line in text.expandtabs(4).split("\n") for part in _wrapped(line, width)]


def _wrapped(line: str, width: int) -> Iterator[str]:
    while width_of(line) > width:
        most = _letters_in(line, width)
        space = line.rfind(" ", 1, most + 1)
        # Spaces that only indent the line are no place to break it.
        end = space if line[:space].strip() and space > 0 else most
        yield line[:end].rstrip()
        line = line[end:].lstrip() if end == space else line[end:]
    yield line


def _letters_in(line: str, width: int) -> int:
    """How many letters of a line fit into this many cells; at least one."""
    used = 0
    for index, letter in enumerate(line):
        used += _width(letter)
        if used > width:
            return max(1, index)
    return len(line)


def cut(text: str, width: int) -> str:
    """The first line of a text, in at most this many cells (3 or more); … ends it if that is not
    all.
    """
    first = text.strip().expandtabs(4).partition("\n")[0].rstrip()
    if first == text.strip() and width_of(first) <= width:
        return first
    return first[: _letters_in(first, width - 1)] + "…"
