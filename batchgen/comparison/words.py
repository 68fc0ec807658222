"""Which words of two texts differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import NamedTuple

# A word; a letter of a script that is written without spaces; white space; or any other sign.
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|\s+|[^\w\s]")

# The most pairs of words that are compared, about a second. Of longer texts all between their equal
# beginnings and ends counts as changed.
_MOST = 4_000_000


class Part(NamedTuple):
    """A part of a text, and whether the other text lacks it."""

    text: str
    is_changed: bool


def changed_words(before: str, after: str) -> tuple[list[Part], list[Part]]:
    """Both texts in parts that the other one has or lacks."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    start = _alike(old, new)
    end = _alike(old[start:][::-1], new[start:][::-1])
    middle = old[start : len(old) - end], new[start : len(new) - end]
    changed_old, changed_new = _changed(*middle)
    return (
        _parts(old, [False] * start + changed_old + [False] * end),
        _parts(new, [False] * start + changed_new + [False] * end),
    )


def _alike(old: Sequence[str], new: Sequence[str]) -> int:
    """How many words both begin with."""
    for number, (one, other) in enumerate(zip(old, new, strict=False)):
        if one != other:
            return number
    return min(len(old), len(new))


def _changed(old: Sequence[str], new: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Of each word whether it is changed."""
    changed_old, changed_new = [True] * len(old), [True] * len(new)
    if len(old) * len(new) <= _MOST:
        matcher = SequenceMatcher(None, old, new, autojunk=False)
        for old_at, new_at, size in matcher.get_matching_blocks():
            changed_old[old_at : old_at + size] = [False] * size
            changed_new[new_at : new_at + size] = [False] * size
    return changed_old, changed_new


def _parts(words: Sequence[str], changed: Sequence[bool]) -> list[Part]:
    pairs = zip(words, _joined(words, changed), strict=True)
    groups = groupby(pairs, lambda pair: pair[1])
    return [Part("".join(word for word, _ in group), is_changed) for is_changed, group in groups]


def _joined(words: Sequence[str], changed: Sequence[bool]) -> list[bool]:
    """Also the space between two changed words is changed: a phrase has one mark."""
    around = zip([False, *changed], changed, [*changed[1:], False], words, strict=False)
    return [
        is_changed or (before and after and word.isspace())
        for before, is_changed, after, word in around
    ]
