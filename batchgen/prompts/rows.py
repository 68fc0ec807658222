"""What a format makes of a file: raw rows, and the two kinds of error.

A RowError spoils one row, and `bad_rows="fail"` lets the job run without that row. A FileError
(header, encoding, gzip, a quote that runs across lines) leaves unclear where rows begin and end, so
it always stops the job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batchgen.errors import Problem, listed


class RowError(Exception):
    """One row is broken; the rows around it are not.

    `column` counts characters from 1; 0: unknown.
    """

    def __init__(self, message: str, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.column = column

    @property
    def sentence(self) -> str:
        """The message with its column, for where there is no Problem to hold the column."""
        return f"column {self.column}: {self.message}" if self.column else self.message


class FileError(Exception):
    """The file cannot be read, or not be split into rows with certainty.

    `line` 0: the whole file.
    """

    def __init__(self, line: int, *messages: str) -> None:
        super().__init__(*messages)
        self.line = line
        self.messages = messages

    def problems(self, display_name: str) -> list[Problem]:
        """One Problem for each message; `display_name` is the file's name in messages."""
        return [
            Problem(path=display_name, message=message, line=self.line) for message in self.messages
        ]


# The line on which a row starts, its columns, and what is wrong with it.
RawRow = tuple[int, dict[str, Any], RowError | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTable:
    """A file whose header has been read.

    `delimiter`, `header` and `sheets` are as in Dialect; iterate `rows` once.
    """

    delimiter: str
    header: tuple[str, ...] | None
    rows: Iterator[RawRow]
    sheets: tuple[str, ...] = ()


def which_sheet(sheets: Sequence[str]) -> str:
    """What to add to a fault of the first of several sheets, of which none was named."""
    if not sheets:
        return ""
    return f" in its first sheet (sheets: {listed(sheets)}); prompts.sheet names another"
