"""The images/ folder of a job: pictures are written once, and no paid picture is overwritten."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write, file_stamp, make_folder, sweep, translating_errors
from batchgen.errors import OutputError
from batchgen.images.verification import decode, verify

# How many taken names are remembered, because they may not be in the journal yet. This is more than
# there are pictures in flight.
REMEMBERED = 20_000

# The end of a name that was given because the plain one was an answer's.
_HASHED = re.compile(r"\.([0-9a-f]{16})\.[a-z]+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A stored picture: `path` relative to the output folder, `size` in bytes, `mtime` in ns."""

    path: str
    sha256: str
    size: int
    mtime: int


class PictureFolder:
    """The images/ folder of a job."""

    def __init__(self, output: Path, owned: Callable[[str], bool]) -> None:
        """Touch nothing yet.

        `output` is the job's output folder; `owned` says whether a path below it belongs to a
        recorded answer.
        """
        self._output = output
        self._folder = output / "images"
        self._owned = owned
        self._taken: dict[str, None] = {}
        # Names that answers owned when others took their place.
        self._contested: set[str] = set()
        self._naming = threading.Lock()

    def prepare(self) -> None:
        """Make the folder and remove what a killed process left half written.

        Raises OutputError when it is a link or cannot be written.
        """
        make_folder(self._folder)
        sweep(self._folder)

    def save(self, encoded: list[str], stem: str) -> list[Picture]:
        """Verify every picture of an answer, then write them all; `stem` begins their names.

        Raises UnreadableReplyError before anything is written, OutputError.
        """
        pictures = [(data := decode(each), verify(data)) for each in encoded]
        numbers = [""] if len(pictures) == 1 else [f"-{n}" for n in range(1, len(pictures) + 1)]
        return [
            self._write(data, f"{stem}{number}", extension)
            for (data, extension), number in zip(pictures, numbers, strict=True)
        ]

    def _write(self, data: bytes, stem: str, extension: str) -> Picture:
        digest = hashlib.sha256(data).hexdigest()
        path = self._take_name(stem, extension, digest)
        with atomic_write(path, binary=True) as file:
            file.write(data)
        try:
            mtime = path.stat().st_mtime_ns
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}; fix it and run again") from None
        return Picture(path=f"images/{path.name}", sha256=digest, size=len(data), mtime=mtime)

    def _take_name(self, stem: str, extension: str, digest: str) -> Path:
        """A name that no answer owns or is about to own.

        A file of that name may exist: then a crash left it before its answer was recorded.
        """
        names = (f"{stem}.{extension}", f"{stem}.{digest[:16]}.{extension}")
        with self._naming:
            if self._owned(f"images/{names[0]}"):
                self._contested.add(names[0])
            free = (
                name
                for name in names
                # In lower case: on some file systems `A.png` and `a.png` are one file.
                if name.lower() not in self._taken and not self._owned(f"images/{name}")
            )
            name = next(free, names[1])
            self._taken[name.lower()] = None
            if len(self._taken) > REMEMBERED:
                del self._taken[next(iter(self._taken))]
        return self._folder / name

    def set_aside_replaced(self) -> None:
        """Move pictures that answers of this job owned, and none owns any more, into `replaced/`.

        Only files that are known to be batchgen's are moved: those that an answer owned when this
        run began, and those with a hash in their names that is their own. Raises OutputError.
        """
        if not self._taken:
            return
        replaced = self._folder / "replaced"
        with translating_errors(self._folder), os.scandir(self._folder) as entries:
            for entry in entries:
                if name := self._replaced_name(Path(entry.path)):
                    if not replaced.is_dir():
                        make_folder(replaced)
                    os.replace(entry.path, replaced / name)

    def _replaced_name(self, path: Path) -> str | None:
        """The name for a picture in `replaced/`; None for a file that is not to be moved there."""
        named = _HASHED.search(path.name)
        if not named and path.name not in self._contested:
            return None
        if self._owned(f"images/{path.name}") or file_stamp(path) is None:
            return None
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        if named:
            return path.name if named[1] == digest else None
        return f"{path.stem}.{digest}{path.suffix}"


def is_intact(output: Path, file: Mapping[str, Any], *, rehash: bool = False) -> bool:
    """Whether a stored picture is still what was written, as `intact_mtime` finds out."""
    return intact_mtime(output, file, rehash=rehash) is not None


def intact_mtime(output: Path, file: Mapping[str, Any], *, rehash: bool = False) -> int | None:
    """The mtime (ns) of a stored picture that is still what was written; None for any other.

    Size and mtime decide; where the mtime differs, or with `rehash`, the SHA-256 does.
    """
    path = output / file["path"]
    try:
        status = path.lstat()
        if status.st_size != file["size"]:
            return None
        unchanged = not rehash and status.st_mtime_ns == file["mtime"]
        if unchanged or hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]:
            return int(status.st_mtime_ns)
        return None
    except OSError:
        return None


def stored(item: Mapping[str, Any], picture: Picture) -> dict[str, Any]:
    """A reply's data item with the picture's path, hash and size in place of its bytes."""
    kept = {name: value for name, value in item.items() if name != "b64_json"}
    return {**kept, "path": picture.path, "sha256": picture.sha256, "size": picture.size}


def restored(output: Path, item: Mapping[str, Any]) -> dict[str, Any] | None:
    """The reverse of `stored`: the data item as the API sent it.

    None when the picture is gone or was changed.
    """
    path = output / item["path"]
    try:
        data = path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b""
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != item["sha256"]:
        return None
    kept = {name: value for name, value in item.items() if name not in ("path", "sha256", "size")}
    return {"b64_json": base64.b64encode(data).decode(), **kept}
