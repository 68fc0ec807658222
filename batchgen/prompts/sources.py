"""A path or a stream -> bytes: opens the file, hashes its bytes, then unpacks them."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, BinaryIO

from batchgen.errors import InputError, Problem
from batchgen.prompts.formats import PACKINGS
from batchgen.prompts.rows import FileError

_BLOCK = 128 * 1024

# The modules that may have the `open` of each compression.
_DECOMPRESSORS = {
    ".gz": ["gzip"],
    ".bz2": ["bz2"],
    ".xz": ["lzma"],
    ".zst": ["compression.zstd", "backports.zstd"],  # the first from Python 3.14 on
}


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
    """SHA-256 of the file's raw bytes, as hex; a packed file is hashed without unpacking it.

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

    def whole(self) -> BinaryIO | io.RawIOBase:
        """The file below, hashed to its end and at its beginning again.

        For formats that are not read from front to back. Raises FileError.
        """
        try:
            while self.read(_BLOCK):
                pass
            self._stream.seek(0)
        except OSError as error:
            raise unreadable(error, 0) from None
        return self._stream


class _Unpacked(io.RawIOBase):
    """What a compressed file holds. Its reads raise OSError, with a sentence for what is wrong."""

    def __init__(self, packed: IO[bytes], packing: str) -> None:
        """`packed` decompresses as it is read; `packing` is a key of PACKINGS."""
        self._packed, self._packing = packed, packing

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; 0 at the end."""
        try:
            data = self._packed.read(len(buffer))
        except EOFError:
            raise OSError(f"{self._name} ends too early; copy or download it again") from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise self._damaged() from None
        except RuntimeError:  # zipfile's word for a password
            raise OSError(f"{self._name} is encrypted; unzip it") from None
        except Exception:
            # Each decompressor has errors of its own, and zstd's come with a package.
            raise self._damaged() from None
        buffer[: len(data)] = data
        return len(data)

    @property
    def _name(self) -> str:
        return f"the {PACKINGS[self._packing]} file"

    def _damaged(self) -> OSError:
        return OSError(
            f"{self._name} is damaged, or is not {PACKINGS[self._packing]}; copy or download it "
            f"again, or drop {self._packing}"
        )


def unpacked(hashed: Hashed, packing: str) -> io.BufferedReader[Any]:
    """The bytes to be decoded; `packing` is a key of PACKINGS, or empty.

    Its reads and peeks raise OSError. Raises FileError.
    """
    if not packing:
        return io.BufferedReader(hashed, _BLOCK)
    packed = _member(hashed) if packing == ".zip" else _decompressed(hashed, packing)
    # The outer buffer asks for whole blocks, so that a peek sees a BOM even across the blocks of
    # the compression.
    return io.BufferedReader(_Unpacked(packed, packing), _BLOCK)


def _decompressed(hashed: Hashed, packing: str) -> IO[bytes]:
    binary: io.BufferedReader[Any] = io.BufferedReader(hashed, _BLOCK)
    modules = _DECOMPRESSORS[packing]
    for module in modules:
        with suppress(ImportError):
            file: IO[bytes] = import_module(module).open(binary, "rb")
            return file
    install = (
        "backports.zstd; install it from the checkout with: pip install '.[zstd]'"
        if packing == ".zst"
        else f"Python's module {modules[0]}, which this Python was built without; unpack it"
    )
    raise FileError(0, f"a {packing} needs {install}")


def _member(hashed: Hashed) -> IO[bytes]:
    """The one file in a zip file. Raises FileError when there is another number of them."""
    try:
        archive = zipfile.ZipFile(hashed.whole())
    except (zipfile.BadZipFile, OSError):
        raise FileError(
            0, "is no zip file, or is damaged; copy or download it again, or drop .zip"
        ) from None
    # macOS adds a folder of its own.
    files = [
        each
        for each in archive.infolist()
        if not each.is_dir() and not each.filename.startswith("__MACOSX/")
    ]
    if len(files) != 1:
        names = ", ".join(each.filename for each in files[:5])
        raise FileError(
            0,
            f"the zip file holds {len(files)} files{f' ({names})' if names else ''}; "
            "unzip it and name one of them",
        )
    try:
        return archive.open(files[0])
    except RuntimeError:
        raise FileError(0, "the zip file is encrypted; unzip it") from None
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise FileError(0, f"the zip file cannot be read ({error}); unzip it") from None


def unreadable(error: OSError, line: int) -> FileError:
    """An error of reading, in plain words."""
    if error.errno is None:
        return FileError(line, str(error))
    return FileError(line, f"cannot be read: {error.strerror}")
