"""A path or a stream -> bytes: opens the file, hashes its bytes, then unzips them."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.errors import InputError, Problem
from batchgen.prompts.rows import FileError

# The errors that reading a file can raise, zipped or not.
READ_ERRORS = (OSError, EOFError, zlib.error)

_BLOCK = 128 * 1024


def open_file(path: Path, display_name: str) -> io.FileIO:
    """Open a regular file for reading; `display_name` is its name in errors. Raises InputError."""
    try:
        mode = os.stat(path).st_mode  # before opening, because opening a FIFO would block for ever
        if stat.S_ISDIR(mode):
            raise _refusal(display_name, "is a folder; name the prompts file in it")
        if not stat.S_ISREG(mode):
            raise _refusal(
                display_name, 'is not a regular file; for a stream use "-" and pipe it in'
            )
        return io.FileIO(path)
    except FileNotFoundError:
        folder = f" (looked in {path.parent})" if display_name != str(path) else ""
        raise _refusal(display_name, f"there is no such file{folder}") from None
    except OSError as error:
        raise _refusal(display_name, f"cannot be opened: {error.strerror}") from None
    except ValueError:
        raise _refusal(
            display_name, "cannot be opened: the name contains a NUL character"
        ) from None


def file_digest(path: Path) -> str:
    """SHA-256 of the file's raw bytes, as hex; a .gz is hashed without unzipping it.

    `PromptsFile.digest` has the same value at its end. Raises InputError when the file cannot be
    read.
    """
    with open_file(path, str(path)) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _refusal(str(path), f"cannot be read: {error.strerror}") from None


def _refusal(display_name: str, message: str) -> InputError:
    return InputError([Problem(path=display_name, message=message)])


class Hashed(io.RawIOBase):
    """A raw stream that hashes what passes through it; closing it leaves the stream below open."""

    def __init__(self, stream: BinaryIO | io.RawIOBase) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the stream; 0 at its end."""
        data = self._stream.read(len(buffer)) or b""
        self.sha256.update(data)
        buffer[: len(data)] = data
        return len(data)


def unzipped(hashed: Hashed, zipped: bool) -> io.BufferedReader[Any]:
    """The bytes to be decoded. Its reads and peeks raise READ_ERRORS."""
    binary: io.BufferedReader[Any] = io.BufferedReader(hashed, _BLOCK)
    if zipped:
        # The outer buffer asks for whole blocks, so that a peek sees a BOM even across gzip's own
        # blocks.
        binary = io.BufferedReader(gzip.GzipFile(fileobj=binary, mode="rb"), _BLOCK)
    return binary


def unreadable(error: Exception, line: int) -> FileError:
    """One of READ_ERRORS in plain words."""
    if isinstance(error, EOFError):
        return FileError(line, "the gzip file ends too early; copy or download it again")
    if isinstance(error, (gzip.BadGzipFile, zlib.error)):
        return FileError(
            line, "the gzip file is damaged, or is not gzip; copy or download it again, or drop .gz"
        )
    return FileError(line, f"cannot be read: {getattr(error, 'strerror', None) or error}")
