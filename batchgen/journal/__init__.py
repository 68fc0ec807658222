"""The journal: SQLite, the only truth of a job. This docstring is its specification, version 1.

`journal.db` is an SQLite database (application_id 0x62617467, user_version = schema version) in WAL mode, synchronous FULL.
Only the process that holds `.lock` writes. Readers may come at any time. Times are seconds since 1970 (UTC), money is
whole nano-dollars, digests are BLAKE2b of 16 bytes, JSON is canonical (sorted keys, no spaces).

prompts   the prompts file as pass 1 read it. n: data row from 1. line: physical line. id: the id column's value or NULL.
          columns: JSON object of the cells as they stand. digest: of `columns`.
rows      one line per request of the job as it is now, in the file's order (seq). id: the shown identity. axes: JSON object.
          conversation, turn: thread and number from 1, or NULL and 0. ident: identity of the outcome: `=` and JSON of
          [id, axes, turn] with an id column, else `#` and the occurrence of the key. key: the request's key (scheme in
          meta.scheme). error: why no request could be made (reason `input`), or NULL. tokens, cost, cost_bound: what the
          call is expected to take, and its cost at the worst (NULL: unknown).
outcomes  one line per (ident, key): the answer recorded for it, once. status: succeeded, incomplete or failed. passing: the
          failure says nothing of the row; tries: runs that ended so; from 3 on it has failed for good. redo: to be asked
          again, this answer stays until then. lost: a picture of it is missing. response: one byte `r` (raw) or `z` (zlib),
          then the API's JSON as it came, pictures replaced by path, sha256, size. columns_digest: of the prompt's columns
          when it was asked. digest: over every column but tries, redo, lost.
files     pictures that answers own: path below the output folder, sha256, size in bytes, mtime in ns.
attempts  one line per call: run, number in that run, http_status, code, reason (NULL: answered), tokens, cost (NULL: unknown),
          seconds waited and elapsed. reason `interrupted`: the process died while the call was in flight.
reserved  calls in flight under a cap on money, at their worst cost; what a dead process left here counts as spent.
runs      one line per run: provenance (versions, platform, host, hashes), the job's text, its exit code and report.
meta      scheme, and `staged`: what the tables prompts and rows were made of (signature, header, dialect, ...).

A row of a prompt is answered when outcomes has its (ident, key). Answers under older keys stay: reverting an edit is free.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from batchgen.disk import refuse_link
from batchgen.errors import DamagedError, OutputError
from batchgen.journal.schema import APPLICATION_ID, KEPT, LAST_RUN, SCHEMA_VERSION, STAGED, STATE, TODO
from batchgen.requests import SCHEME, canonical

# Rows read at once for dispatch and tables: snapshots stay short, so that the log can be checkpointed.
PAGE = 500

# Everything that a reader may want of an outcome, in the order of the digest.
DIGESTED = [
    "ident",
    "key",
    "status",
    "finish_reason",
    "model",
    "service_tier",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost",
    "attempts",
    "elapsed",
    "answered_at",
    "run",
    "reason",
    "http_status",
    "code",
    "message",
    "request_id",
    "passing",
    "columns_digest",
    "response",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One staged request with its status; `columns` are the prompt's cells, `error` why it cannot be sent."""

    seq: int
    n: int
    line: int
    id: str
    axes: dict[str, Any]
    conversation: str | None
    turn: int
    ident: str
    key: str
    error: str | None
    columns: dict[str, Any]
    columns_digest: bytes
    status: str
    todo: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recorded outcome. `response` is the API's JSON (b"" for a failure), `cost` in nano-dollars."""

    ident: str
    key: str
    status: str
    finish_reason: str | None
    model: str | None
    service_tier: str | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost: int | None
    attempts: int
    elapsed: float
    answered_at: float
    run: int
    reason: str | None
    http_status: int | None
    code: str | None
    message: str | None
    request_id: str | None
    passing: bool
    columns_digest: bytes
    response: bytes
    tries: int = 0

    def digest(self) -> bytes:
        """What the journal's column `digest` must be."""
        values = [getattr(self, name) for name in DIGESTED]
        plain = [value.hex() if isinstance(value, bytes) else value for value in values]
        return digest_of(canonical(plain))


