"""What every writer of a table is given: the file's columns, and what happens to its cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchgen.disk import FileStamp

# Rows of a sheet of Excel, the header included.
SHEET_ROWS = 1_048_576

Record = dict[str, Any]
Write = Callable[[Record], None]
# Receives the path of a file that was written, and its stamp.
OnWritten = Callable[[Path, FileStamp], None]
# Receives a column's name and a cell of it; returns the cell to write.
Disarm = Callable[[str, str], str]


class Vector:
    """The type of a column of embeddings: lists of float32 numbers, or lists of such lists."""


class Timestamp:
    """The type of a column of times: text such as 2026-11-24T18:40:02Z, always UTC."""


class Picture:
    """The type of a column of pictures: paths relative to the output folder."""


# The type of a column: str, int and float for what batchgen counts and writes itself, `Vector`,
# `Timestamp`, `Picture`; `object` for cells that may be of any JSON type.
ColumnType = type


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """A table's file.

    Attributes:
        path: where it appears when it is complete.
        columns: its columns and their types, in order; a record's other values are left out.
        delimiter: separates the cells of a CSV.
        bom: whether a CSV begins with a byte order mark, by which Excel knows UTF-8.
        disarm: called last with every cell of a CSV below the header; None: cells stay as they are.
        on_written: called when the file is complete, before it appears.
        say: receives a sentence for the user about cells that the format cannot hold as they are.
    """

    path: Path
    columns: Mapping[str, ColumnType]
    delimiter: str
    bom: bool
    disarm: Disarm | None
    on_written: OnWritten | None
    say: Callable[[str], None]


# Opens a table's file. What it yields adds one record.
OpenTable = Callable[[TableFile], AbstractContextManager[Write]]


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
