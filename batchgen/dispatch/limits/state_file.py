"""SQLite files in the user's state folder, which several processes share.

They are read and written in short transactions, which do not wait for a lock.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from batchgen.disk import network_type, refuse_link
from batchgen.errors import OutputError

T = TypeVar("T")

# SQLite's names of errors: another process has the file for a moment; or the disk fails, where a
# new file would not help.
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_DISK = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM")


class StoreBusyError(Exception):
    """Another process has the file locked right now."""


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder for programs' state: $XDG_STATE_HOME, else the system's usual one.

    Raises OutputError when there is no home folder.
    """
    # A relative path must be ignored (XDG Base Directory Specification).
    if os.path.isabs(state_home := environ.get("XDG_STATE_HOME", "")):
        return Path(state_home) / "batchgen"
    try:
        home = Path.home()
    except RuntimeError:
        raise OutputError("there is no home folder; set XDG_STATE_HOME") from None
    return (
        home
        / ("Library/Application Support" if sys.platform == "darwin" else ".local/state")
        / "batchgen"
    )


class StateFile:
    """The file at `path`. What is in it, its subclass says: see `_set_up`."""

    def __init__(self, path: Path) -> None:
        """Raises OutputError when the file cannot be made or written."""
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = -1
        self._prepare()

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work` in one transaction.

        A file that is not ours is renamed, and a new one begins. Raises StoreBusyError, and
        OutputError for a file that cannot be used.
        """
        for last in (False, True):
            try:
                return self._transact(work)
            except sqlite3.Error as error:
                name = getattr(error, "sqlite_errorname", "")
                if name.startswith(_BUSY):
                    raise StoreBusyError from None
                if last or name.startswith(_DISK):
                    raise OutputError(f"{self.path}: cannot be written ({error})") from None
                self._move_away()
            except OSError as error:
                raise OutputError(f"{self.path}: {error.strerror or error}") from None
        raise AssertionError

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connected()
        # Exclusive, so that a lock shows here and not at the commit.
        connection.execute("BEGIN EXCLUSIVE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            self.close()
            raise
        return result

    def _set_up(self, connection: sqlite3.Connection) -> None:
        """Make the tables in a new file, and drop what is old.

        Raises sqlite3.Error for another program's file.
        """
        raise NotImplementedError

    def _connected(self) -> sqlite3.Connection:
        """A connection to the file that is at the path now: it may have been replaced."""
        try:
            if self._connection is not None and os.stat(self.path).st_ino == self._inode:
                return self._connection
        except FileNotFoundError:
            pass
        self.close()
        self._prepare()
        self._inode = os.stat(self.path).st_ino
        connection = self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=0)
        try:
            self._set_up(connection)
        except BaseException:
            self.close()
            raise
        return connection

    def _prepare(self) -> None:
        """Make the folder and the file, readable by the user only."""
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise OutputError(f"{folder}: is a link or a file where a folder is needed")
            for path in (self.path, self._journal):
                refuse_link(path)
            with suppress(FileExistsError):
                os.close(
                    os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                )
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror or error}") from None
        if not os.access(self.path, os.R_OK | os.W_OK) or not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{self.path}: may not be written")
        if kind := network_type(folder):
            raise OutputError(
                f"{folder}: is on a network file system ({kind});"
                " set XDG_STATE_HOME to a local folder"
            )

    @property
    def _journal(self) -> Path:
        return self.path.with_name(f"{self.path.name}-journal")

    def _move_away(self) -> None:
        """Rename a damaged file, unless another process did so already."""
        self.close()
        with suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:
                os.replace(self.path, self.path.with_name(f"{self.path.name}.damaged"))
                self._journal.unlink()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def check_owner(connection: sqlite3.Connection, create: str, application_id: int) -> bool:
    """Make the table of a new file, in a transaction; returns whether the file is new.

    Raises sqlite3.Error for another program's file.
    """
    is_new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if is_new:
        connection.execute(create)
        connection.execute(f"PRAGMA application_id = {application_id}")
    if connection.execute("PRAGMA application_id").fetchone()[0] != application_id:
        raise sqlite3.DatabaseError("is another program's")
    return is_new
