"""Records -> a file of CSV, JSONL or Parquet that appears whole, or a pandas DataFrame."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgen.batch_format import Result
from batchgen.disk import FileStamp, atomic_write
from batchgen.journal.records import encodable

if TYPE_CHECKING:
    import pandas

# Records of one Parquet row group: all of them are in memory at once.
GROUP = 1000

Record = dict[str, Any]
Write = Callable[[Record], None]
WriteResult = Callable[[int, Result], None]
# Receives the path of a file that was written, and its stamp.
OnWritten = Callable[[Path, FileStamp], None]
# Receives a column's name and a cell of it; returns the cell to write.
Disarm = Callable[[str, str], str]


def cell(value: Any) -> str:
    """A value as text: text unchanged, None as the empty string, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    if isinstance(value, float) and not value.is_integer():
        # Money has at most nine decimals, and people read it. Every other number stays as short as
        # it can be; each reads back as the same one.
        return f"{Decimal(repr(value)):f}" if 1e-9 <= abs(value) < 1e-4 else repr(value)
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def csv_writer(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str,
    bom: bool,
    disarm: Disarm | None,
    on_written: OnWritten | None = None,
) -> Iterator[Write]:
    """Write a CSV.

    Args:
        path: the file.
        columns: the header; a record's other values are left out.
        delimiter: separates the cells.
        bom: begin with a byte order mark, by which Excel knows UTF-8.
        disarm: called last with every cell below the header.
        on_written: called when the file is complete, before it appears.
    """
    with atomic_write(
        path, encoding="utf-8-sig" if bom else "utf-8", on_written=on_written
    ) as file:
        plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        # Python's writer leaves a lone CR unquoted, and readers take it for a line's end.
        quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

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
                disarm,
            )

        # The header is the job's own words; no model wrote any of it, so it needs no disarming.
        write(list(columns), None)
        yield write_record


@contextmanager
def jsonl_writer(
    path: Path, columns: Sequence[str], *, on_written: OnWritten | None = None
) -> Iterator[Write]:
    """Write JSON Lines: every cell keeps its JSON type."""
    with atomic_write(path, on_written=on_written) as file:

        def write(record: Record) -> None:
            file.write(_json_line({name: record.get(name) for name in columns}))

        yield write


def _json_line(record: Record) -> str:
    text = json.dumps(record, ensure_ascii=False)
    # UTF-8 cannot hold a lone surrogate; an escape of JSON can.
    return (text if encodable(text) == text else json.dumps(record)) + "\n"


@contextmanager
def parquet_writer(
    path: Path, columns: Mapping[str, type], *, on_written: OnWritten | None = None
) -> Iterator[Write]:
    """Write Parquet with text, int64 and float64 columns; the prompts' cells become text."""
    import pyarrow
    from pyarrow import parquet

    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])

    def flush(writer: Any, records: list[Record]) -> None:
        arrays = [
            [_typed(record.get(name), kind) for record in records] for name, kind in columns.items()
        ]
        writer.write_batch(
            pyarrow.record_batch(
                [pyarrow.array(a, f.type) for a, f in zip(arrays, schema, strict=True)],
                schema=schema,
            )
        )
        records.clear()

    with (
        atomic_write(path, binary=True, on_written=on_written) as file,
        parquet.ParquetWriter(file, schema) as writer,
    ):
        pending: list[Record] = []

        def write(record: Record) -> None:
            pending.append(record)
            if len(pending) >= GROUP:
                flush(writer, pending)

        yield write
        flush(writer, pending)


def _typed(value: Any, kind: type) -> Any:
    return encodable(cell(value)) if kind is str and value is not None else value


def frame(records: Iterator[Record], columns: Sequence[str]) -> pandas.DataFrame:
    """The records as a pandas DataFrame; no type is guessed."""
    import pandas

    cells = [[record.get(name) for name in columns] for record in records]
    return pandas.DataFrame(cells, columns=list(columns), dtype=object)
