"""What the journal's tables hold as plain data, and the seal that tells whether it is still what was written."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from batchgen.errors import DamagedError
from batchgen.journal.schema import FIRST, REAL, SEALED

# Bytes of a response up to which it is kept as it came: packing takes longer than writing what it would save.
SMALL = 1000

# What SQLite's INTEGER holds.
LARGEST = 2**63 - 1

# Bytes stand in the array as their number, and follow it.
_encode = json.JSONEncoder(separators=(",", ":"), default=len).encode

# Half of a surrogate pair in JSON's ASCII begins like this, and so does a whole one.
_SURROGATE = "\\ud"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One staged request with its status; `columns` are the prompt's cells, `text` these as they are kept, `error` why it
    cannot be sent."""

    seq: int
    n: int
    line: int
    id: str
    axes: dict[str, Any]
    conversation: str | None
    turn: int
    outcome_id: str
    fingerprint: bytes
    error: str | None
    columns: dict[str, Any]
    text: str
    status: str
    todo: bool

    @property
    def columns_digest(self) -> bytes:
        """What tells whether the prompt's cells are still those that an answer was asked with."""
        return digest_of(self.text)


class Recorded(NamedTuple):
    """A recorded outcome as its table holds it, less its seal; `cost` in nano-dollars, `packed` its response as stored."""

    outcome_id: str
    fingerprint: bytes
    status: str
    finish_reason: str | None
    model: str | None
    service_tier: str | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost: int | None
    attempts: int
    elapsed: float
    answered_at: float
    run: int
    reason: str | None
    http_status: int | None
    code: str | None
    message: str | None
    request_id: str | None
    passing: int
    columns_digest: bytes
    packed: bytes
    tries: int
    redo: int
    lost: int

    @property
    def response(self) -> bytes:
        """The API's JSON, b"" for a failure. Raises DamagedError when it does not unpack."""
        return unpacked(self.packed)


def digest_of(text: str) -> bytes:
    """BLAKE2b of a text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def seal_of(cells: Sequence[Any]) -> bytes:
    """BLAKE2b, 16 bytes, of a line's other cells in order: as a JSON array in ASCII, bytes as their number in it and
    as they are after it."""
    return _seal(_encode(cells), cells)


def _seal(text: str, cells: Sequence[Any]) -> bytes:
    blobs = [cell for cell in cells if type(cell) is bytes]
    return hashlib.blake2b(b"".join((text.encode(), *blobs)), digest_size=16).digest()


def is_sound(table: str, line: Sequence[Any]) -> bool:
    """Whether a line with all its cells is what was written."""
    return bool(seal_of(line[FIRST[table] : -1]) == line[-1])


def sealed(cells: Sequence[Any]) -> tuple[Any, ...]:
    """A line's cells, in the order of SEALED, with their seal; what is no UTF-8 as U+FFFD."""
    text = _encode(cells)
    if _SURROGATE in text:
        cells = [encodable(cell) if isinstance(cell, str) else cell for cell in cells]
        text = _encode(cells)
    return (*cells, _seal(text, cells))


def storable(name: str, value: Any) -> Any:
    """A number as SQLite will give it back: beyond 64 bits it is unknown."""
    if name in REAL and value is not None:
        return float(value)
    return fitting(int(value)) if isinstance(value, int) else value


def fitting(number: int | None) -> int | None:
    """A whole number, or None where it is beyond 64 bits: a row may ask for as much, and a price may be any."""
    return number if number is None or -LARGEST <= number <= LARGEST else None


def encodable(text: str) -> str:
    """The text with lone surrogates, which no UTF-8 file can hold, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def insertion(table: str, *, replace: bool = False) -> str:
    """The statement that writes a sealed line, in place of the one with its primary key if it may `replace` it."""
    names = (*SEALED[table], "seal")
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    return f"{verb} INTO {table}({', '.join(names)}) VALUES({', '.join('?' * len(names))})"


def insert(
    connection: sqlite3.Connection, table: str, cells: Mapping[str, Any], *, replace: bool = False
) -> int:
    """Write one line, of which absent cells are NULL; returns its rowid."""
    line = sealed([storable(name, cells.get(name)) for name in SEALED[table]])
    return int(connection.execute(insertion(table, replace=replace), line).lastrowid or 0)


def update(
    connection: sqlite3.Connection, table: str, rowid: int, changes: Mapping[str, Any]
) -> None:
    """Change cells of one line and seal it anew. Raises DamagedError when it was not what had been written."""
    found = tuple(
        connection.execute(f"SELECT * FROM {table} WHERE rowid = ?", (rowid,)).fetchone() or ()
    )
    if not found or not is_sound(table, found):
        (path,) = [
            path for _, name, path in connection.execute("PRAGMA database_list") if name == "main"
        ]
        told = f"{path}: a line of the table {table} is not what was written"
        raise DamagedError(f"{told}; restore the journal from a backup")
    cells = dict(zip(SEALED[table], found[FIRST[table] :], strict=False)) | dict(changes)
    marks = ", ".join(f"{name} = ?" for name in (*SEALED[table], "seal"))
    connection.execute(
        f"UPDATE {table} SET {marks} WHERE rowid = ?", (*sealed(list(cells.values())), rowid)
    )


def packed(response: bytes) -> bytes:
    """A response as it is stored: compressed where that pays."""
    small = zlib.compress(response, 6) if len(response) > SMALL else response
    return b"z" + small if len(small) < len(response) else b"r" + response


def unpacked(stored: bytes) -> bytes:
    """A response as it came. Raises DamagedError."""
    try:
        return zlib.decompress(stored[1:]) if stored[:1] == b"z" else stored[1:]
    except zlib.error:
        raise DamagedError("a stored response does not unpack") from None
