"""A sheet of a spreadsheet, .xlsx or .ods -> rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from batchgen.errors import did_you_mean, listed
from batchgen.prompts.cells import json_value
from batchgen.prompts.options import TableOptions
from batchgen.prompts.rows import FileError, RawTable, RowError, which_sheet
from batchgen.prompts.table import Record, table_of

# Up to here every whole number is a float of its own.
_LARGEST_WHOLE = 2.0**53


def read_sheet(file: BinaryIO, options: TableOptions) -> RawTable:
    """The rows of one sheet; the line of a row is its number in the sheet. Raises FileError."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise FileError(
            0,
            "a spreadsheet needs python-calamine; install it from the checkout with: "
            "pip install '.[excel]'",
        ) from None
    try:
        workbook = CalamineWorkbook.from_object(file)
        names = workbook.sheet_names
        wanted = options.sheet or (names[0] if names else "")
        if wanted not in names:
            raise FileError(
                0,
                f"has no sheet {wanted!r} (sheets: {listed(names)}){did_you_mean(wanted, names)}",
            )
        sheet = workbook.get_sheet_by_name(wanted)
    except (CalamineError, OSError) as error:
        raise FileError(0, f"cannot be read ({error}); save it anew as .xlsx") from None
    records = _records(sheet.iter_rows(), options.skip_lines)
    sheets = tuple(names) if options.sheet is None and len(names) > 1 else ()
    try:
        table = table_of(records, options, delimiter="", hint="give the column a name")
    except FileError as fault:
        messages = (f"{message}{which_sheet(sheets)}" for message in fault.messages)
        raise FileError(fault.line, *messages) from None
    return replace(table, sheets=sheets)


def _records(rows: Iterator[list[Any]], skipped: int) -> Iterator[Record]:
    for number, cells in enumerate(rows, start=1):
        if number > skipped:
            try:
                yield number, [_cell(cell) for cell in cells]
            except RowError as fault:
                yield number, fault


def _cell(value: Any) -> Any:
    """A cell: text, a number, true or false; the text of a date or time; empty text.

    A spreadsheet has floats only, so a whole number is one that is whole.
    """
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _LARGEST_WHOLE else value
    return json_value(value)
