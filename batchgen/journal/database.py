"""Opens the journal's file, checks that it is one, and turns SQLite's errors into sentences."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from batchgen.disk import refuse_link
from batchgen.errors import BatchgenError, DamagedError, InputError, OutputError
from batchgen.journal.migration import migrate
from batchgen.journal.records import MEND, digest_of, insert
from batchgen.journal.schema import APPLICATION_ID, SCHEMA_VERSION
from batchgen.journal.spill import keep_private
from batchgen.requests import SCHEME

NAME = "journal.db"

# `iif` came with SQLite 3.32, and the check of one table with its indexes with 3.33.
OLDEST_SQLITE = (3, 33, 0)

# The largest write-ahead log, in bytes, that stays on disk once its content is in the file. Pass 1
# writes a whole job at once, and would leave a log as large as the job.
LARGEST_LOG = 64 * 1024 * 1024

# The first bytes of a rollback journal that is complete. The 4 bytes from the 17th on are the pages
# that the database had.
_ROLLBACK_MAGIC = bytes.fromhex("d9d505f920a163d7")


@contextmanager
def translating_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into OutputError and DamagedError, which say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        translated = _translated(path, error)
        if translated is None:
            raise
        raise translated from None


def _translated(path: Path, error: sqlite3.Error) -> BatchgenError | None:
    name = getattr(error, "sqlite_errorname", "") or ""
    damaged = name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"))
    if damaged or "decode to UTF-8" in str(error):
        return DamagedError(f"{path}: is damaged ({error}); {MEND}")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        what = "the disk is full or failing"
        return OutputError(
            f"{path}: {what} ({error}); nothing recorded is lost; fix that and run again"
        )
    if name.startswith(
        ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_LOCKED", "SQLITE_BUSY")
    ):
        return OutputError(f"{path}: cannot be written ({error}); fix that and run again")
    return None


def writing(path: Path) -> sqlite3.Connection:
    """A connection that writes, in WAL mode, each commit synced to disk.

    A journal of an older schema is brought to the present one. Raises OutputError, DamagedError,
    InputError when SQLite is too old.
    """
    for suffix in ("", "-wal", "-shm"):
        refuse_link(path.with_name(path.name + suffix))
    with translating_errors(path):
        connection = _connection(str(path))
        keep_private(connection, path.parent)
        # Before anything is written: a journal of a newer batchgen is left as it is.
        version = _version(connection, path)
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise OutputError(
                f"{path}: SQLite cannot use its write-ahead log here; choose another output.dir"
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {LARGEST_LOG}")
        if version == 0:
            _create(connection)
        elif version < SCHEMA_VERSION:
            # All of it or nothing: a process that dies here leaves the journal as it was.
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, version)
            connection.execute("COMMIT")
    return connection


def reading(path: Path) -> sqlite3.Connection:
    """A connection that only reads.

    A journal that does not exist, or has no tables yet, counts as empty. What one of an older
    schema lacks is made of temporary tables. Raises OutputError, DamagedError, InputError when
    SQLite is too old.
    """
    refuse_link(path)
    with translating_errors(path):
        if path.exists() and not _was_never_made(path):
            connection = unchecked(path)
            if version := _version(connection, path):
                connection.execute("BEGIN")
                migrate(connection, version, temporary=True)
                connection.execute("COMMIT")
                return connection
            connection.close()
        return _empty(path.parent)


def unchecked(path: Path) -> sqlite3.Connection:
    """A connection that only reads, to a file that may be damaged."""
    connection = _connection(f"{path.absolute().as_uri()}?mode=ro")
    keep_private(connection, path.parent)
    return connection


def unsynced(path: Path, version: int) -> sqlite3.Connection:
    """A connection to a new journal of a schema version, in a file that its maker must sync."""
    connection = _connection(str(path))
    keep_private(connection, path.parent)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    _create(connection, version)
    return connection


def refuse_newer(version: int, path: Path) -> None:
    """Raise OutputError for the schema version of a newer batchgen."""
    if version > SCHEMA_VERSION:
        raise OutputError(
            f"{path}: was written by a newer batchgen (schema {version}, and this one knows "
            f"{SCHEMA_VERSION}); update batchgen and run again"
        )


def _was_never_made(path: Path) -> bool:
    """Whether a process died while it made this file, before anything was committed to it.

    It left a rollback journal, which says that the file was empty before; only a connection that
    writes can roll back. https://sqlite.org/fileformat.html#the_rollback_journal
    """
    try:
        with open(path.with_name(path.name + "-journal"), "rb") as file:
            header = file.read(20)
    except OSError:
        return False
    return header[:8] == _ROLLBACK_MAGIC and header[16:20] == bytes(4)


def _connection(uri: str) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE[:2]))
        raise InputError(
            f"this Python ({sys.executable}) uses SQLite {sqlite3.sqlite_version}, and batchgen "
            f"needs {wanted} or newer; install batchgen with another Python"
        )
    connection = sqlite3.connect(
        uri, uri=uri.startswith("file:"), isolation_level=None, check_same_thread=False, timeout=30
    )
    connection.row_factory = sqlite3.Row
    connection.create_function("digest", 1, digest_of, deterministic=True)
    return connection


def _empty(folder: Path) -> sqlite3.Connection:
    connection = _connection(":memory:")
    keep_private(connection, folder)
    _create(connection)
    return connection


def _create(connection: sqlite3.Connection, version: int = SCHEMA_VERSION) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    migrate(connection, 0, to=version)
    insert(connection, "meta", {"name": "scheme", "value": json.dumps(SCHEME)})
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of a journal; 0 for an empty file.

    Raises DamagedError unless the file is a journal, OutputError for one of a newer batchgen.
    """
    tables = _schema(connection)
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not tables and not version:
        return 0
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise DamagedError(f"{path}: is not a journal of batchgen; move it away and run again")
    refuse_newer(version, path)
    # Tables, indexes and statistics of other tools are no damage; only batchgen's own count.
    if version < 1 or not _expected(version) <= set(tables):
        raise DamagedError(
            f"{path}: is damaged (its tables are not batchgen's); restore it from a backup"
        )
    scheme = connection.execute("SELECT value FROM meta WHERE name = 'scheme'").fetchone()
    if scheme is None or not scheme[0].isdecimal():
        raise DamagedError(
            f"{path}: is damaged (it does not say how its fingerprints were made); "
            "restore it from a backup"
        )
    if int(scheme[0]) > SCHEME:
        raise OutputError(
            f"{path}: has fingerprints of a newer batchgen (scheme {scheme[0]}); "
            "update batchgen and run again"
        )
    return version


def forget_tables(connection: sqlite3.Connection) -> None:
    """Forget, in the caller's transaction, what is known of the tables that were written.

    From now on the journal may differ from them.
    """
    connection.execute("DELETE FROM meta WHERE name = 'tables'")


def _schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    sql = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name"
    return [tuple(each) for each in connection.execute(sql)]


@cache
def _expected(version: int) -> set[tuple[str, ...]]:
    with closing(_connection(":memory:")) as empty:
        migrate(empty, 0, to=version)
        return set(_schema(empty))
