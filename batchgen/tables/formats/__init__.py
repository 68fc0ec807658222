"""The formats of tables: records -> a file, or a pandas DataFrame.

- `table`      what a writer is given: the file, its columns, and where its messages go
- `delimited`  CSV
- `jsonl`      JSON Lines
- `parquet`    Parquet; the only door to pyarrow
- `workbook`   Excel; the only door to XlsxWriter
- `frame`      a pandas DataFrame; the only door to pandas

A new format is a file here and a line in `WRITERS`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from batchgen.tables.formats.delimited import csv_writer
from batchgen.tables.formats.frame import frame
from batchgen.tables.formats.jsonl import jsonl_writer
from batchgen.tables.formats.table import (
    SHEET_ROWS,
    ColumnType,
    OnWritten,
    OpenTable,
    Picture,
    Record,
    TableFile,
    Timestamp,
    Vector,
    Write,
    cell,
)

__all__ = [
    "SHEET_ROWS",
    "WRITERS",
    "ColumnType",
    "OnWritten",
    "Picture",
    "Record",
    "TableFile",
    "Timestamp",
    "Vector",
    "Write",
    "cell",
    "frame",
]


# Their packages are imported late: they take a second, and most jobs need neither.
def _parquet(table: TableFile) -> AbstractContextManager[Write]:
    from batchgen.tables.formats.parquet import parquet_writer

    return parquet_writer(table)


def _xlsx(table: TableFile) -> AbstractContextManager[Write]:
    from batchgen.tables.formats.workbook import xlsx_writer

    return xlsx_writer(table)


WRITERS: dict[str, OpenTable] = {
    "csv": csv_writer,
    "jsonl": jsonl_writer,
    "parquet": _parquet,
    "xlsx": _xlsx,
}
