"""Records -> a file of CSV, JSONL or Parquet that appears whole, or a pandas DataFrame."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgen.batch_format import Result
from batchgen.disk import FileStamp, atomic_write
from batchgen.journal.records import encodable

if TYPE_CHECKING:
    import pandas

# Rows of one Parquet row group: what is held in memory at once.
GROUP = 1000

Record = dict[str, Any]
Write = Callable[[Record], None]
WriteResult = Callable[[int, Result], None]
Note = Callable[[Path, FileStamp], None]
Disarm = Callable[[str, str], str]


def cell(value: Any) -> str:
    """A value as a cell of text: text as it stands, nothing for None, JSON's own words for the rest."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.9f}".rstrip("0") if 0 < abs(value) < 1e-3 else repr(value)
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def csv_writer(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str,
    bom: bool,
    disarm: Disarm | None,
    note: Note | None = None,
) -> Iterator[Write]:
    """A CSV; `disarm`, if any, has the last word on each cell, given its column."""
    with atomic_write(path, encoding="utf-8-sig" if bom else "utf-8", on_written=note) as file:
        plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        # Python's writer leaves a lone CR unquoted, and readers take it for a line's end.
        quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

        def write(cells: list[str], disarm: Disarm | None) -> None:
            # Looked at as a whole: most lines hold nothing that each cell must be looked at for.
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

        # The job names the columns, and no model does.
        write(list(columns), None)
        yield write_record


@contextmanager
def jsonl_writer(
    path: Path, columns: Sequence[str], *, note: Note | None = None
) -> Iterator[Write]:
    """JSON Lines: every cell keeps its JSON type."""
    with atomic_write(path, on_written=note) as file:

        def write(record: Record) -> None:
            file.write(_json_line({name: record.get(name) for name in columns}))

        yield write


def _json_line(record: Record) -> str:
    text = json.dumps(record, ensure_ascii=False)
    # JSON's escapes hold what UTF-8 cannot.
    return (text if encodable(text) == text else json.dumps(record)) + "\n"


@contextmanager
def parquet_writer(
    path: Path, columns: Mapping[str, type], *, note: Note | None = None
) -> Iterator[Write]:
    """Parquet: text, int64 and float64 columns; a cell of the prompts is text."""
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
        atomic_write(path, binary=True, on_written=note) as file,
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
    """The records as a pandas DataFrame; the prompts' cells as they stand, nothing guessed."""
    import pandas

    cells = [[record.get(name) for name in columns] for record in records]
    return pandas.DataFrame(cells, columns=list(columns), dtype=object)
