"""Tables as Parquet, whose columns have the types of their cells.

The type of a column is known only when all its cells are. So the records first go into an unnamed
temporary file in Arrow's format, where cells of an open type are text, and the types of the cells
are noted. Then the records are read back, get the type that holds all cells of their column, and
become Parquet. Memory holds one group of records at a time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any

import pyarrow
from pyarrow import parquet

from batchgen.disk import atomic_write, translating_errors
from batchgen.journal.records import encodable
from batchgen.tables.formats.table import (
    ColumnType,
    Picture,
    Record,
    TableFile,
    Timestamp,
    Vector,
    Write,
    cell,
)

# Records of one group, which becomes a row group: all of them are in memory at once.
GROUP = 1000

# Objects with more names than this are text: each name would be a column of the file.
MOST_FIELDS = 200

_TEXT = pyarrow.string()
_DECLARED = {
    str: _TEXT,
    Picture: _TEXT,
    int: pyarrow.int64(),
    float: pyarrow.float64(),
    Timestamp: pyarrow.timestamp("ms", tz="UTC"),
}


@contextmanager
def parquet_writer(table: TableFile) -> Iterator[Write]:
    """Write Parquet.

    Numbers, booleans, lists and objects keep their types, embeddings are lists of float32, times
    are timestamps. A column whose cells have several types is text; the user is told its name.
    """
    with (
        atomic_write(table.path, binary=True, on_written=table.on_written) as file,
        translating_errors(table.path),
        tempfile.TemporaryFile(dir=table.path.parent) as spooled,
    ):
        spool = _Spool(table.columns, spooled)
        yield spool.add
        spool.end()
        while unfit := spool.copy_to(file):
            spool.types[unfit] = None
        mixed = [name for name, kind in spool.types.items() if kind is None]
    if mixed:
        names = ", ".join(map(repr, mixed))
        table.say(f"{table.path.name}: columns with cells of several types are text: {names}")


class _Spool:
    """Records in a temporary file.

    Attributes:
        types: the type that holds all cells of each column, null where there is no cell; None where
            there is no such type.
    """

    def __init__(self, columns: Mapping[str, ColumnType], file: IO[bytes]) -> None:
        self._columns, self._file = columns, file
        self._pending: list[Record] = []
        self.types: dict[str, Any] = {
            name: _DECLARED.get(kind, pyarrow.null()) for name, kind in columns.items()
        }
        schema = pyarrow.schema(
            [(name, _DECLARED.get(kind, _TEXT)) for name, kind in columns.items()]
        )
        self._stream = pyarrow.ipc.new_stream(file, schema)
        self._schema = schema

    def add(self, record: Record) -> None:
        """Add one record."""
        self._pending.append(record)
        if len(self._pending) >= GROUP:
            self._flush()

    def end(self) -> None:
        """All records are added."""
        self._flush()
        self._stream.close()

    def _flush(self) -> None:
        arrays = []
        for name, kind in self._columns.items():
            values = [record.get(name) for record in self._pending]
            if kind is Timestamp:
                values = [value and datetime.fromisoformat(value) for value in values]
            elif kind not in _DECLARED and self.types[name] is not None:
                self.types[name] = _widened(self.types[name], _type_of(values, kind))
            declared = _DECLARED.get(kind, _TEXT)
            arrays.append(_texts(values) if declared is _TEXT else pyarrow.array(values, declared))
        self._stream.write_batch(pyarrow.record_batch(arrays, schema=self._schema))
        self._pending.clear()

    def copy_to(self, file: IO[bytes]) -> str | None:
        """Write all records as Parquet.

        Returns the name of a column whose type turns out not to hold all its cells: integers beyond
        2**53 among floats. The file is then to be written again.
        """
        types = {
            name: _TEXT if kind is None or pyarrow.types.is_null(kind) else kind
            for name, kind in self.types.items()
        }
        file.seek(0)
        file.truncate()
        self._file.seek(0)
        schema = pyarrow.schema(list(types.items()))
        with (
            parquet.ParquetWriter(file, schema) as writer,
            pyarrow.ipc.open_stream(self._file) as stream,
        ):
            for batch in stream:
                arrays = []
                for (name, kind), column in zip(types.items(), batch.columns, strict=True):
                    try:
                        arrays.append(column if column.type == kind else _parsed(column, kind))
                    except (pyarrow.ArrowException, OverflowError):
                        return name
                writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
        return None


def _texts(values: Sequence[Any]) -> pyarrow.Array:
    return pyarrow.array(
        [None if value is None else encodable(cell(value)) for value in values], _TEXT
    )


def _parsed(texts: pyarrow.Array, kind: pyarrow.DataType) -> pyarrow.Array:
    return pyarrow.array(
        [None if text is None else json.loads(text) for text in texts.to_pylist()], kind
    )


def _type_of(values: Sequence[Any], kind: ColumnType) -> pyarrow.DataType | None:
    """The type that holds these cells; None where Parquet has none."""
    if kind is Vector:
        vectors = [value for value in values if value is not None]
        if not vectors:
            return pyarrow.null()
        if not all(isinstance(value, list) for value in vectors):
            return None  # texts, of answers from before a change of the job's kind
        vector = pyarrow.list_(pyarrow.float32())
        return pyarrow.list_(vector) if isinstance(vectors[0][0], list) else vector
    try:
        found = pyarrow.array(values).type
    except (pyarrow.ArrowException, OverflowError):
        return None
    except UnicodeEncodeError:
        return _TEXT if all(value is None or type(value) is str for value in values) else None
    return found if _is_storable(found) else None


def _widened(one: pyarrow.DataType, other: pyarrow.DataType | None) -> pyarrow.DataType | None:
    """The type that holds the cells of both; None where there is none."""
    if other is None:
        return None
    try:
        schemas = [pyarrow.schema([("", kind)]) for kind in (one, other)]
        wide = pyarrow.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pyarrow.ArrowException:
        return None
    return wide if _is_storable(wide) else None


def _is_storable(kind: pyarrow.DataType) -> bool:
    """Whether Parquet can store the type. It has no objects without names."""
    if pyarrow.types.is_struct(kind):
        return 0 < kind.num_fields <= MOST_FIELDS and all(
            _is_storable(field.type) for field in kind
        )
    return _is_storable(kind.value_type) if pyarrow.types.is_list(kind) else True
