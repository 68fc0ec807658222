"""The journal's tables and the one question they answer: what is the status of each row?

`ALONE` is a temporary view, so that every connection asks the same question whatever wrote the file, and so that a plan
may shadow `prompts` and `rows` with temporary tables and ask it of a job that is not staged.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

APPLICATION_ID = 0x62617467  # "batg"
SCHEMA_VERSION = 1

# Runs in which a row may end in a passing failure under one key before it has failed for good.
LAST_RUN = 3

STAGED = """
CREATE {temporary} TABLE IF NOT EXISTS prompts(
    n INTEGER PRIMARY KEY, line INTEGER NOT NULL, columns TEXT NOT NULL, error TEXT, seal BLOB NOT NULL);
CREATE {temporary} TABLE IF NOT EXISTS rows(
    seq INTEGER PRIMARY KEY, n INTEGER NOT NULL, id TEXT NOT NULL, axes TEXT NOT NULL, conversation TEXT,
    turn INTEGER NOT NULL, ident TEXT NOT NULL, key BLOB NOT NULL, occurrence INTEGER NOT NULL, error TEXT,
    tokens INTEGER, cost INTEGER, cost_bound INTEGER, seal BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS {schema}rows_key ON rows(key, occurrence);
CREATE INDEX IF NOT EXISTS {schema}rows_id ON rows(id);
CREATE INDEX IF NOT EXISTS {schema}rows_thread ON rows(conversation, axes, turn) WHERE conversation IS NOT NULL;
"""

KEPT = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL, seal BLOB NOT NULL);
CREATE TABLE outcomes(
    ident TEXT NOT NULL, key BLOB NOT NULL, status TEXT NOT NULL, finish_reason TEXT, model TEXT, service_tier TEXT,
    input_tokens INTEGER, cached_tokens INTEGER, output_tokens INTEGER, reasoning_tokens INTEGER, cost INTEGER,
    attempts INTEGER NOT NULL, elapsed REAL NOT NULL, answered_at REAL NOT NULL, run INTEGER NOT NULL,
    reason TEXT, http_status INTEGER, code TEXT, message TEXT, request_id TEXT, passing INTEGER NOT NULL,
    columns_digest BLOB NOT NULL, response BLOB NOT NULL, tries INTEGER NOT NULL, redo INTEGER NOT NULL,
    lost INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY(ident, key));
CREATE TABLE files(
    path TEXT PRIMARY KEY COLLATE NOCASE, ident TEXT NOT NULL, key BLOB NOT NULL,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, seal BLOB NOT NULL);
CREATE INDEX files_row ON files(ident, key);
CREATE TABLE attempts(
    seq INTEGER PRIMARY KEY, ident TEXT NOT NULL, key BLOB NOT NULL, run INTEGER NOT NULL, number INTEGER NOT NULL,
    started_at REAL NOT NULL, http_status INTEGER, code TEXT, reason TEXT, request_id TEXT,
    input_tokens INTEGER, output_tokens INTEGER, cost INTEGER, wait REAL NOT NULL, elapsed REAL, batch INTEGER,
    seal BLOB NOT NULL);
CREATE TABLE reserved(
    ident TEXT NOT NULL, key BLOB NOT NULL, run INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL,
    cost INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY(ident, key));
CREATE TABLE runs(
    run INTEGER PRIMARY KEY, started_at REAL NOT NULL, ended_at REAL, exit_code INTEGER, provenance TEXT NOT NULL,
    job_text TEXT NOT NULL, report TEXT, seal BLOB NOT NULL);
CREATE TABLE batches(
    batch INTEGER PRIMARY KEY, run INTEGER NOT NULL, tag TEXT NOT NULL UNIQUE, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    made_at REAL NOT NULL, requests INTEGER NOT NULL, tokens INTEGER NOT NULL, file TEXT, id TEXT,
    status TEXT NOT NULL, seen TEXT NOT NULL, room INTEGER, closed_at REAL, seal BLOB NOT NULL);
CREATE TABLE members(
    ident TEXT NOT NULL, key BLOB NOT NULL, batch INTEGER NOT NULL, line INTEGER NOT NULL, id TEXT NOT NULL,
    axes TEXT NOT NULL, outline TEXT NOT NULL, columns_digest BLOB NOT NULL, cost INTEGER, seal BLOB NOT NULL,
    PRIMARY KEY(ident, key));
CREATE UNIQUE INDEX members_line ON members(batch, line);
"""

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
)


def _columns() -> dict[str, dict[str, str]]:
    """The columns of each table in order, with their types."""
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(KEPT + STAGED.format(temporary="", schema=""))
        return {
            table: {
                name: kind for _, name, kind, *_ in empty.execute(f"PRAGMA table_info({table})")
            }
            for table in TABLES
        }


