"""One process at a time runs a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from batchgen.disk import make_folder, refuse_link, sweep, translating_errors
from batchgen.errors import BusyError

# Seconds for which a run tries to get the lock: `is_locked` holds it for a moment.
PATIENT = 0.1


@contextmanager
def locked(folder: Path, output_file: Path | None) -> Iterator[None]:
    """Hold the lock of a job's folder, and remove what a killed process left half written.

    `output_file` is the one file for all results, if the job has one. The kernel holds the lock, so
    it is free again the moment its process is gone.

    Raises BusyError at once when another process holds it, OutputError when the folder cannot be
    written.
    """
    make_folder(folder)
    path = folder / ".lock"
    refuse_link(path)
    lock = FileLock(path, timeout=PATIENT, poll_interval=PATIENT / 5)
    with translating_errors(path):
        try:
            lock.acquire()
        except Timeout:  # a subclass of OSError
            raise BusyError(
                f"{folder}: another process is running this job; try again when it has ended"
            ) from None
    try:
        sweep(folder)
        if output_file is not None:
            sweep(output_file.parent, output_file.name)
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a job's folder."""
    path = folder / ".lock"
    if not path.is_file():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        # The folder is another user's, who alone may lock it.
        return False
    lock.release()
    return False
