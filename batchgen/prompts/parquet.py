"""A Parquet file -> rows with the types of JSON."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from batchgen.prompts.cells import json_value
from batchgen.prompts.options import TableOptions
from batchgen.prompts.rows import FileError, RawRow, RawTable, RowError

# Rows that are in memory at once, and bytes that are read of a column at once.
_ROWS = 256
_BUFFER = 64 * 1024


def read_parquet(file: BinaryIO, options: TableOptions) -> RawTable:
    """The rows of a file, a few at a time; the line of a row is its number. Raises FileError."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise FileError(
            0, "Parquet needs pyarrow; install it from the checkout with: pip install '.[parquet]'"
        ) from None
    try:
        # With its own buffers pyarrow would hold a group of rows at once: often the whole file.
        table = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise _unreadable(error, 0) from None
    names = [unicodedata.normalize("NFC", name) for name in table.schema_arrow.names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FileError(0, f"has two columns with the name {twice[0]!r}; rename one")
    return RawTable(delimiter="", header=tuple(names), rows=_rows(table, names))


def _rows(table: Any, names: Sequence[str]) -> Iterator[RawRow]:
    from pyarrow import ArrowException, types

    plain = [
        any(is_type(each.type) for is_type in (types.is_string, types.is_integer, types.is_boolean))
        for each in table.schema_arrow
    ]
    number = 0
    try:
        for batch in table.iter_batches(batch_size=_ROWS):
            columns = [_cells(column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                number += 1
                try:
                    yield number, _row(names, cells, plain), None
                except RowError as fault:
                    yield number, {}, fault
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise _unreadable(error, number + 1) from None


def _cells(column: Any) -> list[Any]:
    """The cells of a column; a map without entries is no list."""
    from pyarrow import types

    cells: list[Any] = column.to_pylist()
    return [{} if cell == [] else cell for cell in cells] if types.is_map(column.type) else cells


def _row(names: Sequence[str], cells: Sequence[Any], plain: Sequence[bool]) -> dict[str, Any]:
    return {
        name: cell if as_it_is else json_value(cell)
        for name, cell, as_it_is in zip(names, cells, plain, strict=True)
    }


def _unreadable(error: Exception, row: int) -> FileError:
    # What pyarrow says goes on over lines.
    why = str(error).partition("\n")[0]
    return FileError(row, f"pyarrow cannot read this Parquet file ({why}); copy or write it again")
