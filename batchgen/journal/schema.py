"""The tables of the journal and their columns; batchgen.journal says what they hold."""

from __future__ import annotations

import sqlite3
from contextlib import closing

APPLICATION_ID = 0x62617467  # "batg"

# SQLite keeps these statements word for word, and a journal whose statements differ is refused as
# damaged: no space may change without a new version. A backslash joins two lines of this file into
# one of the statement.

# What pass 1 makes, and what a plan may shadow.
STAGED = """
CREATE {temporary} TABLE IF NOT EXISTS prompts(
    n INTEGER PRIMARY KEY, line INTEGER NOT NULL, columns TEXT NOT NULL, error TEXT,\
 seal BLOB NOT NULL);
CREATE {temporary} TABLE IF NOT EXISTS rows(
    seq INTEGER PRIMARY KEY, n INTEGER NOT NULL, id TEXT NOT NULL, axes TEXT NOT NULL,\
 conversation TEXT,
    turn INTEGER NOT NULL, ident TEXT NOT NULL, key BLOB NOT NULL, occurrence INTEGER NOT NULL,\
 error TEXT,
    tokens INTEGER, cost INTEGER, cost_bound INTEGER, seal BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS {schema}rows_key ON rows(key, occurrence);
CREATE INDEX IF NOT EXISTS {schema}rows_id ON rows(id);
CREATE INDEX IF NOT EXISTS {schema}rows_thread ON rows(conversation, axes,\
 turn) WHERE conversation IS NOT NULL;
"""

# What runs leave.
_KEPT = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL, seal BLOB NOT NULL);
CREATE TABLE outcomes(
    ident TEXT NOT NULL, key BLOB NOT NULL, status TEXT NOT NULL, finish_reason TEXT,\
 model TEXT, service_tier TEXT,
    input_tokens INTEGER, cached_tokens INTEGER, output_tokens INTEGER,\
 reasoning_tokens INTEGER, cost INTEGER,
    attempts INTEGER NOT NULL, elapsed REAL NOT NULL, answered_at REAL NOT NULL,\
 run INTEGER NOT NULL,
    reason TEXT, http_status INTEGER, code TEXT, message TEXT, request_id TEXT,\
 passing INTEGER NOT NULL,
    columns_digest BLOB NOT NULL, response BLOB NOT NULL, tries INTEGER NOT NULL,\
 redo INTEGER NOT NULL,
    lost INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY(ident, key));
CREATE TABLE files(
    path TEXT PRIMARY KEY COLLATE NOCASE, ident TEXT NOT NULL, key BLOB NOT NULL,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, seal BLOB NOT NULL);
CREATE INDEX files_row ON files(ident, key);
CREATE TABLE attempts(
    seq INTEGER PRIMARY KEY, ident TEXT NOT NULL, key BLOB NOT NULL, run INTEGER NOT NULL,\
 number INTEGER NOT NULL,
    started_at REAL NOT NULL, http_status INTEGER, code TEXT, reason TEXT, request_id TEXT,
    input_tokens INTEGER, output_tokens INTEGER, cost INTEGER, wait REAL NOT NULL, elapsed REAL,\
 batch INTEGER,
    seal BLOB NOT NULL);
CREATE TABLE reserved(
    ident TEXT NOT NULL, key BLOB NOT NULL, run INTEGER NOT NULL, number INTEGER NOT NULL,\
 at REAL NOT NULL,
    cost INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY(ident, key));
CREATE TABLE runs(
    run INTEGER PRIMARY KEY, started_at REAL NOT NULL, ended_at REAL, exit_code INTEGER,\
 provenance TEXT NOT NULL,
    job_text TEXT NOT NULL, report TEXT, seal BLOB NOT NULL);
CREATE TABLE batches(
    batch INTEGER PRIMARY KEY, run INTEGER NOT NULL, tag TEXT NOT NULL UNIQUE,\
 endpoint TEXT NOT NULL, model TEXT NOT NULL,
    made_at REAL NOT NULL, requests INTEGER NOT NULL, tokens INTEGER NOT NULL, file TEXT, id TEXT,
    status TEXT NOT NULL, seen TEXT NOT NULL, room INTEGER, closed_at REAL, seal BLOB NOT NULL);
