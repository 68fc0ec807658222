"""Bytes -> lines of text: finds the encoding, checks and bounds each line, and numbers it for
errors.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from batchgen.prompts.formats import MAGIC_BYTES, check_bytes
from batchgen.prompts.rows import FileError
from batchgen.prompts.sources import unreadable

# The most characters in one row, so that a file without line ends cannot fill the memory.
LIMIT = 64 * 1024 * 1024

# The most lines without a row: a spreadsheet leaves a million empty ones at most, and a small .gz
# may unpack to hundreds of millions.
MOST_EMPTY = 5_000_000

# Lines between two reports of how far the reading has come.
_REPORTED = 1024

_EXCERPT = 80
# Characters of a block of text.
BLOCK = 64 * 1024
# That of UTF-16 is the beginning of the third.
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class Lines:
    """The lines of a file, to be read once, by `read`, `plain` or `blocks`.

    `encoding` is Python's name of it; `bom` says that a table made from the file should carry a
    BOM. `row_size` counts the characters of the current row: the format that reads the lines sets
    it to 0 at the end of each row. `last_row` is the line of the last row.
    """

    def __init__(
        self,
        binary: io.BufferedReader[Any],
        encoding: str | None,
        on_lines: Callable[[int], None] | None = None,
        *,
        skip_lines: int = 0,
    ) -> None:
        """Look at the first bytes. Raises FileError.

        binary: the file.
        encoding: the one that the job asks for.
        on_lines: called every now and then with how many lines were read.
        skip_lines: how many lines are left out, but counted.
        """
        try:
            self._head = binary.peek(MAGIC_BYTES)
        except OSError as error:
            raise unreadable(error, 0) from None
        check_bytes(self._head[:MAGIC_BYTES], "text")
        self.encoding, self.bom = _encoding(self._head[:64], encoding)
        self.row_size = 0
        self.last_row = 0
        self._binary, self._on_lines, self.skipped = binary, on_lines, skip_lines

    def read(self, newline: str) -> Iterator[str]:
        """Lines with their ends; `newline` as in TextIOWrapper.

        Raises FileError, also when a row passes LIMIT, or MOST_EMPTY lines hold no row.
        """
        # Bytes that are not text become lone surrogates, so that their line is known and
        # can be shown.
        text = io.TextIOWrapper(
            self._binary, self.encoding, errors="surrogateescape", newline=newline
        )
        number = 0
        # Whether a line before had letters outside ASCII, and was text.
        foreign = False
        try:
            for number, line in enumerate(iter(partial(text.readline, LIMIT + 1), ""), start=1):
                if not number % _REPORTED:
                    self._report(number)
                self.row_size += len(line)
                if self.row_size > LIMIT:
                    raise FileError(
                        number,
                        f"the row is longer than {LIMIT:,} characters; is a quote or line end "
                        "missing?",
                    )
                if not line.isascii():
                    _check_text(line, number, self.encoding, after_text=foreign)
                    foreign = True
                    if number == 1:
                        line = line.removeprefix("\ufeff")
                if number > self.skipped:
                    yield line
                else:
                    self.row_size = 0
        except UnicodeError:
            raise FileError(number + 1, _not_text(self.encoding)) from None
        except OSError as error:
            raise unreadable(error, number + 1) from None

    def _report(self, number: int) -> None:
        if number - self.last_row > MOST_EMPTY:
            raise FileError(
                self.last_row + 1,
                f"the next {MOST_EMPTY:,} lines hold no row; remove empty lines, or close a quote",
            )
        if self._on_lines is not None:
            self._on_lines(number)

    def plain(self) -> Iterator[tuple[int, str]]:
        """Yield each line as one row: its number, and its text without its end.

        LF and CRLF end a line, or CR in a file whose beginning has no LF: so old programs of the
        Macintosh write. No other character does.
        """
        head = self._head.decode(self.encoding, "replace")
        end = "\r" if "\r" in head and "\n" not in head else "\n"
        for number, line in enumerate(self.read(end), start=1 + self.skipped):
            self.row_size = 0
            yield number, line.removesuffix("\n").removesuffix("\r")

    def blocks(self) -> Iterator[str]:
        """The text in blocks that end anywhere. Raises FileError."""
        text = io.TextIOWrapper(self._binary, self.encoding, errors="surrogateescape", newline="")
        line, at_start = 1, True
        try:
            for block in iter(partial(text.read, BLOCK), ""):
                if not block.isascii():
                    for number, part in enumerate(block.split("\n"), start=line):
                        _check_text(part, number, self.encoding)
                yield block.removeprefix("\ufeff") if at_start else block
                at_start = False
                line += block.count("\n")
                self._report(line)
        except UnicodeError:
            raise FileError(line, _not_text(self.encoding)) from None
        except OSError as error:
            raise unreadable(error, line) from None


def _encoding(head: bytes, explicit: str | None) -> tuple[str, bool]:
    """Python's name of the encoding, and whether a table made from the file should carry a BOM."""
    marked = next((name for mark, name in _BOMS.items() if head.startswith(mark)), None)
    if explicit is None:
        if marked is None:
            _check_unmarked_utf16(head)
        return marked or "utf-8", marked is not None
    name = _codec(explicit)
    if marked is None:
        return name, name not in ("utf-8", "ascii")
    if name not in (marked, marked[: len("utf-16")]):
        raise FileError(
            0,
            f"begins with the byte order mark of {marked}, so it is not {explicit}; remove "
            "prompts.encoding",
        )
    return marked, True


