"""Reads records from the pages of an SQLite file, where SQLite finds no way to them.

A lost inner page hides all the pages below it, although they are whole. Here each leaf of a table
is read by itself. https://sqlite.org/fileformat.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_TABLE_LEAF = 0x0D
# The bytes of integers and floats by their serial types; 8 and 9 are the numbers 0 and 1.
_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 0: 0, 8: 0, 9: 0}


# Where a damaged head says something else, the size is SQLite's usual one.
_PAGE_SIZES = {2**power for power in range(9, 16)}


class _TornError(Exception):
    """A cell does not hold a record."""


def records_of(path: Path, columns: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The rowid and the cells of each record with this many columns, whatever table it is of.

    What is not a record is passed over; records may be damaged. The rowid stands for an INTEGER
    PRIMARY KEY, whose cell is None.
    """
    with open(path, "rb") as file:
        pages = _Pages(file)
        for number in range(1, pages.count + 1):
            if number in pages.free:
                continue
            page = pages.read(number)
            start = 100 if number == 1 else 0
            if page[start] != _TABLE_LEAF:
                continue
            cells = int.from_bytes(page[start + 3 : start + 5], "big")
            for index in range(start + 8, min(start + 8 + 2 * cells, len(page) - 1), 2):
                offset = int.from_bytes(page[index : index + 2], "big")
                try:
                    rowid, record = pages.record(page, offset)
                except (_TornError, IndexError, struct.error, UnicodeDecodeError):
                    continue
                if len(record) == columns:
                    yield rowid, record


class _Pages:
    """The pages of a file.

    count: how many there are.
    free: the numbers of those that are in no table.
    """

    def __init__(self, file: BinaryIO) -> None:
        head = file.read(100).ljust(100, b"\0")
        size = int.from_bytes(head[16:18], "big")
        self._file = file
        self._size = 65536 if size == 1 else size if size in _PAGE_SIZES else 4096
        self._usable = self._size - (head[20] if head[20] < 32 else 0)
        self.count = file.seek(0, 2) // self._size
        self.free: set[int] = set()
        trunk = int.from_bytes(head[32:36], "big")
        while 0 < trunk <= self.count and trunk not in self.free:
            page = self.read(trunk)
            following, leaves = struct.unpack(">II", page[:8])
            self.free |= {
                trunk,
                *struct.unpack_from(f">{min(leaves, self._size // 4 - 2)}I", page, 8),
            }
            trunk = following

    def read(self, number: int) -> bytes:
        """A page, counted from 1."""
        self._file.seek((number - 1) * self._size)
        return self._file.read(self._size)

    def record(self, page: bytes, offset: int) -> tuple[int, tuple[Any, ...]]:
        """The rowid and the cells of the record at an offset of a leaf."""
        size, offset = _varint(page, offset)
        rowid, offset = _varint(page, offset)
        return _signed(rowid), _cells(self._payload(page, offset, size))

    def _payload(self, page: bytes, offset: int, size: int) -> bytes:
        """The bytes of a record, of which the pages of an overflow chain may hold the end."""
        if size > self.count * self._size:
            raise _TornError
        most, least = self._usable - 35, (self._usable - 12) * 32 // 255 - 23
        local = size
        if size > most:
            local = least + (size - least) % (self._usable - 4)
            local = local if local <= most else least
        payload = bytearray(page[offset : offset + local])
        following = int.from_bytes(page[offset + local : offset + local + 4], "big")
        while len(payload) < size:
            if not 0 < following <= self.count:
                raise _TornError
            page = self.read(following)
            following = int.from_bytes(page[:4], "big")
            payload += page[4 : self._usable]
        return bytes(payload[:size])


def _cells(payload: bytes) -> tuple[Any, ...]:
    """The cells of a record."""
    end, offset = _varint(payload, 0)
    at = end
    cells = []
    while offset < end:
        kind, offset = _varint(payload, offset)
        size = _SIZES[kind] if kind in _SIZES else (kind - 12) // 2
        if kind in (10, 11) or at + size > len(payload):
            raise _TornError
        cells.append(_cell(kind, payload[at : at + size]))
        at += size
    return tuple(cells)


def _cell(kind: int, data: bytes) -> Any:
    if kind == 0:
        return None
    if kind in (8, 9):
        return kind - 8
    if kind == 7:
        return struct.unpack(">d", data)[0]
    if kind < 7:
        return int.from_bytes(data, "big", signed=True)
    return data.decode() if kind % 2 else data


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, and the offset behind it."""
    number = 0
    for index in range(offset, offset + 8):
        number = number << 7 | data[index] & 0x7F
        if data[index] < 0x80:
            return number, index + 1
    return number << 8 | data[offset + 8], offset + 9


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
