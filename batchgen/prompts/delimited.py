"""Lines -> rows with a header: CSV, whose delimiter may have to be found, and TSV."""

from __future__ import annotations

import csv
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from batchgen.prompts.lines import LIMIT, Lines
from batchgen.prompts.rows import FileError, RawRow, RawTable, RowError

_SEP_LINE = re.compile(r'"?sep=([^"\r\n])"?[\r\n]*', re.IGNORECASE)

# The line on which a record starts, and its cells or what is wrong with them.
_Record = tuple[int, list[str] | RowError]


def read_csv(lines: Lines, delimiter: str | None) -> RawTable:
    """CSV as Python's csv module reads it, strictly.

    A first line such as `sep=;` names the delimiter, as Excel does.
    """
    csv.field_size_limit(max(LIMIT, csv.field_size_limit()))
    texts = lines.read(newline="")
    first = next(texts, "")
    named = _SEP_LINE.fullmatch(first)
    head = [] if named else [first]
    if delimiter is None:
        delimiter = named[1] if named else _find_delimiter(head, texts)
    reader = csv.reader(itertools.chain(head, texts), delimiter=delimiter, strict=True)
    records = _csv_records(reader, lines, skipped=1 if named else 0)
    return _table(records, delimiter, f"put a cell that holds {delimiter!r} in double quotes")


def read_tsv(lines: Lines, delimiter: str | None) -> RawTable:
    """Lines cut at every TAB; a double quote has no special meaning."""
    records: Iterator[_Record] = ((number, line.split("\t")) for number, line in lines.plain())
    return _table(records, "\t", "a cell cannot hold a TAB")


def _find_delimiter(head: list[str], texts: Iterator[str]) -> str:
    """The delimiter that cuts the header into the most cells: a comma, a semicolon or a TAB.

    At a tie it is the first of these. The lines that this takes from `texts` are added to `head`.
    """

    def taken() -> Iterator[str]:
        for line in texts:
            head.append(line)
            yield line

    def cells(delimiter: str) -> int:
        reader = csv.reader(itertools.chain(tuple(head), taken()), delimiter=delimiter, strict=True)
        try:
            return next((len(row) for row in reader if "".join(row).strip(",;\t")), 0)
        except csv.Error:
            return 0

    return max(",;\t", key=cells)


def _csv_records(reader: Any, lines: Lines, skipped: int) -> Iterator[_Record]:
    """The records of a csv.reader, each with its line number; an error does not end them.

    `skipped` is how many lines were read before the reader's first one.
    """
    line = skipped + 1
    while True:
        try:
            for cells in reader:
                yield line, cells
                line = reader.line_num + skipped + 1
                lines.row_size = 0
            return
        except csv.Error as error:
            yield line, _quote_fault(error, line, reader.line_num + skipped)
            line = reader.line_num + skipped + 1
            lines.row_size = 0


def _quote_fault(error: csv.Error, line: int, last: int) -> RowError:
    """The fault of one row.

    Raises FileError when the quote ran across lines that may be rows of their own.
    """
    if "unexpected end" in str(error):
        message = "a double quote is opened in this row and never closed"
    else:
        message = (
            'text follows a closing double quote; write a quote inside a quoted cell twice ("")'
        )
    if last > line:
        raise FileError(line, f"{message}; lines {line} to {last} cannot be told apart")
    return RowError(message)


def _table(records: Iterator[_Record], delimiter: str, hint: str) -> RawTable:
    """Take the header off the records; `hint` says what to do about a row with too many cells."""
    empty: _Record = (0, [])
    line, cells = next(
        (record for record in records if isinstance(record[1], RowError) or any(record[1])), empty
    )
    if isinstance(cells, RowError):
        raise FileError(line, cells.message)
    if not cells:
        raise FileError(0, "is empty")
    names = [unicodedata.normalize("NFC", cell.strip()) for cell in cells]
    _check_header(names, line)
    header = tuple(name for name in names if name)
    return RawTable(delimiter=delimiter, header=header, rows=_rows(records, names, hint))


def _check_header(names: Sequence[str], line: int) -> None:
    positions: dict[str, list[str]] = {}
    for position, name in enumerate(names, start=1):
        positions.setdefault(name, []).append(str(position))
    nameless = positions.pop("", [])
    if not positions:
        raise FileError(line, f"none of the {len(nameless)} columns of the header has a name")
    twice = [
        f"the header has {name!r} {len(at)} times, as columns {' and '.join(at)}; rename all "
        "but one"
        for name, at in positions.items()
        if len(at) > 1
    ]
    if twice:
        raise FileError(line, *twice)


def _rows(records: Iterator[_Record], names: Sequence[str], hint: str) -> Iterator[RawRow]:
    """Rows by column name; records of empty cells (`;;;` at a spreadsheet's end) are skipped."""
    width = len(names) if all(names) else -1  # -1 matches no row, so each is checked
    for line, cells in records:
        if isinstance(cells, RowError):
            yield line, {}, cells
        elif any(cells):
            if len(cells) == width:
                yield line, dict(zip(names, cells)), None  # noqa: B905 - as many as names; strict= costs a third more
            else:
                yield line, *_uneven(cells, names, hint)


def _uneven(
    cells: Sequence[str], names: Sequence[str], hint: str
) -> tuple[dict[str, Any], RowError | None]:
    """A row with more or fewer cells than names: extra cells must be empty, none missing."""
    expected = max(position for position, name in enumerate(names, start=1) if name)
    columns = {name: cell for name, cell in zip(names, cells, strict=False) if name}
    if len(cells) < expected:
        return columns, RowError(f"expected {expected} cells, found {len(cells)}")
    if any(cells[len(names) :]):
        return columns, RowError(f"expected {expected} cells, found {len(cells)}; {hint}")
    for position, (name, cell) in enumerate(zip(names, cells, strict=False), start=1):
        if cell and not name:
            return columns, RowError(
                f"cell {position} is not empty, but column {position} has no name in the "
                "header; name it"
            )
    return columns, None