def digest_of(text: str) -> bytes:
    """BLAKE2b of a text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def packed(response: bytes) -> bytes:
    """A response as it is stored: compressed where that pays."""
    small = zlib.compress(response, 6) if len(response) > 200 else response
    return b"z" + small if len(small) < len(response) else b"r" + response


def unpacked(stored: bytes) -> bytes:
    """A response as it came. Raises DamagedError."""
    try:
        return zlib.decompress(stored[1:]) if stored[:1] == b"z" else stored[1:]
    except zlib.error:
        raise DamagedError("a stored response does not unpack") from None


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into OutputError and DamagedError, with what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise DamagedError(f"{path}: is damaged ({error}); restore it from a backup or move it away") from None
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            what = "the disk is full or failing"
            raise OutputError(f"{path}: {what} ({error}); nothing recorded is lost; mend that and run again") from None
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_LOCKED", "SQLITE_BUSY")):
            raise OutputError(f"{path}: cannot be written ({error}); mend that and run again") from None
        raise


class Journal:
    """One job's journal. `open` for writing (under the lock), `peek` for reading; close it, or use it in a `with`."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, shadow: bool = False) -> None:
        self.path = path
        self.shadowed = shadow
        self._connection = connection
        # Pages are read in threads, off the event loop; one at a time.
        self._reading = threading.RLock()
        connection.row_factory = sqlite3.Row
        if shadow:
            connection.executescript(STAGED.format(temporary="TEMP", schema="temp."))
        connection.executescript(STATE)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the folder's journal for writing, making it if there is none. Raises OutputError, DamagedError."""
        path = folder / "journal.db"
        for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
            refuse_link(folder / name)
        with telling(path):
            connection = _connect(path)
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0 and not _tables(connection):
                _create(connection)
            _check_version(connection, path)
            return cls(connection, path)

    @classmethod
    def peek(cls, folder: Path, *, shadow: bool = False) -> Self:
        """Open the folder's journal for reading; one that does not exist is empty. With `shadow` a job may be staged in
        temporary tables without touching the file. Raises OutputError, DamagedError."""
        path = folder / "journal.db"
        with telling(path):
            if not path.exists():
                connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                _create(connection)
            else:
                refuse_link(path)
                uri = f"{path.absolute().as_uri()}?mode=ro"
                connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
                _check_version(connection, path)
            return cls(connection, path, shadow=shadow)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        with self._reading:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing of it."""
        with telling(self.path), self._reading:
            # What shadows the staged rows is temporary, and the file itself is only read.
            self._connection.execute("BEGIN" if self.shadowed else "BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """All the rows of a query."""
        with telling(self.path), self._reading:
            return self._connection.execute(sql, values).fetchall()

    def accept(self, finish_reasons: Sequence[str]) -> None:
        """The finish reasons that count as success in every status that follows."""
        self._connection.execute("DELETE FROM accepted")
        self._connection.executemany("INSERT OR IGNORE INTO accepted VALUES(?)", [(each,) for each in finish_reasons])

    def meta(self, name: str) -> Any:
        """A value kept under a name, or None."""
        found = self.query("SELECT value FROM meta WHERE name = ?", name)
        return json.loads(found[0][0]) if found else None

    # -- reading -------------------------------------------------------------------------------------------------

    def counts(self, scope: int | None, *, by_turns: bool) -> dict[str, int]:
        """Table lines by status, of the prompts' first `scope` rows (None: all); with `by_turns` a line is all its turns,
        and its status that of the turn that is furthest from success."""
        rank = "CASE status WHEN 'failed' THEN 1 WHEN 'incomplete' THEN 2 WHEN 'pending' THEN 3 WHEN 'outdated' THEN 4"
        source = "SELECT status FROM state WHERE n <= ?"
        if by_turns:
            source = f"""SELECT status, min({rank} WHEN 'blocked' THEN 5 ELSE 6 END) FROM state
                         WHERE n <= ? GROUP BY n, axes"""
        sql = f"SELECT status, count(*) FROM ({source}) GROUP BY status"
        found = self.query(sql, _upto(scope))
        return {row["status"]: row["count(*)"] for row in found}

    def todo(self, scope: int | None) -> tuple[int, int]:
        """How many requests would be sent now, and how many of them only because a passing failure is tried again."""
        found = self.query(f"SELECT count(*), coalesce(sum(again), 0) FROM state WHERE n <= ? AND {TODO}", _upto(scope))
        blocked = self.query("SELECT count(*) FROM state WHERE n <= ? AND status = 'blocked'", _upto(scope))[0][0]
        # A blocked turn follows when the turn before it is tried again and succeeds.
        return found[0][0] + (blocked if found[0][1] else 0), found[0][1]

    def forecast(self, scope: int | None) -> dict[str, Any]:
        """What is still to be sent: requests, tokens, cost and its bound (nano-dollars, None when one is unknown), and
        why: `changed_rows` and `changed_job` count the outdated ones whose cells did or did not change."""
        known = "iif(count({0}) = count(*), coalesce(sum({0}), 0), NULL) AS {0}"
        found = self.query(
            f"""SELECT count(*) AS requests, coalesce(sum(tokens), 0) AS tokens, {known.format("cost")},
                {known.format("cost_bound")} FROM state WHERE n <= ? AND ({TODO} OR status = 'blocked')""",
            _upto(scope),
        )[0]
        same = """SELECT count(*) FROM state s JOIN prompts p USING(n) WHERE n <= ? AND status = 'outdated'
                  AND NOT coalesce(redo, 0) AND EXISTS (SELECT 1 FROM outcomes e WHERE e.ident = s.ident
                  AND e.key <> s.key AND e.status <> 'failed' AND e.columns_digest = p.digest)"""
        changed_job = self.query(same, _upto(scope))[0][0]
        outdated = "SELECT count(*) FROM state WHERE n <= ? AND status = 'outdated' AND NOT coalesce(redo, 0)"
        return {
            **dict(found),
            "changed_job": changed_job,
            "changed_rows": self.query(outdated, _upto(scope))[0][0] - changed_job,
        }

    def totals(self, scope: int | None, run: int | None = None) -> dict[str, Any]:
        """Tokens and the cost of the answers to the rows in scope, or of the calls of one run; with calls and failures.

        Costs are nano-dollars; `unpriced` counts the calls whose cost is unknown."""
        where, value = ("run = ?", run) if run is not None else ("1 = ?", 1)
        calls = self.query(
            f"""SELECT count(*) AS calls, coalesce(sum(input_tokens), 0) AS input_tokens,
                coalesce(sum(output_tokens), 0) AS output_tokens, coalesce(sum(cost), 0) AS cost,
                coalesce(sum(cost IS NULL), 0) AS unpriced FROM attempts WHERE {where}""",
            value,
        )[0]
        reasons = self.query(
            f"""SELECT iif(s.error IS NOT NULL, 'input', iif(o.passing AND o.tries >= {LAST_RUN}, 'gave_up',
                    coalesce(o.reason, o.finish_reason))) AS reason, count(*) AS rows
                FROM state s LEFT JOIN outcomes o ON o.ident = s.ident AND o.key = s.key
                WHERE n <= ? AND s.status IN ('failed', 'incomplete') GROUP BY 1 ORDER BY 2 DESC, 1""",
            _upto(scope),
        )
        models = self.query("SELECT DISTINCT model FROM outcomes WHERE model IS NOT NULL ORDER BY 1")
        return {
            **dict(calls),
            "failures": {row["reason"]: row["rows"] for row in reasons},
            "models": [row["model"] for row in models],
        }

    def heads(self, after: int, scope: int | None) -> list[Row]:
        """The next page of threads with something to send: single rows, or the first turns of conversations."""
        return self._rows(
            f"""seq > ? AND n <= ? AND CASE WHEN turn = 0 THEN {TODO} ELSE turn = 1 AND EXISTS (
                SELECT 1 FROM state t WHERE t.conversation = s.conversation AND t.axes = s.axes AND t.n <= ?
                AND (t.status IN ('pending', 'outdated') OR t.again)) END ORDER BY seq LIMIT {PAGE}""",
            after,
            _upto(scope),
            _upto(scope),
        )

    def thread(self, row: Row) -> list[Row]:
        """All turns of a row's conversation and combination, in order."""
        axes = canonical(row.axes)
        return self._rows("conversation = ? AND axes = ? ORDER BY turn", row.conversation, axes)

    def lines(self, after: int = 0) -> Iterator[Row]:
        """Every staged request in the prompts file's order."""
        while page := self._rows(f"seq > ? ORDER BY seq LIMIT {PAGE}", after):
            yield from page
            after = page[-1].seq

    def find(self, identity: str) -> list[Row]:
        """The requests whose shown identity is `identity`."""
        return self._rows("s.id = ? ORDER BY seq", identity)

    def _rows(self, condition: str, *values: Any) -> list[Row]:
        sql = f"""SELECT s.*, {TODO} AS todo, p.line, p.columns, p.digest AS columns_digest
                  FROM state s JOIN prompts p USING(n) WHERE {condition}"""
        return [_row(found) for found in self.query(sql, *values)]

    def recorded(self, ident: str, key: str) -> Recorded | None:
        """The outcome under an identity and key, its digest checked. Raises DamagedError."""
        found = self.query("SELECT * FROM outcomes WHERE ident = ? AND key = ?", ident, key)
        return _recorded(found[0], self.path) if found else None

    def last_answer(self, ident: str) -> Recorded | None:
        """The latest answer under an identity, whatever its key: what an outdated row shows."""
        sql = "SELECT * FROM outcomes WHERE ident = ? AND status <> 'failed' ORDER BY answered_at DESC LIMIT 1"
        found = self.query(sql, ident) if ident.startswith("=") else []
        return _recorded(found[0], self.path) if found else None

    def outcomes(self) -> Iterator[Recorded]:
        """Every outcome, its digest checked. Raises DamagedError for the first that is not what was written."""
        after = 0
        while page := self.query(
            f"SELECT rowid AS row, * FROM outcomes WHERE rowid > ? ORDER BY rowid LIMIT {PAGE}", after
        ):
            yield from (_recorded(found, self.path) for found in page)
            after = page[-1]["row"]

    def attempts(self, ident: str) -> list[dict[str, Any]]:
        """The audit of one identity, in order."""
        return [dict(found) for found in self.query("SELECT * FROM attempts WHERE ident = ? ORDER BY seq", ident)]

    def files(self) -> Iterator[dict[str, Any]]:
        """Every picture that an answer owns."""
        after = ""
        while page := self.query(f"SELECT * FROM files WHERE path > ? ORDER BY path LIMIT {PAGE}", after):
            yield from (dict(found) for found in page)
            after = page[-1]["path"]

    def owns(self, path: str) -> bool:
        """Whether a picture's path belongs to a recorded answer."""
        return bool(self.query("SELECT 1 FROM files WHERE path = ?", path))

    def spent(self) -> int:
        """What every attempt of every run cost, in nano-dollars; unknown costs are not in it."""
        return int(self.query("SELECT coalesce(sum(cost), 0) FROM attempts")[0][0])

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file; nothing for a sound one."""
        found = [row[0] for row in self.query("PRAGMA integrity_check(20)")]
        return [] if found == ["ok"] else found

    def damaged_prompts(self) -> Iterator[int]:
        """The lines of staged prompts whose cells are not what was staged."""
        after = 0
        while page := self.query(f"SELECT * FROM prompts WHERE n > ? ORDER BY n LIMIT {PAGE}", after):
            yield from (found["line"] for found in page if digest_of(found["columns"]) != found["digest"])
            after = page[-1]["n"]

    # -- writing, outside a dispatch -----------------------------------------------------------------------------

    def keep(self, name: str, value: Any) -> None:
        """Keep a value under a name."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (name, canonical(value)))

    def begin_run(self, provenance: Mapping[str, Any], job_text: str) -> int:
        """A new run's number. Calls that a dead run left in flight become attempts that cost their worst."""
        with self.transaction() as connection:
            connection.execute(
                """INSERT INTO attempts(ident, key, run, number, started_at, reason, cost, wait)
                   SELECT ident, key, run, number, at, 'interrupted', cost, 0 FROM reserved"""
            )
            connection.execute("DELETE FROM reserved")
            sql = "INSERT INTO runs(started_at, provenance, job_text) VALUES(?, ?, ?)"
            return int(connection.execute(sql, (time.time(), canonical(provenance), job_text)).lastrowid or 0)

    def end_run(self, run: int, exit_code: int, report: Mapping[str, Any]) -> None:
        """How a run ended."""
        with self.transaction() as connection:
            sql = "UPDATE runs SET ended_at = ?, exit_code = ?, report = ? WHERE run = ?"
            connection.execute(sql, (time.time(), exit_code, json.dumps(report), run))

    def last_report(self) -> dict[str, Any] | None:
        """The report of the last run that ended, or None."""
        found = self.query("SELECT report FROM runs WHERE report IS NOT NULL ORDER BY run DESC LIMIT 1")
        return json.loads(found[0][0]) if found else None

    def mark_lost(self, lost: Sequence[tuple[str, str]]) -> None:
        """Exactly these (ident, key) have pictures that are not what was written."""
        with self.transaction() as connection:
            connection.execute("UPDATE outcomes SET lost = 0 WHERE lost")
            connection.executemany("UPDATE outcomes SET lost = 1 WHERE ident = ? AND key = ?", lost)

    def mark_redo(self, rows: Sequence[Row]) -> int:
        """Have these rows' outcomes asked again; the old answers stay until then. Returns how many had an outcome."""
        with self.transaction() as connection:
            marked = 0
            for row in rows:
                sql = "UPDATE outcomes SET redo = 1, tries = 0 WHERE ident = ? AND key = ?"
                marked += connection.execute(sql, (row.ident, row.key)).rowcount
            return marked


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise OutputError(f"{path}: SQLite cannot use its write-ahead log here; choose another output.dir")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def writer_connection(path: Path) -> sqlite3.Connection:
    """A second connection for the thread that writes while the first reads."""
    with telling(path):
        return _connect(path)


