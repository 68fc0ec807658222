"""The images/ folder of a job: every picture whole, the current one under its row's plain name.

A picture is first written under a name of its own, `.kettle.png.<hash>.new`; then its answer is
recorded; then it gets the name that the record says. So whenever the process dies, the journal says
which file is which: `settle` renames what has an owner, and removes what has none. What lies at
that name moves to `replaced/` and is never overwritten. A name that is not the answer's own and is
in use, by another answer or by a file of the user, is not given at all.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write, make_folder, sweep, translating_errors
from batchgen.images.verification import decode, verify

# How many names of pictures are remembered whose answers may not be recorded yet. This is more than
# there are in flight.
REMEMBERED = 20_000

_NEW = re.compile(r"\.(.+)\.([0-9a-f]{16})\.new")

# An answer: its outcome id and its fingerprint.
Owner = tuple[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A stored picture: `path` relative to the output folder, `size` in bytes, `mtime` in ns."""

    path: str
    sha256: str
    size: int
    mtime: int


class PictureFolder:
    """The images/ folder of a job."""

    def __init__(self, output: Path, file_at: Callable[[str], Mapping[str, Any] | None]) -> None:
        """Touch nothing yet.

        `output` is the job's output folder; `file_at` returns what the journal records of the
        picture at a path below it, or None.
        """
        self._output = output
        self._folder = output / "images"
        self._file_at = file_at
        self._taken: dict[str, Owner] = {}
        self._naming = threading.Lock()
        self._is_prepared = False

    def prepare(self) -> None:
        """Make the folder and remove what a killed process left half written.

        Raises OutputError when it is a link or cannot be written.
        """
        make_folder(self._folder)
        sweep(self._folder)
        self._is_prepared = True

    def save(self, encoded: list[str], stem: str, owner: Owner) -> list[Picture]:
        """Verify every picture of an answer, then write them all; `stem` begins their names.

        Call `publish` when the answer is recorded. Raises UnreadableReplyError before anything is
        written, OutputError.
        """
        pictures = [(data := decode(each), verify(data)) for each in encoded]
        with self._naming:
            # Few texts bring pictures, so their folder is made when the first one comes.
            if pictures and not self._is_prepared:
                self.prepare()
        numbers = [""] if len(pictures) == 1 else [f"-{n}" for n in range(1, len(pictures) + 1)]
        return [
            self._write(data, f"{stem}{number}", extension, owner)
            for (data, extension), number in zip(pictures, numbers, strict=True)
        ]

    def _write(self, data: bytes, stem: str, extension: str, owner: Owner) -> Picture:
        digest = hashlib.sha256(data).hexdigest()
        path = f"images/{self._take_name(stem, extension, digest, owner)}"
        new = _unpublished(self._output / path, digest)
        with atomic_write(new, binary=True) as file:
            file.write(data)
        with translating_errors(new):
            mtime = new.stat().st_mtime_ns
        return Picture(path=path, sha256=digest, size=len(data), mtime=mtime)

    def _take_name(self, stem: str, extension: str, digest: str, owner: Owner) -> str:
        """The plain name, or one with the picture's hash when the plain one is not `owner`'s."""
        hashed = f"{stem}.{digest[:16]}"
        stems = itertools.chain((stem, hashed), (f"{hashed}-{n}" for n in itertools.count(2)))
        with self._naming:
            name = next(
                name for each in stems if self._is_free(name := f"{each}.{extension}", owner)
            )
            self._taken[name.lower()] = owner
            if len(self._taken) > REMEMBERED:
                del self._taken[next(iter(self._taken))]
        return name

    def _is_free(self, name: str, owner: Owner) -> bool:
        # In lower case: on some file systems `A.png` and `a.png` are one file.
        if self._taken.get(name.lower(), owner) != owner:
            return False
        file = self._file_at(f"images/{name}")
        if file is None:
            return not os.path.lexists(self._folder / name)
        return not file["ident"] or (file["ident"], file["key"]) == owner

    def publish(self, files: Iterable[Mapping[str, Any]]) -> None:
        """Give the pictures of a recorded answer their names. Raises OutputError."""
        for file in files:
            path = self._output / file["path"]
            new = _unpublished(path, file["sha256"])
            with translating_errors(path):
                if new.exists():
                    self._set_aside(path)
                    os.replace(new, path)

    def settle(self) -> None:
        """Publish what has an owner and was not published, and remove what has none.

        Call it while nothing is being answered. Raises OutputError.
        """
        with translating_errors(self._folder):
            for new in list(self._folder.glob(".*.new")):
                if not (match := _NEW.fullmatch(new.name)):
                    continue
                file = self._file_at(f"images/{match[1]}")
                if file and file["ident"] and file["sha256"].startswith(match[2]):
                    self.publish([file])
                else:
                    new.unlink()

    def set_aside(self, file: Mapping[str, Any]) -> None:
        """Move a picture that no answer owns any more to `replaced/`, if it is still there."""
        if is_intact(self._output, file, rehash=True):
            self._set_aside(self._output / file["path"])

    def _set_aside(self, path: Path) -> None:
        """Move what lies at a path to `replaced/`."""
        with translating_errors(path):
            if not os.path.lexists(path):
                return
            replaced = self._folder / "replaced"
            if not replaced.is_dir() or replaced.is_symlink():
                make_folder(replaced)
            is_file = stat.S_ISREG(path.lstat().st_mode)
            mark = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if is_file else "moved"
            os.replace(path, replaced / f"{path.stem}.{mark}{path.suffix}")