def _codec(name: str) -> str:
    """Python's name of a text encoding; UTF-8 with and without BOM are one."""
    try:
        "".encode(name)  # unlike codecs.lookup, refuses base64 and its like
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        raise FileError(
            0, f"prompts.encoding {name!r} is not a text encoding; try utf-8, cp1252 or utf-16"
        ) from None
    return "utf-8" if codec == "utf-8-sig" else codec


def _check_unmarked_utf16(head: bytes) -> None:
    """Refuse text whose every second byte is NUL: as UTF-8 it would be valid, and nonsense."""
    if name := unmarked_utf16(head):
        raise FileError(
            0, f"looks like UTF-16 without a byte order mark; set prompts.encoding: {name}"
        )


def unmarked_utf16(head: bytes) -> str | None:
    """The UTF-16 that the first bytes of a file are, by the NULs of Latin text; None for none."""
    start = head[:16]
    for name, zeros, others in (
        ("utf-16-le", start[1::2], start[::2]),
        ("utf-16-be", start[::2], start[1::2]),
    ):
        if len(zeros) > 1 and not any(zeros) and all(others):
            return name
    return None


def _check_text(line: str, number: int, encoding: str, *, after_text: bool = False) -> None:
    """Raise FileError when bytes of the line are not text in the encoding (they were read as lone
    surrogates).

    `after_text`: lines before have letters outside ASCII that are text, so the encoding is right.
    """
    try:
        line.encode()
    except UnicodeEncodeError as error:
        if encoding != "utf-8":
            raise FileError(number, _not_text(encoding)) from None
        text = line.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
        excerpt = _excerpt(text.rstrip("\r\n"), len(line[: error.start].encode()))
        if after_text:
            raise FileError(
                number,
                f"is not UTF-8, and lines before it are; as cp1252 it reads '{excerpt}'. Write its "
                "letters anew, or save the file once more as UTF-8 where it comes from",
            ) from None
        raise FileError(
            number,
            f"is not UTF-8; as cp1252 the line reads '{excerpt}'. If that looks right, set "
            "prompts.encoding: cp1252 "
            "(only the first such line is shown)",
        ) from None


def _not_text(encoding: str) -> str:
    return f"has bytes that are not {encoding}; set prompts.encoding to what the file is written in"


def _excerpt(text: str, position: int) -> str:
    """At most _EXCERPT characters of the text around the position, with control characters
    escaped.
    """
    start = max(0, min(position - _EXCERPT // 2, len(text) - _EXCERPT))
    shown = "".join(
        c if c.isprintable() else ascii(c)[1:-1] for c in text[start : start + _EXCERPT]
    )
    return shown[:_EXCERPT]
