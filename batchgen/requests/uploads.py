"""The pictures that rows name: only regular picture files below one folder are ever read.

A row is data, perhaps somebody else's: no absolute path, no `..`, no link that leads out, no device or pipe.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from batchgen.replies import sniff
from batchgen.requests.faults import KeyPath, RequestError
from batchgen.requests.templates import TemplateError

# The image endpoints' own bounds (bytes) on what may be uploaded, and the formats they take.
MAX_PICTURE = 50_000_000
MAX_MASK = 4_000_000
MAX_PICTURES = 16
# Pictures whose hashes are remembered: rows that share pictures as a rule stand near each other.
REMEMBERED = 4096
PICTURES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file of a multipart request; `name` is what the row wrote, `sha256` what the key saw."""

    field: str
    path: str
    name: str
    media_type: str
    sha256: str


def read_upload(upload: Upload) -> bytes:
    """The file's bytes, which must still be those that the key was made of. Raises RequestError when they are not."""
    try:
        data = Path(upload.path).read_bytes()
    except OSError as error:
        raise RequestError(
            (upload.field,), f"{upload.name} cannot be read: {error.strerror}"
        ) from None
    if hashlib.sha256(data).hexdigest() != upload.sha256:
        raise RequestError(
            (upload.field,), f"{upload.name} has changed since the run began; run again"
        )
    return data


def unchanged(pictures: Sequence[Sequence[Any]]) -> bool:
    """Whether every (path, size, mtime) is still as it was."""
    for path, size, mtime in pictures:
        try:
            about = os.stat(path)
        except OSError:
            return False
        if (about.st_size, about.st_mtime_ns) != (size, mtime):
            return False
    return True


# A picture as it was when it was read: path, size in bytes, mtime in ns.
PictureStamp = tuple[str, int, int]


class Pictures:
    """The picture files below `folder` (resolved), and the hashes of those read last. Threads may use it at one time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._noted: list[PictureStamp] | None = None
        self._sha256 = lru_cache(maxsize=REMEMBERED)(self._read)

    def uploads(self, name: str, value: Any) -> list[Upload]:
        """The files of the field `name`: one path, or a list of 1 to 16. Raises RequestError."""
        paths = value if isinstance(value, list) else [value]
        if not 1 <= len(paths) <= MAX_PICTURES:
            raise RequestError(
                ("request", name), f"names {len(paths)} pictures; the API takes 1 to {MAX_PICTURES}"
            )
        part = f"{name}[]" if isinstance(value, list) else name
        return [self._upload(name, part, path) for path in paths]

    def _upload(self, name: str, part: str, given: Any) -> Upload:
        path, form = self._find(given, ("request", name))
        if part == "mask[]":
            raise RequestError(("request", name), "must be one picture, not a list")
        if name == "mask" and (form != "png" or path.stat().st_size >= MAX_MASK):
            raise RequestError(("request", name), f"{given} must be a PNG below 4 MB")
        return Upload(
            field=part,
            path=str(path),
            name=str(given),
            media_type=PICTURES[form],
            sha256=self._hash(path),
        )

    def _find(self, given: Any, key_path: KeyPath) -> tuple[Path, str]:
        """The picture file that a row names, and its format."""
        if not isinstance(given, str) or not given.strip() or not given.isprintable():
            raise RequestError(key_path, "names no picture file")
        pure = PurePosixPath(given)
        if pure.is_absolute() or ".." in pure.parts or "\\" in given:
            raise RequestError(
                key_path, f"{given!r} must be a path below {self._folder}, without '..'"
            )
        try:
            path = (self._folder / given).resolve(strict=True)
            about = path.stat()
        except OSError as error:
            raise RequestError(key_path, f"{given!r} in {self._folder}: {error.strerror}") from None
        except (RuntimeError, ValueError):  # a loop of links, a name that no file system takes
            raise RequestError(key_path, f"{given!r} in {self._folder} cannot be found") from None
        if not path.is_relative_to(self._folder):
            raise RequestError(key_path, f"{given!r} is a link that leads out of {self._folder}")
        if not stat.S_ISREG(about.st_mode) or about.st_size >= MAX_PICTURE:
            raise RequestError(key_path, f"{given!r} must be a regular file below 50 MB")
        try:
            with open(path, "rb") as file:
                form = sniff(file.read(12))
        except OSError as error:
            raise RequestError(key_path, f"{given!r} in {self._folder}: {error.strerror}") from None
        if form not in PICTURES:
            raise RequestError(key_path, f"{given!r} is not a PNG, JPEG or WebP picture")
        return path, form

    def _hash(self, path: Path) -> str:
        about = path.stat()
        return self._sha256((str(path), about.st_size, about.st_mtime_ns))

    def _read(self, mark: PictureStamp) -> str:
        if self._noted is not None:
            self._noted.append(mark)
        return hashlib.sha256(Path(mark[0]).read_bytes()).hexdigest()

    @contextmanager
    def recording_pictures(self) -> Iterator[list[PictureStamp]]:
        """A list to which every picture is added that is read while the block runs; who takes from it keeps it short. A
        picture may come more than once, but not while its hash is remembered."""
        # What was read before the block is read again, so that it is noted too.
        self._sha256.cache_clear()
        self._noted = []
        try:
            yield self._noted
        finally:
            self._noted = None

    def data_url(self, given: Any) -> str:
        """A picture as a data URL, as a template's filter. Raises TemplateError."""
        try:
            path, form = self._find(given, ("request",))
        except RequestError as fault:
            raise TemplateError(fault.message) from None
        self._hash(path)
        return f"data:{PICTURES[form]};base64,{base64.b64encode(path.read_bytes()).decode()}"
