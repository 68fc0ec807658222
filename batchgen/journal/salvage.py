"""Takes every sound record out of a damaged journal, into a new one.

Like SQLite's own `.recover`, it reads around the pages that cannot be read, and finds records whose
way from the root is lost. The seal of each record says whether it is still what was written.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.errors import DamagedError
from batchgen.journal import database
from batchgen.journal.journal import Journal
from batchgen.journal.migration import migrate
from batchgen.journal.pages import records_of
from batchgen.journal.records import insert, is_sound, shown_id
from batchgen.journal.schema import COLUMNS, SCHEMA_VERSION, TABLES

# Failed reads after which the rest of a table is given up: its root may be gone, and then every
# range of its 2**63 possible records fails.
MOST_FAILURES = 100_000

_TYPES = {"INTEGER": int, "REAL": float, "TEXT": str, "BLOB": bytes}

# One of them holds something as soon as a job has been staged.
_MADE = ("prompts", "runs", "outcomes", "attempts")

# What pass 1 makes; it can be made again from the prompts.
_STAGED = frozenset({"prompts", "rows", "adopted", "meta"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What was not taken from a damaged journal.

    records: how many records of each table are not what was written.
    unreadable: the tables of which a part cannot be read at all.
    is_torn: SQLite finds faults in the file, be it in its indexes alone.
    """

    records: Mapping[str, int]
    unreadable: frozenset[str]
    is_torn: bool

    def __bool__(self) -> bool:
        return bool(self.records or self.unreadable or self.is_torn)

    def of(self, *tables: str) -> bool:
        """Whether anything of one of these tables was not taken."""
        return any(table in self.records or table in self.unreadable for table in tables)


def salvage(path: Path, target: Path, *, accept: Sequence[str] = ()) -> tuple[Journal, Damage]:
    """Copy every sound record of the journal at `path` to a new one at `target`, and open that.

    If anything of the staged rows is damaged, none are copied: pass 1 makes them again. `accept`:
    as `Journal.open` takes it. Raises DamagedError when nothing can be read, OutputError.
    """
    with database.translating_errors(path), closing(database.unchecked(path)) as source:
        version = _version(source)
        database.refuse_newer(version, path)
        connection = database.unsynced(target, version)
        try:
            connection.execute("CREATE TEMP TABLE damaged(ident TEXT, key BLOB)")
            connection.execute("BEGIN")
            records: Counter[str] = Counter()
            unreadable = frozenset(
                table
                for table in _tables_of(connection)
                if not _copy(source, connection, table, records)
            )
            for table in unreadable - _STAGED:
                _copy_lost(path, connection, table)
            damage = Damage(records=records, unreadable=unreadable, is_torn=_is_torn(source))
            if not any(connection.execute(f"SELECT 1 FROM {table}").fetchone() for table in _MADE):
                raise DamagedError(
                    f"{path}: is damaged, and nothing of batchgen's can be read in it; "
                    "restore it from a backup"
                )
            connection.execute("DELETE FROM meta WHERE name = 'tables'")
            if damage.of(*_STAGED):
                for table in _STAGED & _tables_of(connection) - {"meta"}:
                    connection.execute(f"DELETE FROM {table}")
                connection.execute("DELETE FROM meta WHERE name <> 'scheme'")
            _keep_last_run(connection)
            migrate(connection, version)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return Journal(connection, target, accept=accept), damage


def lost_rows(salvaged: Journal) -> list[str]:
    """The ids of the rows whose answers were not taken: those of damaged outcomes, and those that
    were answered, by their attempts, and have no outcome."""
    lost = """(SELECT ident, key FROM temp.damaged UNION
            SELECT ident, key FROM attempts WHERE reason IS NULL
            EXCEPT SELECT ident, key FROM outcomes)"""
    sql = f"SELECT DISTINCT id FROM rows JOIN {lost} USING(ident, key) ORDER BY seq"
    if salvaged.query("SELECT 1 FROM rows LIMIT 1"):
        return [row["id"] for row in salvaged.query(sql)]
    return [shown_id(row["ident"], row["key"]) for row in salvaged.query(f"SELECT * FROM {lost}")]


