"""The rows of a prompts file as numbered `Prompt`s, and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self

from batchgen.errors import SHOWN, InputError, Problem, ProblemList
from batchgen.job import PromptsFormat
from batchgen.prompts.lines import Lines
from batchgen.prompts.rows import FileError, RawRow, which_sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One data row of the file.

    n: the row's number, from 1; broken rows count, skipped empty rows do not.
    line: the line on which the row starts, from 1; the header counts.
    columns: the values by column name (in NFC): text from CSV, TSV and TXT, JSON's types from the
        others.
    error: why the row is broken, or None; `columns` then has what could be read.
    id: its name, where its source names it; None in files.
    pending: whether its source will have more to say about it, so that it is left out for now.
    """

    n: int
    line: int
    columns: dict[str, Any]
    error: str | None = None
    id: str | None = None
    pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a prompts file is written.

    delimiter: one character; empty if there is none.
    encoding: Python's name of the encoding.
    bom: whether tables made from this file should begin with a BOM: it did, or it is not UTF-8, or
        it is a spreadsheet, as which the tables will be opened.
    header: the named columns in file order; None for JSON, JSONL and openai-batch, whose rows have
        their own.
    sheets: the names of a spreadsheet's sheets, if there are several and the first was taken
        because none was named.
    """

    format: PromptsFormat
    delimiter: str
    encoding: str
    bom: bool
    header: tuple[str, ...] | None
    sheets: tuple[str, ...] = ()


class PromptsFile:
    """An open prompts file: iterate it once for its Prompts, in file order.

    Prompts come as they are read, so do not act on them before the iteration has ended without
    InputError. That error counts all problems and holds the first SHOWN kinds of them. A file
    without rows is a problem too.
    """

    def __init__(
        self,
        dialect: Dialect,
        rows: Iterator[RawRow],
        digest: Callable[[], str],
        lines: Lines | None,
        *,
        display_name: str,
        forgive: bool,
        closing: ExitStack,
    ) -> None:
        """Use `open_prompts`.

        dialect: how the file is written.
        rows: its raw rows; iterated once.
        digest: the SHA-256 of what was read of them so far, as hex.
        lines: its lines, of a text.
        display_name: the file's name in messages.
        forgive: whether a broken row becomes a Prompt with an `error`, and not a problem.
        closing: closes the file.
        """
        self.dialect = dialect
        self._digest, self._lines = digest, lines
        self._display_name = display_name
        self._forgive = forgive
        self._closing = closing
        self._problems = ProblemList()
        self._prompts = self._read(rows)

    def __iter__(self) -> Iterator[Prompt]:
        """The prompts not read yet. Raises InputError at the end, or where reading must stop."""
        return self._prompts

    def __enter__(self) -> Self:
        """The open file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, whatever happened."""
        self.close()

    def close(self) -> None:
        """Close the file; a stream that was handed in stays open."""
        self._closing.close()

    @property
    def digest(self) -> str:
        """SHA-256 of the raw bytes read so far, as hex; at the end it equals `file_digest`."""
        return self._digest()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems found so far, at most SHOWN of them."""
        return tuple(self._problems.problems())

    def _read(self, rows: Iterator[RawRow]) -> Iterator[Prompt]:
        n = 0
        try:
            for n, (line, columns, fault) in enumerate(rows, start=1):
                if self._lines is not None:
                    self._lines.last_row = line
                if fault is None:
                    yield Prompt(n=n, line=line, columns=columns)
                elif self._forgive:
                    yield Prompt(n=n, line=line, columns=columns, error=fault.sentence)
                else:
                    self._problems.add(
                        Problem(
                            path=self._display_name,
                            message=fault.message,
                            line=line,
                            column=fault.column,
                        )
                    )
        except FileError as fault:
            self._refuse(fault)
        if n == 0:
            headed = self.dialect.header and self.dialect.format != "txt"
            message = "has a header but no rows" if headed else "holds no prompts"
            self._refuse(FileError(0, message + which_sheet(self.dialect.sheets)))
        if self._problems.found:
            raise InputError(self._problems.problems(), found=self._problems.found)

    def _refuse(self, error: FileError) -> NoReturn:
        """Raise InputError with the problems so far and the file's own, which is always shown."""
        for problem in error.problems(self._display_name):
            self._problems.add(problem, always=True)
        problems = self._problems.problems()
        own = problems[SHOWN:]
        raise InputError(
            [*problems[: SHOWN - len(own)], *own], found=self._problems.found
        ) from None
