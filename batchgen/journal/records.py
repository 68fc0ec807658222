"""What the journal's tables hold as plain data, and the seal that tells whether it is still what was written."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from batchgen.errors import DamagedError
from batchgen.journal.schema import REAL

# What SQLite's INTEGER holds.
LARGEST = 2**63 - 1

_UNSEALED = frozenset(["seq", "seal"])

_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True, default=bytes.hex).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One staged request with its status; `columns` are the prompt's cells, `error` why it cannot be sent."""

    seq: int
    n: int
    line: int
    id: str
    axes: dict[str, Any]
    conversation: str | None
    turn: int
    ident: str
    key: str
    error: str | None
    columns: dict[str, Any]
    columns_digest: bytes
    status: str
    todo: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recorded outcome. `response` is the API's JSON (b"" for a failure), `cost` in nano-dollars."""

    ident: str
    key: str
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
    passing: bool
    columns_digest: bytes
    response: bytes
    tries: int = 0

    def cells(self) -> dict[str, Any]:
        """The outcome as its table holds it, less what a `redo` and a lost picture add."""
        return {**{name: getattr(self, name) for name in _RECORDED}, "response": packed(self.response)}


_RECORDED = tuple(field.name for field in fields(Recorded))


def recorded_of(cells: Mapping[str, Any]) -> Recorded:
    """The outcome in a sound line of its table. Raises DamagedError when its response does not unpack."""
    values = {name: cells[name] for name in _RECORDED}
    return Recorded(**{**values, "passing": bool(cells["passing"]), "response": unpacked(cells["response"])})


def digest_of(text: str) -> bytes:
    """BLAKE2b of a text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def seal_of(cells: Mapping[str, Any]) -> bytes:
    """BLAKE2b, 16 bytes, of every cell of a table's line but `seq`, `seal` and those that are NULL."""
    sealed = {name: value for name, value in cells.items() if value is not None and name not in _UNSEALED}
    return hashlib.blake2b(_encode(sealed).encode(), digest_size=16).digest()


def is_sound(cells: Mapping[str, Any]) -> bool:
    """Whether a line is what was written."""
    return bool(seal_of(cells) == cells["seal"])


def storable(name: str, value: Any) -> Any:
    """A value as SQLite will give it back: what is no UTF-8 as U+FFFD, a number beyond 64 bits as unknown."""
    if isinstance(value, str):
        return encodable(value)
    if name in REAL and value is not None:
        return float(value)
    if isinstance(value, int):
        return int(value) if -LARGEST <= value <= LARGEST else None
    return value


def encodable(text: str) -> str:
    """The text with lone surrogates, which no UTF-8 file can hold, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def insert(connection: sqlite3.Connection, table: str, cells: Mapping[str, Any], *, replace: bool = False) -> int:
    """Write one sealed line, in place of the one with its primary key if it may `replace` it; returns its rowid."""
    stored = {name: storable(name, value) for name, value in cells.items()}
    stored["seal"] = seal_of(stored)
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    sql = f"{verb} INTO {table}({', '.join(stored)}) VALUES({', '.join('?' * len(stored))})"
    return int(connection.execute(sql, tuple(stored.values())).lastrowid or 0)


def update(connection: sqlite3.Connection, table: str, rowid: int, changes: Mapping[str, Any]) -> None:
    """Change cells of one line and seal it anew. Raises DamagedError when it was not what had been written."""
    found = connection.execute(f"SELECT * FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
    names = found.keys() if isinstance(found, sqlite3.Row) else ()
    cells = dict(zip(names, found, strict=True))
    if not is_sound(cells):
        (path,) = [path for _, name, path in connection.execute("PRAGMA database_list") if name == "main"]
        told = f"{path}: a line of the table {table} is not what was written"
        raise DamagedError(f"{told}; restore the journal from a backup")
    cells |= changes
    marks = ", ".join(f"{name} = ?" for name in (*changes, "seal"))
    values = (*changes.values(), seal_of(cells), rowid)
    connection.execute(f"UPDATE {table} SET {marks} WHERE rowid = ?", values)


def packed(response: bytes) -> bytes:
    """A response as it is stored: compressed where that pays."""
    small = zlib.compress(response, 6) if len(response) > 200 else response
    return b"z" + small if len(small) < len(response) else b"r" + response


def unpacked(stored: bytes) -> bytes:
    """A response as it came. Raises DamagedError."""
    try:
        return zlib.decompress(stored[1:]) if stored[:1] == b"z" else stored[1:]
    except zlib.error:
        raise DamagedError("a stored response does not unpack") from None
