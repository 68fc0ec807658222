"""Lines -> rows with a header: CSV, whose delimiter may have to be found, and TSV."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from typing import Any

from batchgen.prompts.lines import LIMIT, Lines
from batchgen.prompts.options import TableOptions
from batchgen.prompts.rows import FileError, RawTable, RowError
from batchgen.prompts.table import Record, table_of

_SEP_LINE = re.compile(r'"?sep=([^"\r\n])"?[\r\n]*', re.IGNORECASE)


def read_csv(lines: Lines, options: TableOptions) -> RawTable:
    """CSV as Python's csv module reads it, strictly.

    A first line such as `sep=;` names the delimiter, as Excel does.
    """
    csv.field_size_limit(max(LIMIT, csv.field_size_limit()))
    texts = lines.read(newline="")
    first = next(texts, "")
    named = _SEP_LINE.fullmatch(first)
    head = [] if named else [first]
    delimiter = options.delimiter
    if delimiter is None:
        delimiter = named[1] if named else _find_delimiter(head, texts)
    reader = csv.reader(itertools.chain(head, texts), delimiter=delimiter, strict=True)
    records = _csv_records(reader, lines, skipped=lines.skipped + (1 if named else 0))
    hint = f"put a cell that holds {delimiter!r} in double quotes"
    return table_of(records, options, delimiter=delimiter, hint=hint)


def read_tsv(lines: Lines, options: TableOptions) -> RawTable:
    """Lines cut at every TAB; a double quote has no special meaning."""
    records: Iterator[Record] = ((number, line.split("\t")) for number, line in lines.plain())
    return table_of(records, options, delimiter="\t", hint="a cell cannot hold a TAB")


def _find_delimiter(head: list[str], texts: Iterator[str]) -> str:
    """The delimiter that cuts the header into the most cells: a comma, a semicolon or a TAB.

    At a tie it is the first of these; a bar only if none of them cuts it. The lines that this
    takes from `texts` are added to `head`.
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

    best = max(",;\t", key=cells)
    return "|" if cells(best) <= 1 < cells("|") else best


def _csv_records(reader: Any, lines: Lines, skipped: int) -> Iterator[Record]:
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
            "text, or a space, follows a closing double quote; write a quote inside a quoted cell "
            'twice ("")'
        )
    if last > line:
        raise FileError(line, f"{message}; lines {line} to {last} cannot be told apart")
    return RowError(message)