def _tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    script = KEPT + STAGED.format(temporary="", schema="")
    connection.executescript(
        f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; {script}"
        f"INSERT INTO meta VALUES('scheme', '{SCHEME}'); COMMIT;"
    )


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != APPLICATION_ID:
        raise DamagedError(f"{path}: is no journal of batchgen; move it away and run again")
    if version > SCHEMA_VERSION:
        raise OutputError(f"{path}: was written by a newer batchgen (schema {version}); update batchgen and run again")


def _upto(scope: int | None) -> int:
    return scope if scope is not None else 2**62


def _row(found: sqlite3.Row) -> Row:
    return Row(
        seq=found["seq"],
        n=found["n"],
        line=found["line"],
        id=found["id"],
        axes=json.loads(found["axes"]),
        conversation=found["conversation"],
        turn=found["turn"],
        ident=found["ident"],
        key=found["key"],
        error=found["error"],
        columns=json.loads(found["columns"]),
        columns_digest=found["columns_digest"],
        status=found["status"],
        todo=bool(found["todo"]),
    )


def _recorded(found: sqlite3.Row, path: Path) -> Recorded:
    values = {name: found[name] for name in DIGESTED}
    where = f"{path}: the outcome of {found['ident']}"
    try:
        values["response"] = unpacked(found["response"])
        values["passing"] = bool(found["passing"])
        recorded = Recorded(**values, tries=found["tries"])
        sound = recorded.digest() == found["digest"]
    except (DamagedError, TypeError, ValueError):
        sound = False
    if not sound:
        raise DamagedError(f"{where} is not what was written; restore the journal from a backup, or `redo` that row")
    return recorded
