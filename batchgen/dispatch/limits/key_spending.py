"""The SQLite file with what each key spent on each day, over all jobs of this machine.

A job has one line for each day (in UTC) and key: what it spent, and what it has leased. A lease is
money that its run may spend without another transaction. What a killed run had leased counts as
spent until the job's next run writes its lines anew from its journal.

A power failure may lose the last second. A file that is lost or damaged begins anew with what the
journals say that this machine knows.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from batchgen.dispatch.limits.state_file import StateFile, StoreBusyError, check_owner
from batchgen.dispatch.limits.window import MAX_BUSY, MAX_PAUSE
from batchgen.errors import OutputError

# A file with another table must have another name: an older batchgen may run beside a newer one.
NAME = "spending-1.db"
APPLICATION_ID = 0x62677370  # "bgsp"

_CREATE = """
CREATE TABLE spending (
    key TEXT, day TEXT, folder TEXT, job TEXT, spent INTEGER, leased INTEGER,
    PRIMARY KEY (key, day, folder)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO spending (key, day, folder, job, spent, leased) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET spent = spent + excluded.spent, leased = excluded.leased
"""

# Days for which lines are kept: the month and the one before.
KEPT_DAYS = 62

# A lease is what is needed and this part of what is left then: small, so that it hardly matters to
# other runs, and large enough that few calls need a transaction.
SLICE = 50

# Nano-dollars: no line holds more, so that sums fit into SQLite's integers.
MOST = 10**17

# How many jobs a refusal names.
NAMED = 3

Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """A cap on what a key may spend in a day or a month.

    name: its key in the job file.
    amount: in nano-dollars.
    """

    name: str
    amount: int
    period: Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose line it is.

    key: what the key is known by; nothing from which it could be found.
    folder: the job's output folder.
    job: its name.
    """

    key: str
    folder: str
    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why no money was leased.

    cap: the cap that is reached.
    left: what is left of it, in nano-dollars; not below 0.
    used: what is spent and leased.
    dearest: the jobs that spent and leased most, each with how much.
    """

    cap: Cap
    left: int
    used: int
    dearest: Sequence[tuple[str, int]]


def day_of(at: float) -> str:
    """The day in UTC of a time in seconds since 1970, such as `2026-11-29`."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def begin_of(period: Period, day: str) -> datetime:
    """When the day, or the month of the day, begins."""
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return begin if period == "day" else begin.replace(day=1)


def end_of(period: Period, day: str) -> datetime:
    """When the day, or the month of the day, ends."""
    begin = begin_of(period, day)
    if period == "day":
        return begin + timedelta(days=1)
    return (begin + timedelta(days=32)).replace(day=1)


class SpendingStore(StateFile):
    """What each key spent."""

    def __init__(
        self, path: Path, seed: Callable[[], Iterable[tuple[Owner, Mapping[str, int]]]]
    ) -> None:
        """Args:
        path: of the file.
        seed: what is known without it: of each job and key, nano-dollars by day.

        Raises OutputError when the file cannot be made or written.
        """
        self._seed = seed
        super().__init__(path)

    def replace(self, owner: Owner, days: Mapping[str, int]) -> None:
        """Set what a job spent with a key anew, in nano-dollars by day; nothing is leased.

        Waits while another process has the file. Raises OutputError.
        """

        def replaced(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM spending WHERE key = ? AND folder = ?", (owner.key, owner.folder)
            )
            _insert(connection, owner, days)

        give_up_at = time.monotonic() + MAX_BUSY
        while True:
            try:
                return self.transact(replaced)
            except StoreBusyError:
                if time.monotonic() > give_up_at:
                    raise OutputError(f"{self.path}: another process keeps it locked") from None
                time.sleep(random.uniform(0, MAX_PAUSE))

    def update(self, owner: Owner, day: str, *, spent: int, leased: int) -> None:
        """Add `spent` to a job's line and set what it has leased. Raises as `transact` does."""
        self.transact(lambda connection: _add(connection, owner, day, spent, leased))

    def lease(
        self, owner: Owner, day: str, caps: Sequence[Cap], *, spent: int, leased: int, more: int
    ) -> int | Refusal:
        """Lease `more` money or somewhat above; returns how much, or why nothing.

        owner, day: the line.
        caps: that all jobs of the key must keep together.
        spent: what the job spent since the last call.
        leased: what it still has of its lease.

        Raises as `transact` does.
        """

        def leasing(connection: sqlite3.Connection) -> int | Refusal:
            _add(connection, owner, day, spent, leased)
            left = more * SLICE
            for cap in caps:
                free = cap.amount - _used(connection, owner.key, cap.period, day)
                if more > free:
                    return _refusal(connection, owner.key, cap, day)
                left = free if cap is caps[0] else min(left, free)
            granted = more + (left - more) // SLICE
            _add(connection, owner, day, 0, leased + granted)
            return granted

        return self.transact(leasing)

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("BEGIN EXCLUSIVE")
        if check_owner(connection, _CREATE, APPLICATION_ID):
            for owner, days in self._seed():
                _insert(connection, owner, days)
        connection.execute(
            "DELETE FROM spending WHERE day < date('now', ?)", (f"-{KEPT_DAYS} days",)
        )
        connection.execute("COMMIT")


def used(path: Path, key: str, period: Period, day: str) -> int | None:
    """What is spent and leased with a key, in nano-dollars, read without writing.

    None when there is no such file, or it cannot be read now.
    """
    with suppress(sqlite3.Error):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=1)) as connection:
            return _used(connection, key, period, day)
    return None


def _add(connection: sqlite3.Connection, owner: Owner, day: str, spent: int, leased: int) -> None:
    """Add `spent` to the line of `owner` and `day`, by `connection`, and set what is `leased`."""
    amounts = (min(spent, MOST), min(leased, MOST))
    connection.execute(_ADD, (owner.key, day, owner.folder, owner.job, *amounts))


def _insert(connection: sqlite3.Connection, owner: Owner, days: Mapping[str, int]) -> None:
    for day, spent in days.items():
        _add(connection, owner, day, spent, 0)


def _used(connection: sqlite3.Connection, key: str, period: Period, day: str) -> int:
    begins = day if period == "day" else day[:7]
    (total,) = connection.execute(
        "SELECT coalesce(sum(spent + leased), 0) FROM spending"
        " WHERE key = ? AND substr(day, 1, ?) = ?",
        (key, len(begins), begins),
    ).fetchone()
    return int(total)


def _refusal(connection: sqlite3.Connection, key: str, cap: Cap, day: str) -> Refusal:
    begins = day if cap.period == "day" else day[:7]
    dearest = connection.execute(
        "SELECT job, sum(spent + leased) AS amount FROM spending"
        " WHERE key = ? AND substr(day, 1, ?) = ? GROUP BY folder, job HAVING amount > 0"
        " ORDER BY amount DESC LIMIT ?",
        (key, len(begins), begins, NAMED),
    ).fetchall()
    total = _used(connection, key, cap.period, day)
    return Refusal(cap=cap, left=max(0, cap.amount - total), used=total, dearest=dearest)
