"""The journal's tables and the one question they answer: what is the status of each row?

`STATE` is a temporary view, so that every connection asks the same question whatever wrote the file, and so that a plan
may shadow `prompts` and `rows` with temporary tables and ask it of a job that is not staged.
"""

from __future__ import annotations

import re

APPLICATION_ID = 0x62617467  # "batg"
SCHEMA_VERSION = 1

# Runs in which a row may end in a passing failure under one key before it has failed for good.
LAST_RUN = 3

STAGED = """
CREATE {temporary} TABLE IF NOT EXISTS prompts(
    n INTEGER PRIMARY KEY, line INTEGER NOT NULL, id TEXT UNIQUE, columns TEXT NOT NULL, digest BLOB NOT NULL,
    error TEXT, seal BLOB NOT NULL);
CREATE {temporary} TABLE IF NOT EXISTS rows(
    seq INTEGER PRIMARY KEY, n INTEGER NOT NULL, id TEXT NOT NULL, axes TEXT NOT NULL, conversation TEXT,
    turn INTEGER NOT NULL, ident TEXT NOT NULL, key TEXT NOT NULL, occurrence INTEGER NOT NULL, error TEXT,
    tokens INTEGER, cost INTEGER, cost_bound INTEGER, seal BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS {schema}rows_key ON rows(key, occurrence);
CREATE INDEX IF NOT EXISTS {schema}rows_id ON rows(id);
CREATE INDEX IF NOT EXISTS {schema}rows_thread ON rows(conversation, axes, turn) WHERE conversation IS NOT NULL;
"""

KEPT = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL, seal BLOB NOT NULL);
CREATE TABLE outcomes(
    ident TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, finish_reason TEXT, model TEXT, service_tier TEXT,
    input_tokens INTEGER, cached_tokens INTEGER, output_tokens INTEGER, reasoning_tokens INTEGER, cost INTEGER,
    attempts INTEGER NOT NULL, elapsed REAL NOT NULL, answered_at REAL NOT NULL, run INTEGER NOT NULL,
    reason TEXT, http_status INTEGER, code TEXT, message TEXT, request_id TEXT, passing INTEGER NOT NULL,
    columns_digest BLOB NOT NULL, response BLOB NOT NULL, tries INTEGER NOT NULL, redo INTEGER NOT NULL,
    lost INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY(ident, key));
CREATE TABLE files(
    path TEXT PRIMARY KEY COLLATE NOCASE, ident TEXT NOT NULL, key TEXT NOT NULL,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, seal BLOB NOT NULL);
CREATE INDEX files_row ON files(ident, key);
CREATE TABLE attempts(
    seq INTEGER PRIMARY KEY, ident TEXT NOT NULL, key TEXT NOT NULL, run INTEGER NOT NULL, number INTEGER NOT NULL,
    started_at REAL NOT NULL, http_status INTEGER, code TEXT, reason TEXT, request_id TEXT,
    input_tokens INTEGER, output_tokens INTEGER, cost INTEGER, wait REAL NOT NULL, elapsed REAL, seal BLOB NOT NULL);
CREATE INDEX attempts_row ON attempts(ident, key);
CREATE TABLE reserved(
    ident TEXT NOT NULL, key TEXT NOT NULL, run INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL,
    cost INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY(ident, key));
CREATE TABLE runs(
    run INTEGER PRIMARY KEY, started_at REAL NOT NULL, ended_at REAL, exit_code INTEGER, provenance TEXT NOT NULL,
    job_text TEXT NOT NULL, report TEXT, seal BLOB NOT NULL);
"""

TABLES = ("prompts", "rows", "meta", "outcomes", "files", "attempts", "reserved", "runs")


def columns_of(table: str) -> list[str]:
    """The names of a table's columns, in order."""
    body = re.search(rf" {table}\(.*?\);", KEPT + STAGED, re.DOTALL)
    assert body is not None
    return re.findall(r"(\w+) (?:TEXT|INTEGER|REAL|BLOB)", body[0])


# The columns that hold numbers with a point.
REAL = frozenset(re.findall(r"(\w+) REAL", KEPT))

# What is read together of a row of the job, its prompt and its outcome.
ROWS = columns_of("rows")
PROMPTS = columns_of("prompts")
OUTCOMES = columns_of("outcomes")

# What `accept` names counts as success without touching what was recorded: the job may change its mind for free.
STATE = f"""
CREATE TEMP TABLE accepted(finish_reason TEXT PRIMARY KEY);
CREATE TEMP VIEW state AS
SELECT r.*, o.status AS recorded, o.finish_reason, o.passing, o.tries, o.redo,
    CASE
        WHEN r.error IS NOT NULL THEN 'failed'
        WHEN o.status IS NULL OR o.lost THEN
            CASE
                WHEN r.turn > 1 AND EXISTS (
                    SELECT 1 FROM rows p LEFT JOIN outcomes q ON q.ident = p.ident AND q.key = p.key
                    WHERE p.conversation = r.conversation AND p.axes = r.axes AND p.turn < r.turn AND (
                        p.error IS NOT NULL OR q.status = 'failed' OR (
                            q.status = 'incomplete'
                            AND q.finish_reason NOT IN (SELECT finish_reason FROM accepted)))) THEN 'blocked'
                WHEN substr(r.ident, 1, 1) = '=' AND EXISTS (
                    SELECT 1 FROM outcomes e
                    WHERE e.ident = r.ident AND e.key <> r.key AND e.status <> 'failed') THEN 'outdated'
                ELSE 'pending' END
        WHEN o.redo THEN iif(o.status = 'failed', 'pending', 'outdated')
        WHEN o.status = 'incomplete' AND o.finish_reason IN (SELECT finish_reason FROM accepted) THEN 'succeeded'
        ELSE o.status END AS status,
    r.error IS NULL AND o.status = 'failed' AND o.passing AND o.tries < {LAST_RUN} AS again
FROM rows r LEFT JOIN outcomes o ON o.ident = r.ident AND o.key = r.key;
"""

# A row is sent when this holds of its state `s`.
TODO = "(s.status IN ('pending', 'outdated') OR s.again)"
