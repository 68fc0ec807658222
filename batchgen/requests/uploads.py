"""The pictures and PDFs that rows name: only such files below one folder are ever read.

A row is data, perhaps another person's, so its path must not be absolute, contain `..`, follow a
link out of the folder, or name a device or a pipe.
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

from batchgen.job import KeyPath
from batchgen.replies import sniff
from batchgen.requests.faults import RequestError, TemplateError

# The image endpoints' own limits: bytes of a picture and of a mask, pictures, and formats.
# https://platform.openai.com/docs/api-reference/images/createEdit
MAX_PICTURE = 50_000_000
MAX_MASK = 4_000_000
MAX_PICTURES = 16
# Pictures whose hashes are cached: rows that share a picture are usually near each other in the
# file.
REMEMBERED = 4096
PICTURES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
# What a data URL may hold.
_SHOWN = {**PICTURES, "pdf": "application/pdf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file of a multipart request.

    `name` is the path as the row has it; `sha256` went into the fingerprint.
    """

    field: str
    path: str
    name: str
    media_type: str
    sha256: str


def read_upload(upload: Upload) -> bytes:
    """The file's bytes.

    Raises RequestError when they are no longer those that the fingerprint was made of.
    """
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
            status = os.stat(path)
        except OSError:
            return False
        if (status.st_size, status.st_mtime_ns) != (size, mtime):
            return False
    return True


# Identifies a picture as it was when it was read: path, size in bytes, mtime in ns.
PictureStamp = tuple[str, int, int]


class Pictures:
    """The picture files below `folder` (resolved), with a cache of their hashes.

    Several threads may use it at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._recorded: list[PictureStamp] | None = None
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

    def _upload(self, name: str, part: str, value: Any) -> Upload:
        path, form = self._find(value, ("request", name))
        if form not in PICTURES:
            raise RequestError(("request", name), f"{value!r} is not a PNG, JPEG or WebP picture")
        if part == "mask[]":
            raise RequestError(("request", name), "must be one picture, not a list")
        if name == "mask" and (form != "png" or path.stat().st_size >= MAX_MASK):
            raise RequestError(("request", name), f"{value} must be a PNG below 4 MB")
        return Upload(
            field=part,
            path=str(path),
            name=str(value),
            media_type=PICTURES[form],
            sha256=self._hash(path),
        )

    def _find(self, value: Any, key_path: KeyPath) -> tuple[Path, str]:
        """The picture or PDF that a row names, and its format. Raises RequestError."""
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise RequestError(key_path, "names no picture file")
        pure = PurePosixPath(value)
        if pure.is_absolute() or ".." in pure.parts or "\\" in value:
            raise RequestError(
                key_path, f"{value!r} must be a path below {self._folder}, without '..'"
            )
        try:
            path = (self._folder / value).resolve(strict=True)
            status = path.stat()
        except OSError as error:
            raise RequestError(key_path, f"{value!r} in {self._folder}: {error.strerror}") from None
        except (RuntimeError, ValueError):  # a loop of links, or a name that no file system takes
            raise RequestError(key_path, f"{value!r} in {self._folder} cannot be found") from None
        if not path.is_relative_to(self._folder):
            raise RequestError(key_path, f"{value!r} is a link that leads out of {self._folder}")
        if not stat.S_ISREG(status.st_mode) or status.st_size >= MAX_PICTURE:
            raise RequestError(key_path, f"{value!r} must be a regular file below 50 MB")
        try:
            with open(path, "rb") as file:
                head = file.read(12)
        except OSError as error:
            raise RequestError(key_path, f"{value!r} in {self._folder}: {error.strerror}") from None
        form = "pdf" if head.startswith(b"%PDF-") else sniff(head)
        if form not in _SHOWN:
            raise RequestError(key_path, f"{value!r} is not a PNG, JPEG or WebP picture, or a PDF")
        return path, form

    def _hash(self, path: Path) -> str:
        status = path.stat()
        return self._sha256((str(path), status.st_size, status.st_mtime_ns))

    def _read(self, mark: PictureStamp) -> str:
        if self._recorded is not None:
            self._recorded.append(mark)
        return hashlib.sha256(Path(mark[0]).read_bytes()).hexdigest()

    @contextmanager
    def recording(self) -> Iterator[list[PictureStamp]]:
        """A list that gets a stamp of every picture read while the block runs; the caller may take
        items out of it.

        A picture is listed again when its hash has left the cache in between.
        """
        # Pictures that were read before the block must be read again, to be recorded too.
        self._sha256.cache_clear()
        self._recorded = []
        try:
            yield self._recorded
        finally:
            self._recorded = None

    def data_url(self, value: Any) -> str:
        """The template filter that turns the path of a picture or a PDF into a data URL.

        Raises TemplateError.
        """
        try:
            path, form = self._find(value, ("request",))
        except RequestError as error:
            raise TemplateError(error.message) from None
        self._hash(path)
        return f"data:{_SHOWN[form]};base64,{base64.b64encode(path.read_bytes()).decode()}"
