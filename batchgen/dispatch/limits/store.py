"""The SQLite file with the states of all limits, in the user's state folder.

It is read and written in short transactions, which do not wait for a lock and are not synced. A
power failure loses one minute's count.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from batchgen.disk import network_type, refuse_link
from batchgen.dispatch.limits.gcra import WINDOW, GcraLimit
from batchgen.dispatch.limits.window import Clock
from batchgen.errors import OutputError

T = TypeVar("T")

# A file with another table must have another name: an older batchgen may run beside a newer one.
# For the same reason the table keeps its words: `line` is a limit's state, `arrival` its
# theoretical arrival time, `named` its `active_until`.
NAME = "limits-1.db"
APPLICATION_ID = 0x62676C6D  # "bglm"

_CREATE = """
CREATE TABLE line (
    pool BLOB, units REAL, wrote REAL, arrival REAL, named REAL, largest REAL, slots BLOB,
    seen REAL, PRIMARY KEY (pool, units)
) WITHOUT ROWID
"""
_WRITE = """
INSERT OR REPLACE INTO line (pool, units, wrote, arrival, named, largest, slots, seen)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

# Seconds of wall time after which an unused state is dropped.
MAX_AGE = 86_400.0

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


class LimitStore:
    """The states of limits in the file at `path`."""

    def __init__(self, path: Path) -> None:
        """Raises OutputError when the file cannot be made or written."""
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = -1
        self._prepare()

    def update(
        self,
        pool: bytes,
        limit: float,
        clock: Clock,
        work: Callable[[Sequence[GcraLimit], float], T],
    ) -> T:
        """Run `work` on the states of a limit in one transaction, and write the changed states.

        A file that is not ours is renamed: it holds nothing of value. Raises StoreBusyError, and
        OutputError for a file that cannot be used.

        pool: the id of what is limited; jobs with the same id share it.
        limit: the job's own limit, in units a minute.
        clock: seconds; read when the transaction has begun.
        work: receives the time and the states: that of the job's limit first, then those of the
            larger limits of other jobs, which it must keep too.
        """
        for last in (False, True):
            try:
                return self._update(pool, limit, clock, work)
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

    def _update(
        self,
        pool: bytes,
        limit: float,
        clock: Clock,
        work: Callable[[Sequence[GcraLimit], float], T],
    ) -> T:
        connection = self._connected()
        # Exclusive, so that a lock shows here and not at the commit.
        connection.execute("BEGIN EXCLUSIVE")
        try:
            now = clock()
            limits = _read(connection, pool, limit, now)
            result = work(limits, now)
            _write(connection, pool, limits, now)
            connection.execute("COMMIT")
        except BaseException:
            self.close()
            raise
        return result

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
            _set_up(connection)
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


def _set_up(connection: sqlite3.Connection) -> None:
    """Make the table in a new file, and drop old states.

    Raises sqlite3.Error for another program's file.
    """
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute("BEGIN EXCLUSIVE")
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.execute(_CREATE)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise sqlite3.DatabaseError("is another program's")
    connection.execute("DELETE FROM line WHERE abs(seen - ?) > ?", (time.time(), MAX_AGE))
    connection.execute("COMMIT")


def _read(connection: sqlite3.Connection, pool: bytes, limit: float, now: float) -> list[GcraLimit]:
    """The state of this limit, and those of larger limits that other jobs have."""
    rows = connection.execute(
        "SELECT units, wrote, arrival, named, largest, slots FROM line"
        " WHERE pool = ? ORDER BY units",
        (pool,),
    ).fetchall()
    own, larger = GcraLimit(limit=limit), []
    for units, *numbers, slots in rows:
        state = _state(units, numbers, slots, now)
        if state is None or (units != limit and state.active_until + WINDOW < now):
            connection.execute("DELETE FROM line WHERE pool = ? AND units = ?", (pool, units))
        elif units > limit:
            larger.append(state)
        elif units == limit:
            own = state
        else:
            # A new limit begins with what jobs with smaller limits have used.
            own = GcraLimit(limit=limit, ends=state.ends, units=state.units)
    return [own, *larger]


def _state(limit: float, numbers: list[float], slots: bytes, now: float) -> GcraLimit | None:
    """A state as a job left it; None when none can have left it since the machine started."""
    try:
        wrote, tat, active_until, largest = map(float, numbers)
        state = GcraLimit(limit=float(limit), tat=tat, active_until=active_until, largest=largest)
        state.unpack(slots)
    except (TypeError, ValueError):
        return None
    state.forget(now)
    # A state from the future was written before the machine restarted, or by another clock.
    return state if wrote <= now + 1 and state.is_plausible(now) else None


def _write(
    connection: sqlite3.Connection, pool: bytes, limits: Sequence[GcraLimit], now: float
) -> None:
    seen = time.time()
    for state in limits:
        numbers = (now, state.tat, state.active_until, state.largest)
        connection.execute(_WRITE, (pool, state.limit, *numbers, state.pack(), seen))
