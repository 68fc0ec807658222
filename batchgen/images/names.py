"""A row's id -> a file name that is safe on every file system, and that no other row has."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Characters of a name before the number and the extension; file systems end at 255 bytes.
NAME_LENGTH = 100

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
# The names of devices on Windows, with any extension.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?\Z")
_HASHED = re.compile(r".*-[0-9a-f]{16}\Z")


def slug(identity: str) -> str:
    """A file name for a row's id, of A-Z a-z 0-9 . _ - only; never empty, never a device's name.

    It ends in a hash of the id unless it is exactly the id. An id with capitals gets one too: on
    some file systems `A` and `a` are one file. So does an id that ends like one with a hash.
    """
    plain = _UNSAFE.sub("_", unicodedata.normalize("NFKD", identity)).strip("._")[:NAME_LENGTH]
    if _RESERVED.match(plain):
        plain = plain.replace(".", "_")
    lossless = (
        plain == identity == plain.lower()
        and not _RESERVED.match(plain)
        and not _HASHED.match(plain)
    )
    return plain if lossless and plain else f"{plain or 'row'}-{_short_hash(identity)}"


def file_stem(identity: str, axes: Mapping[str, Any]) -> str:
    """The name of a row's pictures without number and extension: the id, then the axes' values."""
    parts = [identity, *(str(value) for value in axes.values())]
    stem = "-".join(slug(part) for part in parts)
    if len(stem) <= NAME_LENGTH * 2:
        return stem
    return f"{stem[:NAME_LENGTH]}-{_short_hash(stem)}"


def _short_hash(text: str) -> str:
    """64 bits of SHA-256: enough to tell apart a million rows with otherwise equal names."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
