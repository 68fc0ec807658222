"""The rows of a prompts file as numbered `Prompt`s, and everything that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NoReturn, Self

from batchgen.errors import SHOWN, InputError, Problem
from batchgen.prompts.batchfile import read_batch
from batchgen.prompts.delimited import read_csv, read_tsv
from batchgen.prompts.lines import Lines
from batchgen.prompts.records import read_jsonl, read_txt
from batchgen.prompts.rows import FileError, RawRow, RawTable
from batchgen.prompts.sources import Hashed, open_file, unzipped

_READERS: dict[str, Callable[[Lines, str | None], RawTable]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
    "txt": read_txt,
    # Never chosen by the file's name: a file of requests ends in .jsonl like any other.
    "openai-batch": read_batch,
}
_SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One data row of the file.

    n: the row's number, from 1; broken rows count, skipped empty rows do not.
    line: the line on which the row starts, from 1; the header counts.
    columns: the values by column name (in NFC): text from CSV, TSV and TXT, JSON's types from the
        others.
    error: why the row is broken, or None; `columns` then has what could be read.
    """

    n: int
    line: int
    columns: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a prompts file is written.

    delimiter: one character; empty if there is none.
    encoding: Python's name of the encoding.
    bom: whether tables made from this file should begin with a BOM: it did, or it is not UTF-8.
    header: the named columns in file order; None for JSONL and openai-batch, whose rows have their
        own.
    """

    format: Literal["csv", "tsv", "jsonl", "txt", "openai-batch"]
    delimiter: str
    encoding: str
    bom: bool
    header: tuple[str, ...] | None


class PromptsFile:
    """An open prompts file: iterate it once for its Prompts, in file order.

    Prompts come as they are read, so do not act on them before the iteration has ended without
    InputError. That error counts all problems and holds the first SHOWN of them. A file without
    rows is a problem too.
    """

    def __init__(
        self,
        dialect: Dialect,
        rows: Iterator[RawRow],
        hashed: Hashed,
        lines: Lines,
        *,
        display_name: str,
        forgive: bool,
        closing: ExitStack,
    ) -> None:
        """Use `open_prompts`.

        dialect: how the file is written.
        rows: its raw rows; iterated once.
        hashed: the stream that they are read from.
        lines: its lines.
        display_name: the file's name in messages.
        forgive: whether a broken row becomes a Prompt with an `error`, and not a problem.
        closing: closes the file.
        """
        self.dialect = dialect
        self._hashed, self._lines = hashed, lines
        self._display_name = display_name
        self._forgive = forgive
        self._closing = closing
        self._problems: list[Problem] = []
        self._count = 0
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
        return self._hashed.sha256.hexdigest()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems found so far, at most SHOWN of them."""
        return tuple(self._problems)

    def _read(self, rows: Iterator[RawRow]) -> Iterator[Prompt]:
        n = 0
        try:
            for n, (line, columns, fault) in enumerate(rows, start=1):
                self._lines.last_row = line
                if fault is None:
                    yield Prompt(n=n, line=line, columns=columns)
                elif self._forgive:
                    yield Prompt(n=n, line=line, columns=columns, error=fault.sentence)
                else:
                    self._note(
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
            self._refuse(
                FileError(
                    0, "has a header but no rows" if self.dialect.delimiter else "holds no prompts"
                )
            )
        if self._count:
            raise InputError(self._problems, found=self._count)

    def _note(self, problem: Problem) -> None:
        self._count += 1
        if len(self._problems) < SHOWN:
            self._problems.append(problem)

    def _refuse(self, error: FileError) -> NoReturn:
        """Raise InputError with the problems so far and the file's own, which is always shown."""
        own = error.problems(self._display_name)
        problems = [*self._problems[: max(SHOWN - len(own), 0)], *own]
        raise InputError(problems, found=self._count + len(own)) from None


def open_prompts(
    path: Path | None,
    *,
    stream: BinaryIO | None = None,
    display_name: str,
    format: str | None = None,  # noqa: A002 - the job file's own word
    delimiter: str | None = None,
    encoding: str | None = None,
    bad_rows: Literal["refuse", "fail"] = "refuse",
    on_lines: Callable[[int], None] | None = None,
) -> PromptsFile:
    """Open a prompts file, or read prompts from a stream.

    Args:
        path: the file; a name that ends in .gz is unzipped.
        stream: read instead of a file; it is never closed here, and needs a `format`.
        display_name: the name of the file in messages.
        format: csv, tsv, jsonl, txt or openai-batch; by default the file's name decides.
        delimiter: one character, for CSV only; by default the header decides.
        encoding: Python's name of it; by default the byte order mark, else UTF-8.
        bad_rows: "fail" makes a broken row a Prompt with an `error`; "refuse" makes it a problem.
        on_lines: called every now and then with how many lines were read.

    Raises InputError when the file cannot be read, its header is wrong, or an argument does not
    fit.
    """
    try:
        kind = format or _format_by_name(path)
        _check_arguments(kind, delimiter)
        with ExitStack() as closing:
            if stream is None:
                if path is None:
                    raise InputError("the prompts need a path or a stream")
                hashed = Hashed(closing.enter_context(open_file(path, display_name)))
                zipped = path.name.lower().endswith(".gz")
            else:
                hashed, zipped = Hashed(stream), False
            lines = Lines(unzipped(hashed, zipped), encoding, on_lines)
            layout = _READERS[kind](lines, delimiter)
            dialect = Dialect(
                format=kind,  # type: ignore[arg-type]  # a key of _READERS
                delimiter=layout.delimiter,
                encoding=lines.encoding,
                bom=lines.bom,
                header=layout.header,
            )
            forgive = bad_rows == "fail"
            return PromptsFile(
                dialect,
                layout.rows,
                hashed,
                lines,
                display_name=display_name,
                forgive=forgive,
                closing=closing.pop_all(),
            )
    except FileError as fault:
        raise InputError(fault.problems(display_name)) from None


def _format_by_name(path: Path | None) -> str:
    """The format by the name's ending, without .gz. Raises InputError or FileError."""
    if path is None:
        raise InputError(
            "prompts from a stream have no name to tell their format by; "
            f"set prompts.format to one of {', '.join(_READERS)}"
        )
    suffix = Path(re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)).suffix.lower()
    if suffix not in _SUFFIXES:
        known = " ".join(_SUFFIXES)
        raise FileError(
            0, f"the name ends in none of {known} (each also .gz); rename it or set prompts.format"
        )
    return _SUFFIXES[suffix]


def _check_arguments(kind: str, delimiter: str | None) -> None:
    """Raise FileError when the format is unknown, or the delimiter is wrong or not for this
    format.
    """
    if kind not in _READERS:
        raise FileError(0, f"prompts.format {kind!r} is unknown; there are {', '.join(_READERS)}")
    if delimiter is None or (kind == "tsv" and delimiter == "\t"):
        return
    if kind != "csv":
        raise FileError(
            0, f"prompts.delimiter is for CSV only, and this is {kind.upper()}; remove it"
        )
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise FileError(
            0, f"prompts.delimiter must be one character, no quote or line end, not {delimiter!r}"
        )
