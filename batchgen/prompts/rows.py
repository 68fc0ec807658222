"""What a format makes of a file: rows, and the two kinds of fault.

A row's own fault (RowError) spoils that row, which `bad_rows="fail"` forgives. A file's (FileError: header, encoding,
gzip, quotes that run across lines) leaves unclear what a row is, and always refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batchgen.errors import Problem


class RowError(Exception):
    """A row is broken; the rows around it are not. `column` counts characters from 1; 0 is unknown."""

    def __init__(self, message: str, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.column = column

    @property
    def sentence(self) -> str:
        """The message with its column, for where no Problem carries it."""
        return f"column {self.column}: {self.message}" if self.column else self.message


class FileError(Exception):
    """The file cannot be read, or no longer be cut into rows with certainty. `line` 0 is the file as a whole."""

    def __init__(self, line: int, *messages: str) -> None:
        super().__init__(*messages)
        self.line = line
        self.messages = messages

    def problems(self, display_name: str) -> list[Problem]:
        """One Problem a message; `display_name` is the file's name in errors."""
        return [
            Problem(path=display_name, message=message, line=self.line) for message in self.messages
        ]


# The line a row starts on, its columns, and what is wrong with it.
RawRow = tuple[int, dict[str, Any], RowError | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTable:
    """A file whose header is read: `delimiter` and `header` as in Dialect, `rows` to be read once, in file order."""

    delimiter: str
    header: tuple[str, ...] | None
    rows: Iterator[RawRow]
