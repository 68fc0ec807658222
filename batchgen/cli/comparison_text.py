"""Two answers of a row side by side in a terminal, the words marked that changed.

At a terminal they have colours; elsewhere they stand in [-…-] and {+…+}, as wdiff has them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

from batchgen.cli.cells import pad, terminal_width, wrap
from batchgen.cli.terminal import styled
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.comparison import Comparison, Pair, Part, Side

# Between the two sides.
_GAP = " | "
_MARKS = (("[-", "-]"), ("{+", "+}"))
_COLOURS = ("red", "green")


def pair_lines(pair: Pair, names: tuple[str, str]) -> Iterator[str]:
    """The lines about a row whose two answers differ; none about any other."""
    from batchgen.comparison import changed_words
    from batchgen.inspection import axes_text

    if pair.before is None or pair.after is None or not pair.is_changed:
        return
    width = (terminal_width() - len(_GAP)) // 2
    turn = f"  turn {pair.row.turn}" if pair.row.turn else ""
    axes = f"  {axes_text(pair.row.axes)}" if pair.row.axes else ""
    yield styled(escape_controls(pair.row.id), bold=True) + escape_controls(turn + axes)
    sides = (pair.before, pair.after)
    heads = [wrap(_head(*each), width) for each in zip(names, sides, strict=True)]
    yield from _beside(heads, heads, width)
    texts = [escape_controls(side.text).expandtabs(4) for side in sides]
    parts = changed_words(*texts)
    if _has_colours():
        plain = [wrap(text, width) for text in texts]
        shown = [
            list(_coloured(lines, own, colour))
            for lines, own, colour in zip(plain, parts, _COLOURS, strict=True)
        ]
    else:
        plain = shown = [
            wrap(_marked(own, marks), width) for own, marks in zip(parts, _MARKS, strict=True)
        ]
    yield from _beside(plain, shown, width)


def summary_lines(comparison: Comparison) -> Iterator[str]:
    """The counts of all rows, and what both sides took."""
    from batchgen.comparison import describe_comparison

    for name, text in describe_comparison(comparison).items():
        head = f"{name:10}"
        for line in wrap(escape_controls(text), terminal_width() - len(head)):
            yield (head + line).rstrip()
            head = " " * len(head)


def _head(name: str, side: Side) -> str:
    from batchgen.comparison import describe_side

    return escape_controls(f"{name}: {describe_side(side)}")


def _has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _beside(
    plain: Sequence[Sequence[str]], shown: Sequence[Sequence[str]], width: int
) -> Iterator[str]:
    """Two columns of lines; `plain` says how wide those of `shown` are without colours."""
    for one, _, text, more in zip_longest(*plain, *shown, fillvalue=""):
        yield (text + pad(one, width)[len(one) :] + _GAP + more).rstrip()


def _marked(parts: Sequence[Part], marks: tuple[str, str]) -> str:
    return "".join(
        f"{marks[0]}{part.text}{marks[1]}" if part.is_changed else part.text for part in parts
    )


def _coloured(lines: Sequence[str], parts: Sequence[Part], colour: str) -> Iterator[str]:
    """The lines of a text, whose changed letters have a colour."""
    letters = iter([(letter, part.is_changed) for part in parts for letter in part.text])
    for line in lines:
        flagged = []
        for letter in line:
            # Wrapping leaves out white space where it breaks a line.
            flag = next(is_changed for each, is_changed in letters if each == letter)
            flagged.append((letter, flag))
        yield "".join(
            styled(text, colour=colour, bold=True) if is_changed else text
            for is_changed, group in groupby(flagged, lambda pair: pair[1])
            for text in ["".join(letter for letter, _ in group)]
        )
