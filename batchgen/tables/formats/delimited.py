"""Tables as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager

from batchgen.disk import atomic_write
from batchgen.journal.records import encodable
from batchgen.tables.formats.table import Disarm, Record, TableFile, Write, cell


@contextmanager
def csv_writer(table: TableFile) -> Iterator[Write]:
    """Write a CSV; every cell is text."""
    columns = list(table.columns)
    with atomic_write(
        table.path,
        encoding="utf-8-sig" if table.bom else "utf-8",
        on_written=table.on_written,
    ) as file:
        plain = csv.writer(file, delimiter=table.delimiter, lineterminator="\n")
        # Python's writer leaves a lone CR unquoted, and readers take it for a line's end.
        quoted = csv.writer(
            file, delimiter=table.delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL
        )

        def write(cells: list[str], disarm: Disarm | None) -> None:
            # One test of the whole line is cheaper than one of each cell, and most lines are plain.
            line = "".join(cells)
            if not line.isascii():
                cells = [encodable(each) for each in cells]
            if disarm is not None:
                cells = [disarm(name, each) for name, each in zip(columns, cells, strict=True)]
            (quoted if "\r" in line else plain).writerow(cells)

        def write_record(record: Record) -> None:
            write(
                [
                    value if type(value := record.get(name)) is str else cell(value)
                    for name in columns
                ],
                table.disarm,
            )

        # The header is the job's own words; no model wrote any of it, so it needs no disarming.
        write(columns, None)
        yield write_record
