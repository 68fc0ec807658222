"""Files that appear whole or not at all, in folders that can be trusted.

Written under a temporary name in the same folder, synced, renamed into place, the folder synced: a reader, a crash or a
full disk never leaves half a file. Modes follow the umask; links that somebody planted are not followed.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO

from batchgen.errors import OutputError

# File systems on which SQLite's locks and shared memory cannot be trusted (sqlite.org/wal.html, "network filesystem").
NETWORK = frozenset(
    [
        "9p",
        "afs",
        "ceph",
        "cifs",
        "davfs",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.rclone",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    ]
)
MOUNTS = Path("/proc/self/mounts")
# What a file that appeared is known by later: its size in bytes and mtime in ns.
FileStamp = tuple[int, int]
_numbers = itertools.count()
_TEMPORARY = re.compile(r"\..*\.(\d+)-\d+\.tmp", re.DOTALL)


@contextmanager
def translating_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into an OutputError that says what to do."""
    try:
        yield
    except OSError as error:
        raise OutputError(_sentence(path, error)) from None


def _sentence(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{path}: the disk is full; nothing that was recorded is lost; make room and run again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: cannot be written ({error.strerror}); mend its permissions or choose another output.dir"
    return f"{path}: {error.strerror or error}; mend that and run again"


def make_folder(path: Path) -> None:
    """Make a folder, or check that it is one and no link, and that files can be made, synced and renamed in it.

    Raises OutputError, before anything is paid for.
    """
    with translating_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise OutputError(
                f"{path}: is a link or a file where a folder is needed; remove it and run again"
            )
    probe = path / f".probe.{os.getpid()}-0.tmp"
    with atomic_write(probe, binary=True) as file:
        file.write(b"batchgen")
    with translating_errors(path):
        probe.unlink()
    kind = file_system(path)
    if kind in NETWORK:
        raise OutputError(
            f"{path}: is on a network file system ({kind}), where a journal is not safe; use a local disk"
        )


def sweep(folder: Path, name: str = "") -> None:
    """Remove what writers that are gone left half written, before this process writes to the folder; with a `name` only what
    would have become the file of that name."""
    with translating_errors(folder):
        for path in folder.iterdir():
            found = _TEMPORARY.fullmatch(path.name)
            ours = not name or path.name.startswith(f".{name[:100]}.")
            if found and ours and not path.is_dir() and not _is_another(int(found[1])):
                path.unlink()


def _is_another(process: int) -> bool:
    """Whether a process of this number runs, and is not this one: a container's processes often have the same number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def refuse_link(path: Path) -> None:
    """Raise OutputError when `path` exists and is not a regular file of its own."""
    with suppress(FileNotFoundError):
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode):
            raise OutputError(f"{path}: is a link or no regular file; remove it and run again")


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`, as MOUNTS lists it; "" where there is no such list."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place, best, kind = str(path.resolve()), "", ""
    for line in lines:
        mount, fstype = line.split()[1:3]
        mount = mount.replace("\\040", " ")
        if len(mount) >= len(best) and (
            place == mount or place.startswith(mount.rstrip("/") + "/")
        ):
            best, kind = mount, fstype
    return kind


def temporary_path(folder: Path, name: str) -> Path:
    """A path for a file that is there only in passing: `sweep` removes it when this process is gone. Each has its own, as
    threads write pictures whose names may begin alike."""
    return folder / f".{name[:100]}.{os.getpid()}-{next(_numbers)}.tmp"


@contextmanager
def atomic_write(
    path: Path,
    *,
    binary: bool = False,
    encoding: str = "utf-8",
    errors: str = "strict",
    on_written: Callable[[Path, FileStamp], None] | None = None,
) -> Iterator[IO[Any]]:
    """Write `path` whole: what the block wrote replaces it when the block ends well, else it stays as it was. `on_written` is told
    how what the block wrote looks, whatever another process may put in its place at once.

    Raises OutputError for a disk that is full or a folder that cannot be written.
    """
    temporary = temporary_path(path.parent, path.name)
    with translating_errors(path):
        with suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with translating_errors(path):
            file: IO[Any] | BinaryIO = (
                os.fdopen(descriptor, "wb")
                if binary
                else os.fdopen(descriptor, "w", encoding=encoding, errors=errors, newline="")
            )
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                about = os.fstat(file.fileno())
            if on_written is not None:
                on_written(path, (about.st_size, about.st_mtime_ns))
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def file_stamp(path: Path) -> FileStamp | None:
    """How a file looks now; None where there is none, or a link."""
    try:
        about = path.lstat()
    except OSError:
        return None
    return (about.st_size, about.st_mtime_ns) if stat.S_ISREG(about.st_mode) else None


def sync_folder(path: Path) -> None:
    """Make a rename in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, text: str) -> None:
    """Add one line with the time (UTC) to a log; a link in its place is not followed."""
    refuse_link(path)
    with translating_errors(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")