def _unpublished(path: Path, sha256: str) -> Path:
    """Where the picture of a path is until its answer is recorded."""
    return path.with_name(f".{path.name}.{sha256[:16]}.new")


def _paths(output: Path, file: Mapping[str, Any]) -> Iterator[Path]:
    """Where a stored picture may be, by its path and hash: a run may just be publishing it."""
    path = output / file["path"]
    yield from (path, _unpublished(path, file["sha256"]), path)


def is_intact(output: Path, file: Mapping[str, Any], *, rehash: bool = False) -> bool:
    """Whether a stored picture is still what was written, as `intact_mtime` finds out."""
    return intact_mtime(output, file, rehash=rehash) is not None


def intact_mtime(output: Path, file: Mapping[str, Any], *, rehash: bool = False) -> int | None:
    """The mtime (ns) of a stored picture that is still what was written; None for any other.

    Size and mtime decide; where the mtime differs, or with `rehash`, the SHA-256 does.
    """
    for path in _paths(output, file):
        try:
            status = path.lstat()
            if status.st_size != file["size"]:
                continue
            unchanged = not rehash and status.st_mtime_ns == file["mtime"]
            if unchanged or hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]:
                return int(status.st_mtime_ns)
        except OSError:
            continue
    return None


def stored(item: Mapping[str, Any], picture: Picture) -> dict[str, Any]:
    """A reply's data item with the picture's path, hash and size in place of its bytes."""
    kept = {name: value for name, value in item.items() if name != "b64_json"}
    return {**kept, "path": picture.path, "sha256": picture.sha256, "size": picture.size}


def restored(output: Path, item: Mapping[str, Any]) -> dict[str, Any] | None:
    """The reverse of `stored`: the data item as the API sent it.

    None when the picture is gone or was changed.
    """
    data = next(filter(None, (_read(path, item) for path in _paths(output, item))), None)
    if data is None:
        return None
    kept = {name: value for name, value in item.items() if name not in ("path", "sha256", "size")}
    return {"b64_json": base64.b64encode(data).decode(), **kept}


def _read(path: Path, item: Mapping[str, Any]) -> bytes | None:
    """The bytes at a path if they are the picture's."""
    try:
        data = path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b""
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == item["sha256"] else None
