"""Tables as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from batchgen.disk import atomic_write
from batchgen.journal.records import encodable
from batchgen.tables.formats.table import Record, TableFile, Write


@contextmanager
def jsonl_writer(table: TableFile) -> Iterator[Write]:
    """Write JSON Lines: every cell keeps its JSON type."""
    with atomic_write(table.path, on_written=table.on_written) as file:

        def write(record: Record) -> None:
            file.write(_json_line({name: record.get(name) for name in table.columns}))

        yield write


def _json_line(record: Record) -> str:
    text = json.dumps(record, ensure_ascii=False)
    # UTF-8 cannot hold a lone surrogate; an escape of JSON can.
    return (text if encodable(text) == text else json.dumps(record)) + "\n"
