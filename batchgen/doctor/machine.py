"""This machine: the disk of the output folder, open files, and the state folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from batchgen.disk import file_system, network_type
from batchgen.doctor.findings import Finding, ok, unknown, wrong
from batchgen.errors import OutputError

# Less free space than this, in bytes, is soon full: journal, tables and page are all written.
LEAST_SPACE = 100_000_000

_DISK = OutputError.exit_code


def disk(folder: Path) -> Finding:
    """Whether the output folder, which need not exist, can be written. Leaves nothing there."""
    path = _existing(folder)
    try:
        # The file has no name, so that nothing is left of it whatever happens.
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"0")
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(path).free
    except OSError as error:
        return wrong(
            "disk",
            f"{path}: cannot be written ({error.strerror}); fix its permissions or choose "
            "another output.dir",
            _DISK,
        )
    if kind := network_type(path):
        return wrong(
            "disk",
            f"{folder}: is on a network file system ({kind}), where no journal is safe; choose "
            "an output.dir on a disk of this machine",
            _DISK,
        )
    if free < LEAST_SPACE:
        return wrong(
            "disk", f"{folder}: only {free / 1e6:,.0f} MB are free; make room on this disk", _DISK
        )
    kind = file_system(path)
    return ok(
        "disk",
        f"{folder}: can be written, {free / 1e9:,.1f} GB free{f', {kind}' * bool(kind)}",
    )


def open_files(concurrency: int) -> Finding:
    """Whether the limit on open files leaves room for `concurrency` connections."""
    from batchgen.dispatch.api.file_descriptors import available_connections

    available = available_connections(concurrency)
    if available == concurrency:
        return ok("open files", f"room for limits.concurrency: {concurrency:,}")
    return unknown(
        "open files",
        f"room for {available:,} of limits.concurrency: {concurrency:,}; runs use as many; "
        "for more, raise the limit (ulimit -n)",
    )


def state() -> Finding:
    """Whether runs can share their limits, and nobody else can write to what they share."""
    from batchgen.dispatch.limits.state_file import state_folder

    try:
        folder = state_folder()
    except OutputError as error:
        return wrong("state folder", str(error), _DISK)
    path = _existing(folder)
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        return wrong(
            "state folder",
            f"{path}: cannot be written, so runs cannot share their limits; fix its "
            "permissions or set XDG_STATE_HOME to another folder",
            _DISK,
        )
    if path != folder:
        return ok("state folder", f"{folder}: the first run makes it")
    status = folder.stat()
    if status.st_mode & 0o022 or status.st_uid not in (os.getuid(), 0):
        return wrong(
            "state folder",
            f"{folder}: other users can write to it; give it to this user alone (chmod 700) or "
            "remove it, the next run makes it again",
            _DISK,
        )
    return ok("state folder", f"{folder}: only this user can write to it")


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that this user can see."""
    return next((each for each in (path, *path.parents) if os.path.exists(each)), path)
