"""A few lines at the bottom of a terminal that change in place, below what is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from batchgen.cli.terminal import print_message

# Columns that stay free at the right: the terminal itself writes ^C there.
MARGIN = 3


def can_draw() -> bool:
    """Whether stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Display:
    """Lines on stderr; tqdm draws, clears and moves them."""

    def __init__(self) -> None:
        self._lines: list[Any] = []

    @property
    def width(self) -> int:
        """Columns that a line may have."""
        # In a container a terminal may report no size.
        return max(1, (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - MARGIN)

    @property
    def height(self) -> int:
        """Lines that there is room for."""
        return max(1, (os.get_terminal_size(sys.stderr.fileno()).lines or 24) - 2)

    def show(self, texts: Sequence[str]) -> None:
        """Show these lines instead of those before."""
        for number, text in enumerate(texts):
            if number == len(self._lines):
                self._lines.append(self._line(number))
            self._lines[number].set_description_str(text, refresh=False)
        for line in self._lines[len(texts) :]:
            line.set_description_str("", refresh=False)
        for line in self._lines:
            line.refresh()

    def print_above(self, text: str) -> None:
        """Print a message above the lines."""
        if not self._lines:
            print_message(text)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            print_message(text)

    def close(self) -> None:
        """Remove the lines."""
        for line in reversed(self._lines):
            line.close()
        self._lines = []

    def _line(self, number: int) -> Any:
        from tqdm import tqdm

        columns, lines = os.get_terminal_size(sys.stderr.fileno())
        return tqdm(
            bar_format="{desc}",
            position=number,
            leave=False,
            ncols=columns or 80,
            nrows=lines or 24,
            file=sys.stderr,
        )
