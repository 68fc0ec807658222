"""Files that appear whole or not at all, in folders that can be trusted.

A file is written under a temporary name in the same folder, synced and renamed into place, and the
folder is synced. So neither a crash nor a full disk leaves half a file, and no reader sees one.
Modes follow the umask. Links are not followed, because another user may have made them.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO

from batchgen.errors import OutputError
from batchgen.escapes import one_line

# File systems on which SQLite's locks and shared memory cannot be trusted: sqlite.org/wal.html,
# "network filesystem".
_NETWORK_TYPES = """
    9p afs beegfs ceph cifs davfs drvfs fhgfs glusterfs gpfs lustre ncpfs nfs nfs4 orangefs panfs
    prl_fs pvfs2 smb3 smbfs vboxsf vmhgfs wekafs
    fuse.blobfuse fuse.blobfuse2 fuse.ceph fuse.ceph-fuse fuse.curlftpfs fuse.davfs
    fuse.gcsfuse fuse.glusterfs fuse.goofys fuse.juicefs fuse.lizardfs fuse.mfs fuse.rclone
    fuse.s3fs fuse.seaweedfs fuse.sshfs fuse.vmhgfs-fuse
"""
NETWORK = frozenset(_NETWORK_TYPES.split())
MOUNTS = Path("/proc/self/mounts")
# A line of what `mount` lists on macOS: what, where, and flags that begin with the type.
_MAC_MOUNT = re.compile(r".* on (/.*) \((.*)\)")

# The size (bytes) and mtime (ns) of a file; they show whether the file was changed later.
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
        return (
            f"{path}: cannot be written ({error.strerror}); "
            "fix its permissions or choose another output.dir"
        )
    return f"{path}: {error.strerror or error}; fix it and run again"


def make_folder(path: Path) -> None:
    """Make a folder, or check an existing one; then try to write a file in it.

    Raises OutputError, before anything is paid for: when the path is a link or a file, when files
    cannot be written, synced and renamed in it, and on a network file system.
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
    if kind := network_type(path):
        raise OutputError(
            f"{path}: is on a network file system ({kind}), where a journal is not safe; "
            "use a local disk"
        )


def sweep(folder: Path, name: str = "") -> None:
    """Remove the temporary files and folders of processes that are gone.

    Call it before this process writes to the folder. With a `name`, only the temporary files that
    would have become the file of that name are removed.
    """
    with translating_errors(folder):
        for path in folder.iterdir():
            temporary = _TEMPORARY.fullmatch(path.name)
            wanted = not name or path.name.startswith(f".{name[:100]}.")
            if not temporary or not wanted or _is_another(int(temporary[1])):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_another(process: int) -> bool:
    """Whether a process with this number runs and is not this one.

    In a container a process often has the number that the one before it had.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def refuse_link(path: Path) -> None:
    """Raise OutputError when `path` exists and is not a regular file."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OutputError(f"{path}: is a link or not a regular file; remove it and run again")


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, by links, hard links or letters of another case."""
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return False


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`; "" where the machine has no list of them."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    resolved, longest, kind = str(path.resolve()), "", ""
    for line in lines:
        mount, fstype = line.split()[1:3]
        # The list escapes spaces. Of two mounts at one point the later one hides the earlier.
        mount = mount.replace("\\040", " ")
        holds = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        if holds and len(mount) >= len(longest):
            longest, kind = mount, fstype
    return kind


def network_type(path: Path) -> str:
    """The type of the file system that holds `path` if it is a network file system, else ""."""
    kind = file_system(path)
    if kind or sys.platform != "darwin":
        return kind if kind in NETWORK else ""
    try:
        done = subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return mac_network_type(path.resolve(), done.stdout)


def mac_network_type(path: Path, listing: str) -> str:
    """The same by what `mount` lists on macOS, which calls every other file system `local`."""
    longest, network = "", ""
    for line in listing.splitlines():
        if match := _MAC_MOUNT.fullmatch(line):
            mount, flags = match[1], match[2].split(", ")
            if path.is_relative_to(mount) and len(mount) >= len(longest):
                longest, network = mount, "" if "local" in flags else flags[0]
    return network


def temporary_path(folder: Path, name: str) -> Path:
    """A new path for a temporary file; `sweep` removes the file when this process is gone.

    Every call returns another path: threads write pictures whose names may begin alike.
    """
    return folder / f".{name[:100]}.{os.getpid()}-{next(_numbers)}.tmp"


@contextmanager
def temporary_folder(folder: Path, name: str) -> Iterator[Path]:
    """A new folder in `folder` for files that are gone when the block ends."""
    path = temporary_path(folder, name)
    with translating_errors(path):
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def atomic_write(
    path: Path,
    *,
    binary: bool = False,
    encoding: str = "utf-8",
    errors: str = "strict",
    sync: bool = True,
    on_written: Callable[[Path, FileStamp], None] | None = None,
) -> Iterator[IO[Any]]:
    """Write `path` whole: it keeps its old content unless the block ends without an error.

    Args:
        path: the file to replace.
        binary: yield a binary file instead of a text file.
        encoding: of a text file.
        errors: what a text file does with characters that the encoding lacks.
        sync: make it durable; without, a crash of the machine may lose the file.
        on_written: called with the path and the new file's stamp, taken before the rename: after
            it, another process may replace the file at any moment.

    Raises OutputError when the disk is full or the folder cannot be written.
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
                if sync:
                    os.fsync(file.fileno())
                status = os.fstat(file.fileno())
            if on_written is not None:
                on_written(path, (status.st_size, status.st_mtime_ns))
            os.replace(temporary, path)
            if sync:
                sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def file_stamp(path: Path) -> FileStamp | None:
    """The stamp of a regular file; None for anything else, or nothing."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def sync_folder(path: Path) -> None:
    """Make a rename in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, text: str) -> None:
    """Add one line with the time (UTC) to a log, whatever the text holds.

    Raises OutputError, also when `path` is a link.
    """
    refuse_link(path)
    with translating_errors(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {one_line(text)}\n")
