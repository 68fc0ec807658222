"""The SQLite file with the lines of all limits: in the user's state folder, read and written in one short transaction."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from batchgen.disk import NETWORK, file_system, refuse_link
from batchgen.dispatch.limits.gcra import WINDOW, GcraLimit
from batchgen.dispatch.limits.window import Clock
from batchgen.errors import OutputError

T = TypeVar("T")

# Another table gets another name: an older batchgen may run beside a newer one.
NAME = "limits-1.db"
APPLICATION_ID = 0x62676C6D  # "bglm"

_CREATE = """
CREATE TABLE line (
    pool BLOB, units REAL, wrote REAL, arrival REAL, named REAL, largest REAL, slots BLOB, seen REAL,
    PRIMARY KEY (pool, units)
) WITHOUT ROWID
"""
_WRITE = """
INSERT OR REPLACE INTO line (pool, units, wrote, arrival, named, largest, slots, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

# Seconds of wall time after which a line that nobody touched is dropped.
KEPT = 86_400.0

# What SQLite says when the file is another's for a moment, and when it is the disk's fault.
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_HOPELESS = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM")


class StoreBusyError(Exception):
    """Another process is at the file right now."""


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's folder for what programs remember: $XDG_STATE_HOME, else what the system calls so. Raises OutputError
    where there is no home."""
    # A relative path is to be ignored (XDG Base Directory Specification).
    if os.path.isabs(named := environ.get("XDG_STATE_HOME", "")):
        return Path(named) / "batchgen"
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
    """The lines on the disk. Nothing waits, and nothing is synced: what is lost with the power is a minute's count."""

    def __init__(self, path: Path) -> None:
        """Raises OutputError when there can be no such file."""
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = -1
        self._prepare()

    def update(
        self, pool: bytes, limit: float, clock: Clock, work: Callable[[list[GcraLimit], float], T]
    ) -> T:
        """What `work` makes of a pool's line of this limit and the larger ones that hold it in, and of the time; what
        becomes of the lines is written. Raises StoreBusyError, and OutputError for a file that cannot be used.

        What is no file of ours is moved out of the way: it holds nothing of worth.
        """
        for last in (False, True):
            try:
                return self._update(pool, limit, clock, work)
            except sqlite3.Error as error:
                name = getattr(error, "sqlite_errorname", "")
                if name.startswith(_BUSY):
                    raise StoreBusyError from None
                if last or name.startswith(_HOPELESS):
                    raise OutputError(f"{self.path}: cannot be written ({error})") from None
                self._move_away()
            except OSError as error:
                raise OutputError(f"{self.path}: {error.strerror or error}") from None
        raise AssertionError

    def _update(
        self, pool: bytes, limit: float, clock: Clock, work: Callable[[list[GcraLimit], float], T]
    ) -> T:
        connection = self._connected()
        # Exclusive, so that it is busy now or never.
        connection.execute("BEGIN EXCLUSIVE")
        try:
            now = clock()
            lines = _read(connection, pool, limit, now)
            made = work(lines, now)
            _write(connection, pool, lines, now)
            connection.execute("COMMIT")
        except BaseException:
            self.close()
            raise
        return made

    def _connected(self) -> sqlite3.Connection:
        """The connection to the file that is at the path now."""
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
        """A folder and a file that are the user's own, and nobody else's to read."""
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
        if (kind := file_system(folder)) in NETWORK:
            raise OutputError(
                f"{folder}: is on a network file system ({kind}); set XDG_STATE_HOME to a local folder"
            )

    @property
    def _journal(self) -> Path:
        return self.path.with_name(f"{self.path.name}-journal")

    def _move_away(self) -> None:
        """Unless another process did so already."""
        self.close()
        with suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:
                os.replace(self.path, self.path.with_name(f"{self.path.name}.damaged"))
                self._journal.unlink()

    def close(self) -> None:
        """Leave the file; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _set_up(connection: sqlite3.Connection) -> None:
    """Make the table in a file that is new, and drop what nobody touched for long. Raises sqlite3.Error for others."""
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute("BEGIN EXCLUSIVE")
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.execute(_CREATE)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise sqlite3.DatabaseError("is another program's")
    connection.execute("DELETE FROM line WHERE abs(seen - ?) > ?", (time.time(), KEPT))
    connection.execute("COMMIT")


def _read(connection: sqlite3.Connection, pool: bytes, limit: float, now: float) -> list[GcraLimit]:
    """The line of this limit, and the larger ones that some job names."""
    sql = "SELECT units, wrote, arrival, named, largest, slots FROM line WHERE pool = ? ORDER BY units"
    own, larger = GcraLimit(limit=limit), []
    for units, *numbers, slots in connection.execute(sql, (pool,)).fetchall():
        line = _line(units, numbers, slots, now)
        if line is None or (units != limit and line.active_until + WINDOW < now):
            connection.execute("DELETE FROM line WHERE pool = ? AND units = ?", (pool, units))
        elif units > limit:
            larger.append(line)
        else:
            # A line that is new begins with what those within it took.
            own = (
                line if units == limit else GcraLimit(limit=limit, ends=line.ends, units=line.units)
            )
    return [own, *larger]


def _line(limit: float, numbers: list[float], slots: bytes, now: float) -> GcraLimit | None:
    """A line as it was left; None for what nobody can have left since the machine started."""
    try:
        wrote, arrival, named, largest = map(float, numbers)
        line = GcraLimit(limit=float(limit), tat=arrival, active_until=named, largest=largest)
        line.unpack(slots)
    except (TypeError, ValueError):
        return None
    line.forget(now)
    # A clock that has gone back started anew with the machine, or is another's.
    return line if wrote <= now + 1 and line.is_plausible(now) else None


def _write(connection: sqlite3.Connection, pool: bytes, lines: list[GcraLimit], now: float) -> None:
    seen = time.time()
    for line in lines:
        connection.execute(
            _WRITE,
            (pool, line.limit, now, line.tat, line.active_until, line.largest, line.pack(), seen),
        )
