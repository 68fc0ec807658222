"""The encoding of a file that is not UTF-8, as far as its bytes show it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from batchgen.errors import InputError, Problem
from batchgen.prompts.formats import MAGIC_BYTES, FileName, check_bytes
from batchgen.prompts.letters import odd_letters
from batchgen.prompts.lines import unmarked_utf16
from batchgen.prompts.rows import FileError
from batchgen.prompts.sources import Hashed, open_file, unpacked

# The encodings that are considered, the likelier one first where several fit as well. GB 18030
# holds all of GBK and GB 2312.
_ENCODINGS = (
    "gb18030",
    "big5",
    "cp932",
    "euc_jp",
    "cp949",
    "cp1251",
    "koi8_r",
    "cp1252",
    "cp1250",
    "mac_roman",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp1257",
    "iso8859_2",
    "cp874",
    "mac_cyrillic",
    "cp866",
    "cp437",
    "cp850",
)
# Two encodings whose measures of disorder, or whose parts of odd letters, differ by less fit
# equally well.
_CLOSE = 0.02
# Of encodings of Latin letters, the one that nearly all files in one of them have, and how much
# more disorder it may have.
_COMMON = "cp1252"
_LATIN = frozenset(
    ("cp1252", "cp1250", "mac_roman", "cp1254", "cp1257", "iso8859_2", "cp437", "cp850")
)
_MARGIN = 0.3
# Bytes of the lines with letters outside ASCII that are enough to judge by.
_ENOUGH = 64 * 1024
# The longest piece of a line that is looked at.
_LONGEST = 1024 * 1024
# A byte that is not part of UTF-8, as Python decodes it.
_BROKEN = re.compile("[\udc80-\udcff]")
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Guess:
    """A guessed encoding, by Python's name, and words of the file that show whether it is right."""

    encoding: str
    proof: tuple[str, ...]


def guess_encoding(path: Path) -> Guess | None:
    """The encoding of a text that is not UTF-8; None where it is, or says so by its first bytes.

    Of a file that cannot be read nothing is said here. Raises InputError for UTF-8 with broken
    lines, and where no encoding fits.
    """
    try:
        with open_file(path, str(path)) as file:
            binary = unpacked(Hashed(file), FileName.of(path.name).packing)
            head = binary.peek(MAGIC_BYTES)[:MAGIC_BYTES]
            check_bytes(head, "text")
            if utf16 := unmarked_utf16(head):
                sample = binary.read(_ENOUGH)
                return Guess(utf16, _proof(sample[: len(sample) // 2 * 2].decode(utf16, "replace")))
            if head.startswith(_BOMS) or b"\0" in head:
                return None
            return _of_lines(path, binary)
    except (FileError, OSError):
        return None


def _of_lines(path: Path, binary: io.BufferedReader[Any]) -> Guess | None:
    found = _Bytes()
    for number, line in enumerate(iter(partial(binary.readline, _LONGEST), b""), start=1):
        if not line.isascii():
            found.add(number, line)
    if not found.bad_lines:
        return None
    if found.good_lines >= found.bad_lines or found.good >= found.bad:
        raise InputError([Problem(path=str(path), line=found.first, message=found.message())])
    return _guess(path, bytes(found.sample))


class _Bytes:
    """The lines with bytes outside ASCII: which are UTF-8.

    Attributes:
        good, bad: letters in UTF-8, and bytes that are none.
        good_lines, bad_lines: lines that are UTF-8, and lines that are not.
        first: the first line that is not.
        sample: some of the lines.
    """

    def __init__(self) -> None:
        self.good = self.bad = self.good_lines = self.bad_lines = self.first = 0
        self.sample = bytearray()
        self._excerpt = ""

    def add(self, number: int, line: bytes) -> None:
        """Count a line."""
        if len(self.sample) < _ENOUGH:
            self.sample += line
        text = line.decode("utf-8", "surrogateescape")
        wrong = _BROKEN.findall(text)
        self.good += sum(not letter.isascii() for letter in text) - len(wrong)
        self.bad += len(wrong)
        self.good_lines += not wrong
        self.bad_lines += bool(wrong)
        if wrong and not self.first:
            self.first = number
            at = text.index(wrong[0])
            self._excerpt = _BROKEN.sub(
                "\N{REPLACEMENT CHARACTER}", text[max(0, at - 30) : at + 30]
            )

    def message(self) -> str:
        """What is wrong with a file that is UTF-8 in most lines."""
        others = f"{self.bad_lines - 1:,} more lines" if self.bad_lines > 1 else ""
        return (
            f"this line{' and ' + others if others else ''} is not UTF-8, and the others are: "
            f"'{self._excerpt.strip()}'; write its broken letters anew, or save the file once more "
            "as UTF-8 where it comes from"
        )


def _guess(path: Path, sample: bytes) -> Guess:
    # Late: it costs time that a file in UTF-8 does not need.
    from charset_normalizer import from_bytes

    odd = {name: odd_letters(text) for name, text in _readings(sample)}
    least = min(odd.values(), default=0.0)
    disorder: dict[str, float] = {}
    for match in from_bytes(sample, cp_isolation=list(_ENCODINGS), threshold=1):
        for name in (match.encoding, *match.could_be_from_charset):
            if odd.get(name, 1.0) <= least + _CLOSE:
                disorder[name] = min(match.chaos, disorder.get(name, 1.0))
    if not disorder:
        message = "is not UTF-8, and no known encoding fits; name it with --encoding"
        raise InputError([Problem(path=str(path), message=message)])
    best = min(disorder.values())
    names = {name for name in disorder if disorder[name] <= best + _CLOSE}
    if names <= _LATIN and disorder.get(_COMMON, 1.0) <= best + _MARGIN:
        names.add(_COMMON)
    encoding = min(names, key=_ENCODINGS.index)
    return Guess(encoding, _proof(sample.decode(encoding, "replace")))


def _readings(sample: bytes) -> Iterator[tuple[str, str]]:
    """The sample as each of the encodings reads it that can."""
    for name in _ENCODINGS:
        with suppress(UnicodeDecodeError):
            yield name, sample.decode(name)


def _proof(text: str) -> tuple[str, ...]:
    """Two words with letters outside ASCII, as the encoding reads them."""
    words = re.findall(r"[^\W\d_]+", text)
    foreign = [word[:20] for word in dict.fromkeys(words) if not word.isascii()]
    return tuple((foreign or words)[:2])
