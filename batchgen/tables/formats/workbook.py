"""Tables as an Excel workbook with one sheet.

The bounds are those of Excel: https://support.microsoft.com/en-us/office/
excel-specifications-and-limits-1672b34d-7043-467e-8e27-269d656771c3
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import xlsxwriter

from batchgen.disk import atomic_write, temporary_folder
from batchgen.errors import OutputError
from batchgen.journal.records import encodable
from batchgen.tables.formats.table import (
    SHEET_ROWS,
    Record,
    TableFile,
    Timestamp,
    Write,
    cell,
)

MOST_COLUMNS = 16_384
MOST_CHARACTERS = 32_767
# Integers that a cell, which is a float64, holds exactly.
MOST_EXACT = 2**53

_CUT = "… [cut: a cell of Excel holds 32,767 characters]"


@contextmanager
def xlsx_writer(table: TableFile) -> Iterator[Write]:
    """Write a workbook: numbers, booleans and times are such cells, all else is text, no formula.

    A text that is too long for a cell is cut, and the user is told how many are. Raises OutputError
    for more rows or columns than a sheet has.
    """
    with (
        atomic_write(table.path, binary=True, on_written=table.on_written) as file,
        temporary_folder(table.path.parent, table.path.name) as folder,
    ):
        book = xlsxwriter.Workbook(file, {"constant_memory": True, "tmpdir": str(folder)})
        sheet = _Sheet(table, book)
        yield sheet.add
        book.close()
    if sheet.cut:
        table.say(
            f"{table.path.name}: {sheet.cut:,} cells were longer than the {MOST_CHARACTERS:,} "
            "characters that a cell of Excel holds, and are cut; write another table for the whole"
        )


class _Sheet:
    """The one sheet of a workbook. `cut`: how many cells were too long."""

    def __init__(self, table: TableFile, book: Any) -> None:
        self._columns, self._name = table.columns, table.path.name
        self._sheet = book.add_worksheet("results")
        self._time = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self._bold = book.add_format({"bold": True})
        self._row = 0
        self.cut = 0
        if len(table.columns) > MOST_COLUMNS:
            raise OutputError(f"{self._name}: a sheet has {MOST_COLUMNS:,} columns at most")
        self._sheet.freeze_panes(1, 0)
        for column, name in enumerate(table.columns):
            self._sheet.write_string(0, column, self._text(name), self._bold)

    def add(self, record: Record) -> None:
        """Add one record."""
        self._row += 1
        if self._row >= SHEET_ROWS:
            raise OutputError(
                f"{self._name}: a sheet has {SHEET_ROWS:,} rows at most, and the job has more; "
                "choose another format in output.tables"
            )
        for column, (name, kind) in enumerate(self._columns.items()):
            value = record.get(name)
            if value is None:
                continue
            if kind is Timestamp:
                time = datetime.fromisoformat(value).replace(tzinfo=None)
                self._sheet.write_datetime(self._row, column, time, self._time)
            elif isinstance(value, bool):
                self._sheet.write_boolean(self._row, column, value)
            elif isinstance(value, int | float) and abs(value) <= MOST_EXACT:
                self._sheet.write_number(self._row, column, value)
            elif text := self._text(cell(value)):
                self._sheet.write_string(self._row, column, text)

    def _text(self, text: str) -> str:
        text = encodable(text)
        # Excel counts UTF-16 units.
        units = text.encode("utf-16-le")
        if len(units) // 2 <= MOST_CHARACTERS:
            return text
        self.cut += 1
        kept = units[: 2 * (MOST_CHARACTERS - len(_CUT))].decode("utf-16-le", "ignore")
        return kept + _CUT