COLUMNS = _columns()

# The columns that hold numbers with a point.
REAL = frozenset(
    name for columns in COLUMNS.values() for name, kind in columns.items() if kind == "REAL"
)

# The cells that a line's seal seals, and the place of the first of them.
SEALED = {
    table: tuple(name for name in columns if name not in ("seq", "seal"))
    for table, columns in COLUMNS.items()
}
FIRST = {table: list(columns).index(SEALED[table][0]) for table, columns in COLUMNS.items()}

# Each row as its own outcome has it, whatever the turns before it. What `accept` names counts as success without touching
# what was recorded: the job may change its mind for free.
ALONE = f"""
CREATE TEMP TABLE accepted(finish_reason TEXT PRIMARY KEY);
CREATE TEMP TABLE missing(ident TEXT, key BLOB, PRIMARY KEY(ident, key));
CREATE TEMP VIEW alone AS
SELECT r.*, o.status AS recorded, o.finish_reason, o.reason, o.passing, o.tries, o.redo,
    o.status IS NOT NULL AND (o.lost OR m.ident IS NOT NULL) AS lost,
    CASE
        WHEN r.error IS NOT NULL THEN 'failed'
        WHEN o.status IS NULL OR o.lost OR m.ident IS NOT NULL THEN 'pending'
        WHEN o.redo THEN iif(o.status = 'failed', 'pending', 'outdated')
        WHEN o.status = 'incomplete' AND o.finish_reason IN (SELECT finish_reason FROM accepted) THEN 'succeeded'
        ELSE o.status END AS verdict,
    r.error IS NULL AND o.status = 'failed' AND NOT o.redo AND o.passing AND o.tries < {LAST_RUN} AS again
FROM rows r LEFT JOIN outcomes o ON o.ident = r.ident AND o.key = r.key
    LEFT JOIN missing m ON m.ident = r.ident AND m.key = r.key;
"""


def state(page: str | None = None) -> str:
    """The WITH clause that gives `state`: each row with its status, and where its conversation stands. `page`, a SELECT
    of seq, is for questions about few rows: it gives the table `page`, and only the conversations of its rows are looked at.

    Of a conversation, `barred` is the first turn that failed or is incomplete (those after it are blocked), `ended` the
    first of these that no run tries again, and `next` (of the prompt `next_n`) the first turn without success.
    """
    # Found once for each conversation, not for each turn: a thread may be thousands of turns long.
    threads, paged = "alone a WHERE a.conversation IS NOT NULL", ""
    if page is not None:
        paged = f"""page(seq) AS ({page}),
            talks AS (SELECT DISTINCT conversation, axes FROM rows
                WHERE conversation IS NOT NULL AND seq IN (SELECT seq FROM page)),"""
        threads = "talks CROSS JOIN alone a ON a.conversation = talks.conversation AND a.axes = talks.axes"
    return f"""WITH {paged}
    stands AS (
        SELECT a.conversation, a.axes,
            min(iif(a.verdict IN ('failed', 'incomplete'), a.turn, NULL)) AS barred,
            min(iif(a.verdict IN ('failed', 'incomplete') AND NOT coalesce(a.again, 0), a.turn, NULL)) AS ended,
            min(iif(a.verdict <> 'succeeded', a.turn, NULL)) AS next,
            min(iif(a.verdict <> 'succeeded', a.n, NULL)) AS next_n
        FROM {threads} GROUP BY a.conversation, a.axes),
    state AS (
        SELECT a.*, t.barred, t.ended, t.next, t.next_n,
            CASE
                WHEN a.verdict = 'pending' AND a.turn > t.barred THEN 'blocked'
                WHEN a.verdict = 'pending' AND (a.recorded IS NULL OR a.lost) AND substr(a.ident, 1, 1) = '=' AND EXISTS (
                    SELECT 1 FROM outcomes e
                    WHERE e.ident = a.ident AND e.key <> a.key AND e.status <> 'failed') THEN 'outdated'
                ELSE a.verdict END AS status
        FROM alone a LEFT JOIN stands t ON t.conversation = a.conversation AND t.axes = a.axes)
    """


# Whether the state `s` is that of a row which an open batch may still answer.
IN_BATCH = "EXISTS (SELECT 1 FROM members m WHERE m.ident = s.ident AND m.key = s.key)"

# A row is sent when this holds of its state `s`: a turn only when no run stops before it, a blocked one with that turn; and
# not while it is in a batch, whatever the mode.
TO_SEND = f"""((s.status IN ('pending', 'outdated', 'blocked') OR s.again) AND coalesce(s.turn <= s.ended, 1)
    AND NOT {IN_BATCH})"""

# The same of a conversation as a whole, asked of its first turn.
OPEN = "(s.next IS NOT NULL AND coalesce(s.next < s.ended, 1))"
