"""The SQLite file with the states of all limits, in the user's state folder.

Its transactions are not synced: a power failure loses one minute's count.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from batchgen.dispatch.limits.gcra import WINDOW, GcraLimit
from batchgen.dispatch.limits.state_file import StateFile, check_owner
from batchgen.dispatch.limits.window import Clock

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


class LimitStore(StateFile):
    """The states of limits."""

    def update(
        self,
        pool: bytes,
        limit: float,
        clock: Clock,
        work: Callable[[Sequence[GcraLimit], float], T],
    ) -> T:
        """Run `work` on the states of a limit in one transaction, and write the changed states.

        A file that is not ours is renamed: it holds nothing of value. Raises as `transact` does.

        pool: the id of what is limited; jobs with the same id share it.
        limit: the job's own limit, in units a minute.
        clock: seconds; read when the transaction has begun.
        work: receives the time and the states: that of the job's limit first, then those of the
            larger limits of other jobs, which it must keep too.
        """

        def updated(connection: sqlite3.Connection) -> T:
            now = clock()
            limits = _read(connection, pool, limit, now)
            result = work(limits, now)
            _write(connection, pool, limits, now)
            return result

        return self.transact(updated)

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("BEGIN EXCLUSIVE")
        check_owner(connection, _CREATE, APPLICATION_ID)
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
