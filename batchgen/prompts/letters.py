"""How many letters of a text stand where no language has them: a sign of the wrong encoding."""

from __future__ import annotations

import unicodedata

# Signs that texts have; any other sign outside ASCII is odd.
_SIGNS = frozenset("’‘'“”„–—…•«»‹›‚€£¥¢°§©®™½¼¾²³µ×±·¿¡ªº\xa0")
_INSIDE_WORDS = "’'·"
# Letters that hardly any text has.
_RARE = frozenset("ƒªºﬁﬂ")


def odd_letters(text: str) -> float:
    """The part of the letters and signs outside ASCII that are odd where they stand, 0 to 1.

    Such are `Mьller` (a Cyrillic letter in a Latin word), `weiﬂ`, `K¸che`, `12,50 Ä`.
    """
    odd = total = 0
    padded = f"  {text} "
    for at, letter in enumerate(text, start=2):
        if not letter.isascii():
            total += 1
            odd += _is_odd(letter, padded[at - 2 : at], padded[at + 1])
    return odd / total if total else 0.0


def _is_odd(letter: str, before: str, after: str) -> bool:
    """Whether a letter or sign is odd between the two characters before it and the one after."""
    last = before[1]
    latin = [other for other in (last, after) if other.isascii() and other.isalpha()]
    if unicodedata.east_asian_width(letter) in ("W", "F"):
        # Chinese and its like stand beside Latin words without a space.
        return len(latin) == 2
    if letter in _SIGNS:
        return last.isalpha() and after.isalpha() and letter not in _INSIDE_WORDS
    if not letter.isalpha() or letter in _RARE:
        return True
    if letter.isupper() and not (last.isalpha() or after.isalpha()):
        # A sign of money or measure, as another encoding reads it.
        return True
    if unicodedata.name(letter, "").startswith("LATIN"):
        return letter.isupper() and last.islower()
    return bool(latin)