def _tables_of(connection: sqlite3.Connection) -> frozenset[str]:
    """The tables that journals of a connection's schema version have."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    return frozenset(names & set(TABLES))


def _version(source: sqlite3.Connection) -> int:
    with suppress(sqlite3.DatabaseError):
        # All is read in one snapshot, if the file can be read as a database at all.
        source.execute("BEGIN")
        return int(source.execute("PRAGMA user_version").fetchone()[0]) or SCHEMA_VERSION
    return SCHEMA_VERSION


def _copy(
    source: sqlite3.Connection, target: sqlite3.Connection, table: str, damaged: Counter[str]
) -> bool:
    """Copy the sound records of a table and count the `damaged` ones; whether all were readable."""
    try:
        names = [name for _, name, *_ in source.execute(f"PRAGMA table_info({table})")]
    except sqlite3.DatabaseError:
        return False
    if names != list(COLUMNS[table]):
        return False
    reading = _Reading(source, table)
    sql = f"INSERT OR REPLACE INTO {table} VALUES({', '.join('?' * len(names))})"
    for record in reading.records():
        if is_sound(table, record):
            target.execute(sql, record)
        else:
            damaged[table] += 1
            if table == "outcomes":
                target.execute("INSERT INTO temp.damaged VALUES(?, ?)", record[:2])
    return reading.is_whole


def _is_torn(source: sqlite3.Connection) -> bool:
    try:
        return bool(source.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok")
    except sqlite3.DatabaseError:
        return True


def _copy_lost(path: Path, target: sqlite3.Connection, table: str) -> None:
    """Copy the sound records of a table to which SQLite finds no way."""
    kinds = list(COLUMNS[table].values())
    sql = f"INSERT OR IGNORE INTO {table} VALUES({', '.join('?' * len(kinds))})"
    for rowid, (first, *others) in records_of(path, len(kinds)):
        # An INTEGER PRIMARY KEY is not stored as a cell.
        cells = [rowid if first is None else first, *others]
        # SQLite stores a whole floating point number as an integer.
        record = [
            float(cell) if kind == "REAL" and isinstance(cell, int) else cell
            for kind, cell in zip(kinds, cells, strict=True)
        ]
        # Tables with as many columns have others.
        fits = all(
            cell is None or isinstance(cell, _TYPES[kind])
            for kind, cell in zip(kinds, record, strict=True)
        )
        if fits and is_sound(table, record):
            target.execute(sql, record)


class _Reading:
    """Reads one table around what cannot be read.

    is_whole: whether all of it could be read, once `records` has ended.
    """

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self._connection = connection
        self._sql = (
            f"SELECT rowid, * FROM {table} NOT INDEXED"
            " WHERE rowid > ? AND rowid <= ? ORDER BY rowid"
        )
        self.is_whole = True

    def records(self) -> Iterator[tuple[Any, ...]]:
        """Every record that can be read."""
        # Halves that cannot be read are halved again, the widest first.
        ranges = deque([(-(2**62), 2**62)])
        failures = 0
        while ranges and failures < MOST_FAILURES:
            after, last = ranges.popleft()
            try:
                for rowid, *record in self._connection.execute(self._sql, (after, last)):
                    if not after < rowid <= last:
                        raise sqlite3.DatabaseError("a page leads in circles")
                    after = rowid
                    yield tuple(record)
            except sqlite3.DatabaseError:
                failures += 1
                self.is_whole = False
                if last - after > 1:
                    middle = (after + last) // 2
                    ranges += [(after, middle), (middle, last)]


def _keep_last_run(connection: sqlite3.Connection) -> None:
    """Keep the number of the last run, by which the calls of the next one are told apart."""
    used = """SELECT max(run) FROM (SELECT run FROM attempts UNION ALL
        SELECT run FROM outcomes UNION ALL SELECT run FROM batches UNION ALL
        SELECT run FROM reserved)"""
    (last,) = connection.execute(used).fetchone()
    (known,) = connection.execute("SELECT coalesce(max(run), 0) FROM runs").fetchone()
    if last is not None and last > known:
        unknown = {"run": last, "started_at": 0.0, "provenance": "{}", "job_text": ""}
        insert(connection, "runs", unknown)
