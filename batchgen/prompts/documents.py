"""Blocks of text -> rows: a JSON document that is one array, or objects one after the other.

The document is decoded element by element as it is read, so that memory holds one element and one
block, however long the array is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from batchgen.prompts import lines as bounds
from batchgen.prompts.lines import Lines
from batchgen.prompts.options import TableOptions
from batchgen.prompts.records import DECODER, checked, reason
from batchgen.prompts.rows import FileError, RawRow, RawTable, RowError

_BLANK = re.compile(r"[ \t\r\n]*")
# An error of the decoder this near the end of what was read may be due to the cut: no token but a
# text is longer (`-Infinity`, `\ud83d\ude00`).
_LONGEST_TOKEN = 16
# Reads what the other decoder refuses in one element, to find where the element ends.
_LENIENT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


def read_json(lines: Lines, options: TableOptions) -> RawTable:
    """An array of objects or texts, or objects one after the other; a text is a `prompt`."""
    return RawTable(delimiter="", header=None, rows=_Document(lines).rows())


def _way_out(columns: dict[str, Any]) -> str:
    """How the rows in a document that is one object become a file of their own."""
    lists = [name for name, value in columns.items() if isinstance(value, list)]
    objects = [value for value in columns.values() if isinstance(value, dict)]
    if not lists and len(objects) == len(columns) > 0:
        return (
            "where each of its names is that of a row, write them as rows: "
            "jq -c 'to_entries[] | {id: .key} + .value' IN.json > OUT.jsonl"
        )
    if not lists:
        return "put it into brackets, [ ], if it is one row"
    longest = max(lists, key=lambda name: len(columns[name]))
    path = longest if longest.isidentifier() and longest.isascii() else json.dumps([longest])
    return f"take the array out of it: jq -c '.{path}[]' IN.json > OUT.jsonl"


class _Document:
    """The text of a document from `_at` on, as far as it was read."""

    def __init__(self, lines: Lines) -> None:
        self._blocks = lines.blocks()
        self._text, self._at, self._line = "", 0, 1
        self._ended = False

    def rows(self) -> Iterator[RawRow]:
        """The elements. Raises FileError where one of them is no JSON: the next is not found."""
        first = self._next_mark()
        if not first:
            return
        array = first == "["
        self._at += array
        count, row = 0, None
        while mark := self._next_mark():
            if array and mark == "]":
                self._at += 1
                if self._next_mark():
                    raise self._error("there is more text after the array; a file holds one array")
                return
            if array and count:
                if mark != ",":
                    raise self._error("expected a comma or the closing bracket of the array")
                self._at += 1
                self._next_mark()
            row = self._row()
            yield row
            count += 1
        if array:
            raise self._error("the array is never closed; is the file whole?")
        if count == 1 and row is not None:
            raise FileError(0, f"is one JSON object, not an array of objects; {_way_out(row[1])}")

    def _next_mark(self) -> str:
        """The next character that is no white space, without taking it; empty at the end."""
        while True:
            end = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches ""
            self._advance(end)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def _row(self) -> RawRow:
        """Take one element."""
        line = self._line
        value, end, fault = self._decoded()
        text = self._text[self._at : end]
        self._advance(end)
        try:
            return line, {} if fault else checked(value, text), fault
        except RowError as error:
            return line, {}, error

    def _decoded(self) -> tuple[Any, int, RowError | None]:
        """The element, where it ends, and what is wrong with it. Raises FileError."""
        while True:
            fault = None
            try:
                try:
                    value, end = DECODER.raw_decode(self._text, self._at)
                except RowError as error:
                    fault = error
                    value, end = _LENIENT.raw_decode(self._text, self._at)
                # A number, or the word of a constant, may go on in the next block.
                if end < len(self._text) or not self._read():
                    return value, end, fault
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or (
                    error.pos > len(self._text) - _LONGEST_TOKEN
                )
                if not cut or not self._read():
                    raise self._error(
                        f"{reason(error)}; what follows cannot be told apart", error.pos
                    ) from None
            except RecursionError:
                raise self._error("the JSON is nested too deeply") from None
            except ValueError:
                fault = RowError("a number has too many digits; write it as text")
                value, end = _LENIENT.raw_decode(self._text, self._at)
                return value, end, fault

    def _read(self) -> bool:
        """Read on, as much as there is already: an element is decoded anew from its beginning.

        Returns whether there was anything. Raises FileError.
        """
        pending = self._text[self._at :]
        if len(pending) > bounds.LIMIT:
            raise self._error(f"the element is longer than {bounds.LIMIT:,} characters")
        parts, size = [pending], 0
        for block in self._blocks:
            parts.append(block)
            size += len(block)
            if size >= len(pending):
                break
        self._text, self._at = "".join(parts), 0
        return size > 0

    def _advance(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _error(self, message: str, position: int | None = None) -> FileError:
        """A fault of the document at a position of the text (None: where it has been read to)."""
        position = self._at if position is None else position
        return FileError(self._line + self._text.count("\n", self._at, position), message)
