"""A record is one line of a table. Its seal shows whether it is still what was written."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from batchgen.errors import DamagedError
from batchgen.journal.schema import COLUMNS, FIRST, REAL, SEALED

# What to do about a damaged journal.
MEND = "restore the journal from a backup, or mend it: batchgen redo JOB --damaged"

# What SQLite's INTEGER holds.
LARGEST = 2**63 - 1

# In the array, bytes are written as their length; the bytes themselves follow the array.
_encode = json.JSONEncoder(separators=(",", ":"), default=len).encode

# Half of a surrogate pair begins like this in JSON's ASCII, and so does a whole pair.
_SURROGATE = "\\ud"


def digest_of(text: str) -> bytes:
    """BLAKE2b of a text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def seal_of(cells: Sequence[Any]) -> bytes:
    """BLAKE2b, 16 bytes, of a record's other cells in order.

    They are written as a JSON array in ASCII. In the array, bytes are written as their length; the
    bytes themselves follow the array.
    """
    return _seal(_encode(cells), cells)


def _seal(text: str, cells: Sequence[Any]) -> bytes:
    blobs = [cell for cell in cells if type(cell) is bytes]
    return hashlib.blake2b(b"".join((text.encode(), *blobs)), digest_size=16).digest()


def is_sound(table: str, record: Sequence[Any]) -> bool:
    """Whether a record (all of its cells) is still what was written."""
    return bool(seal_of(record[FIRST[table] : -1]) == record[-1])


def damage_of(path: Path, table: str, record: Sequence[Any]) -> str:
    """The sentence for a record that does not fit its seal."""
    named = {
        "prompts": "the staged line {line} of the prompts",
        "rows": "the staged row {id}",
        "outcomes": "the outcome of {id}",
        "files": "the entry of {path}",
        "attempts": "an attempt at {id}",
        "reserved": "a call in flight for {id}",
        "runs": "the entry of run {run}",
        "batches": "the entry of batch {batch}",
        "members": "the request of {id} in batch {batch}",
        "meta": "the entry {name}",
        "follows": "what the outcome of {ident} followed",
        "adopted": "the new owner of {ident}",
    }
    cells = dict(zip(COLUMNS[table], record, strict=True))
    if "id" not in cells and "ident" in cells:
        cells["id"] = shown_id(cells["ident"], cells["key"])
    what = named[table].format(**cells)
    return f"{path}: {what} is not what was written; {MEND}"


def shown_id(outcome_id: Any, fingerprint: Any) -> str:
    """The id of a row as people know it, of whatever a damaged record holds."""
    if isinstance(outcome_id, str) and outcome_id.startswith("="):
        with suppress(ValueError, LookupError, TypeError):
            return str(json.loads(outcome_id[1:])[0])
    if isinstance(fingerprint, bytes):
        return f"{fingerprint.hex()[:12]} ({outcome_id})"
    return str(outcome_id)


def sealed(cells: Sequence[Any]) -> tuple[Any, ...]:
    """A record's cells, in the order of SEALED, with their seal; lone surrogates as U+FFFD."""
    text = _encode(cells)
    if _SURROGATE in text:
        cells = [encodable(cell) if isinstance(cell, str) else cell for cell in cells]
        text = _encode(cells)
    return (*cells, _seal(text, cells))


def storable(name: str, value: Any) -> Any:
    """A number of the column `name` as SQLite will return it: the seal covers what is read back."""
    if name in REAL and value is not None:
        return float(value)
    return fitting(int(value)) if isinstance(value, int) else value


def fitting(number: int | None) -> int | None:
    """A whole number, or None (unknown) for one beyond 64 bits.

    A row may ask for that many tokens, and a price may be that high.
    """
    return number if number is None or -LARGEST <= number <= LARGEST else None


def encodable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def insertion(table: str, *, replace: bool = False) -> str:
    """The statement that inserts a sealed record; `replace`: in place of one with the same key."""
    names = (*SEALED[table], "seal")
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    return f"{verb} INTO {table}({', '.join(names)}) VALUES({', '.join('?' * len(names))})"


def insert(
    connection: sqlite3.Connection, table: str, cells: Mapping[str, Any], *, replace: bool = False
) -> int:
    """Insert one record and return its rowid; cells that are not given are NULL."""
    record = sealed([storable(name, cells.get(name)) for name in SEALED[table]])
    return int(connection.execute(insertion(table, replace=replace), record).lastrowid or 0)


def update(
    connection: sqlite3.Connection, table: str, rowid: int, changes: Mapping[str, Any]
) -> None:
    """Change cells of one record and seal it again.

    Raises DamagedError when it was not sound before: damage must not be sealed in.
    """
    sql = f"SELECT * FROM {table} WHERE rowid = ?"
    record = tuple(connection.execute(sql, (rowid,)).fetchone() or ())
    if not record or not is_sound(table, record):
        (path,) = [
            path for _, name, path in connection.execute("PRAGMA database_list") if name == "main"
        ]
        what = f"a record of the table {table} is not what was written"
        raise DamagedError(f"{path}: {what}; {MEND}")
    cells = dict(zip(SEALED[table], record[FIRST[table] :], strict=False)) | dict(changes)
    marks = ", ".join(f"{name} = ?" for name in (*SEALED[table], "seal"))
    connection.execute(
        f"UPDATE {table} SET {marks} WHERE rowid = ?", (*sealed(list(cells.values())), rowid)
    )


# Bytes of a response up to which it is kept as it came: compressing costs more time than writing
# what it would save.
SMALL = 1000


def packed(response: bytes) -> bytes:
    """A response as it is stored: compressed where that pays."""
    small = zlib.compress(response, 6) if len(response) > SMALL else response
    return b"z" + small if len(small) < len(response) else b"r" + response


def unpacked(stored: bytes) -> bytes:
    """A response as it came. Raises DamagedError."""
    try:
        return zlib.decompress(stored[1:]) if stored[:1] == b"z" else stored[1:]
    except zlib.error:
        raise DamagedError("a stored response cannot be unpacked") from None