CREATE TABLE members(
    ident TEXT NOT NULL, key BLOB NOT NULL, batch INTEGER NOT NULL, line INTEGER NOT NULL,\
 id TEXT NOT NULL,
    axes TEXT NOT NULL, outline TEXT NOT NULL, columns_digest BLOB NOT NULL, cost INTEGER,\
 seal BLOB NOT NULL,
    PRIMARY KEY(ident, key));
CREATE UNIQUE INDEX members_line ON members(batch, line);
"""

# What answers of conversations followed, and which rows took over the outcomes of others.
_TAKEN_OVER = """
CREATE {temporary} TABLE IF NOT EXISTS adopted(
    ident TEXT NOT NULL, key BLOB NOT NULL, owner TEXT NOT NULL, seal BLOB NOT NULL,
    PRIMARY KEY(ident, key));
CREATE INDEX IF NOT EXISTS {schema}adopted_owner ON adopted(owner);
"""
_FOLLOWED = """
CREATE {temporary} TABLE follows(
    ident TEXT NOT NULL, key BLOB NOT NULL, previous TEXT NOT NULL, run INTEGER NOT NULL,\
 seal BLOB NOT NULL,
    PRIMARY KEY(ident, key));
"""

# What each version adds to the one before it, from version 1. A version only adds tables: so an
# older journal can be read without a write, with temporary tables in place of those that it lacks.
# Where the new tables must be filled, batchgen.journal.migration has a function for the version.
_VERSIONS = (_KEPT + STAGED, _FOLLOWED + _TAKEN_OVER)
SCHEMA_VERSION = len(_VERSIONS)

# What a plan shadows: it stages a job without a write.
SHADOWED = STAGED + _TAKEN_OVER

TABLES = (
    "prompts",
    "rows",
    "meta",
    "outcomes",
    "files",
    "attempts",
    "reserved",
    "runs",
    "batches",
    "members",
    "follows",
    "adopted",
)


def statements(script: str, *, temporary: bool = False) -> list[str]:
    """The statements of a script; `temporary`: they make temporary tables."""
    parts = (
        {"temporary": "TEMP", "schema": "temp."} if temporary else {"temporary": "", "schema": ""}
    )
    return script.format(**parts).split(";")


def additions(version: int, *, temporary: bool = False) -> list[str]:
    """The statements that bring a journal of the version before to this one."""
    return statements(_VERSIONS[version - 1], temporary=temporary)


def _columns() -> dict[str, dict[str, str]]:
    """The columns of each table in order, with their types."""
    with closing(sqlite3.connect(":memory:")) as empty:
        for version in range(1, SCHEMA_VERSION + 1):
            for statement in additions(version):
                empty.execute(statement)
        return {
            table: {
                name: kind for _, name, kind, *_ in empty.execute(f"PRAGMA table_info({table})")
            }
            for table in TABLES
        }


COLUMNS = _columns()

# The columns of floating point numbers.
REAL = frozenset(
    name for columns in COLUMNS.values() for name, kind in columns.items() if kind == "REAL"
)

# The columns that a record's seal covers, and the position of the first of them.
SEALED = {
    table: tuple(name for name in columns if name not in ("seq", "seal"))
    for table, columns in COLUMNS.items()
}
FIRST = {table: list(columns).index(SEALED[table][0]) for table, columns in COLUMNS.items()}


def total_of(column: str) -> str:
    """SQL for the sum of a column of whole numbers, money above all; `int` takes the result.

    SQLite's sum() ends in an error beyond 64 bits, which two absurd prices reach. total() does not,
    and is exact up to 2**53: 9 million USD in nano-dollars. The cast bounds what a damaged cell may
    hold: text counts as 0, infinity as 2**63. Without records the sum is 0.
    """
    return f"total(CAST({column} AS INTEGER))"
