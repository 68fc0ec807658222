"""The journal: SQLite, the only truth of a job. This docstring is its specification, version 1.

`journal.db` is an SQLite database (application_id 0x62617467, user_version = schema version) in WAL mode, synchronous FULL.
Only the process that holds `.lock` writes. Readers may come at any time. Times are seconds since 1970 (UTC), money is
whole nano-dollars, digests are BLAKE2b of 16 bytes, JSON is canonical (sorted keys, no spaces).

Every line of every table has a `seal`: the digest of its other cells, `seq` excepted, in their order: a JSON array of them
in ASCII, bytes standing in it as their number and following it as they are. A line that does not fit its seal is never used.

prompts   the prompts file as pass 1 read it. n: data row from 1. line: physical line. columns: JSON object of the cells as
          they stand. error: why the row is broken, or NULL.
rows      one line per request of the job as it is now, in the file's order (seq). id: the shown identity. axes: JSON object.
          conversation, turn: thread and number from 1, or NULL and 0. ident: identity of the outcome: `=` and JSON of
          [id, axes, turn] with an id column, else `#` and the occurrence of the key; or, of a row without an outcome, that of
          an outcome with its key that no row has: one whose identity alone has changed. key: the request's key, 32 bytes
          (scheme in meta.scheme). error: why no request could be made (reason `input`), or NULL. tokens, cost, cost_bound:
          what the call is expected to take, and its cost at the worst (NULL: unknown).
outcomes  one line per (ident, key): the answer recorded for it, once. status: succeeded, incomplete or failed. passing: the
          failure says nothing of the row; tries: runs that ended so; from 3 on it has failed for good. redo: to be asked
          again, this answer stays until then. lost: a picture of it is missing. response: one byte `r` (raw) or `z` (zlib),
          then the API's JSON as it came, pictures replaced by path, sha256, size. columns_digest: of the prompt's `columns`
          when it was asked.
files     pictures that answers own: path below the output folder, sha256, size in bytes, mtime in ns.
attempts  one line per call: run, number in that run, http_status, code, reason (NULL: answered), tokens, cost (NULL: unknown),
          seconds waited and elapsed, the batch it was in. reason `interrupted`: the process died while the call was in flight.
reserved  calls in flight under a cap on money, at their worst cost; what a dead process left here counts as spent.
batches   one line per batch of the Batch API: tag (of its metadata), endpoint, model, how many requests it has and about how
          many tokens they send; file and id as the server names them, NULL until that is known; status in the server's
          words, `made` before; seen: JSON of what else the server said last. closed_at: all that it brought is recorded.
          room: it failed because the queue of its model was full, and so many tokens may be in it.
members   one line per request of a batch that is not closed: its line in the batch's file, from 1; the row's shown id, axes
          and columns_digest; outline: JSON of the body as far as an answer is read by it; cost: its highest, or NULL.
runs      one line per run: provenance (versions, platform, host, hashes), the job's text, its exit code and report.
meta      scheme; `staged`: what the tables prompts and rows were made of (signature, header, dialect, ...); `pictures N`:
          pages of the [path, size, mtime] of the pictures that they name. `tables`: how the results and errors tables look
          that show prompts, rows and outcomes as they are; every transaction that may change one of these removes it.

A row of a prompt is answered when outcomes has its (ident, key). Answers under older keys stay: reverting an edit is free.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, Self

from batchgen.errors import DamagedError
from batchgen.journal import database
from batchgen.journal.counts import Counts, RowCounts, upto
from batchgen.journal.database import telling
from batchgen.journal.records import Recorded, Row, insert, is_sound, update
from batchgen.journal.schema import ALONE, COLUMNS, OPEN, STAGED, TABLES, TO_SEND, state
from batchgen.requests import canonical

__all__ = ["PAGE", "Journal", "Recorded", "Row", "RowCounts"]

# Lines read at once: snapshots stay short, so that the log can be checkpointed, and memory flat.
PAGE = 250

# Bytes of prompts and responses after which a page ends before: a page of large texts is short.
PAGE_BYTES = 4 * 1024 * 1024


class Journal(Counts):
    """One job's journal. `open` for writing (under the lock), `peek` for reading; close it, or use it in a `with`."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, shadow: bool = False) -> None:
        super().__init__(connection, path)
        self.shadowed = shadow
        with telling(path):
            if shadow:
                connection.executescript(STAGED.format(temporary="TEMP", schema="temp."))
            connection.executescript(ALONE)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the folder's journal for writing, making it if there is none. Raises OutputError, DamagedError."""
        path = folder / database.NAME
        return cls(database.writing(path), path)

    @classmethod
    def peek(cls, folder: Path, *, shadow: bool = False) -> Self:
        """Open the folder's journal for reading; one that does not exist is empty. With `shadow` a job may be staged in
        temporary tables without touching the file. Raises OutputError, DamagedError."""
        path = folder / database.NAME
        return cls(database.reading(path), path, shadow=shadow)

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
        """All of the block or nothing of it, and with it nothing is known of the tables any more."""
        with self._whole() as connection:
            if not self.shadowed:
                database.forget_tables(connection)
            yield connection

    @contextmanager
    def _whole(self) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing of it. For what no table shows; for the rest there is `transaction`."""
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

    def accept(self, finish_reasons: Sequence[str]) -> None:
        """The finish reasons that count as success in every status that follows."""
        self._connection.execute("DELETE FROM accepted")
        self._connection.executemany(
            "INSERT OR IGNORE INTO accepted VALUES(?)", [(each,) for each in finish_reasons]
        )

    def meta(self, name: str) -> Any:
        """A value kept under a name, or None. Raises DamagedError."""
        found = self.lines("meta", "name = ?", name)
        return json.loads(found[0]["value"]) if found else None

    # -- the rows of the job ---------------------------------------------------------------------------------------

    def heads(self, after: int, scope: int | None) -> list[Row]:
        """The next page of threads with something to send: single rows, or the first turns of conversations. `after` is
        the seq of the last one before; no page is empty but the one after the last."""
        heads = (
            f"SELECT seq FROM rows WHERE seq > ? AND n <= ? AND turn <= 1 ORDER BY seq LIMIT {PAGE}"
        )
        has_work = f"CASE s.turn WHEN 0 THEN {TO_SEND} ELSE {OPEN} AND s.next_n <= ? END"
        while last := self.query(f"SELECT max(seq) AS seq FROM ({heads})", after, upto(scope))[0][
            "seq"
        ]:
            found = self._page(
                heads, after, upto(scope), condition=has_work, given=[upto(scope)], most=PAGE_BYTES
            )
            after = self._onward(after, last)
            if found:
                return [row for row, _ in found]
        return []

    def thread(self, row: Row) -> list[Row]:
        """All turns of a row's conversation and combination, in order."""
        turns = "SELECT seq FROM rows WHERE conversation = ? AND axes = ?"
        return [each for each, _ in self._page(turns, row.conversation, canonical(row.axes))]

    def again(self, row: Row) -> Row:
        """A row as it stands now."""
        return self._page("SELECT ?", row.seq)[0][0]

    def first(self) -> Row | None:
        """The first row of which a request can be made."""
        found = self._page("SELECT seq FROM rows WHERE error IS NULL ORDER BY seq LIMIT 1")
        return found[0][0] if found else None

    def find(self, identity: str) -> list[Row]:
        """The requests whose shown identity is `identity`."""
        return [row for row, _ in self._page("SELECT seq FROM rows WHERE id = ?", identity)]

    def answered(self) -> Iterator[tuple[Row, Recorded | None]]:
        """Every staged request in the prompts file's order, with its outcome. Raises DamagedError."""
        after = 0
        following = f"SELECT seq FROM rows WHERE seq > ? ORDER BY seq LIMIT {PAGE}"
        while page := self._page(following, after, outcomes=True, most=PAGE_BYTES):
            yield from page
            after = self._onward(after, page[-1][0].seq)

    def _page(
        self,
        which: str,
        *values: Any,
        condition: str = "1",
        given: Sequence[Any] = (),
        outcomes: bool = False,
        most: float = inf,
    ) -> list[tuple[Row, Recorded | None]]:
        """Rows, in order, with their prompts and, if asked for, their outcomes; each is checked. `which`, a SELECT of seq
        with its `values`, says of which few rows; `condition`, with the values `given`, which of these; the first that
        hold `most` bytes beside the first prompt are enough. Raises DamagedError."""
        own = f"{_ROW}, s.status, {TO_SEND}"
        joined = ""
        if outcomes:
            own += ", o.*"
            joined = "LEFT JOIN outcomes o ON o.ident = s.ident AND o.key = s.key"
        sql = f"""{state(which)} SELECT {own} FROM state s JOIN prompts p ON p.n = s.n {joined}
            WHERE s.seq IN (SELECT seq FROM page) AND {condition} ORDER BY s.seq"""
        page: list[tuple[Row, Recorded | None]] = []
        size = 0
        with telling(self.path), self._reading:
            for line in self._connection.execute(sql, (*values, *given)):
                # The combinations and turns of one prompt follow each other and share its cells.
                same = page[-1][0] if page and page[-1][0].n == line[_N] else None
                row = self._row(line, same)
                answered = outcomes and line[_WIDTH + 2] is not None
                recorded = self._recorded(line[_WIDTH + 2 :]) if answered else None
                page.append((row, recorded))
                # The first prompt is there anyway, and cut short it would be read again for each of its turns.
                size += 0 if same or len(page) == 1 else len(row.text)
                size += len(recorded.packed) if recorded else 0
                if size > most:
                    break
        return page

    def _row(self, line: sqlite3.Row, same: Row | None) -> Row:
        """A row from its own cells, its prompt's and its state; `same` is one of the same prompt, read already."""
        seq, n, identity, axes, conversation, turn, outcome_id, fingerprint, _, error, *_ = (
            self._checked("rows", line[:_PROMPT])
        )
        if same is None:
            _, number, text, *_ = self._checked("prompts", line[_PROMPT:_WIDTH])
            columns = json.loads(text)
        else:
            number, text, columns = same.line, same.text, same.columns
        return Row(
            seq=seq,
            n=n,
            line=number,
            id=identity,
            axes={} if axes == "{}" else json.loads(axes),
            conversation=conversation,
            turn=turn,
            outcome_id=outcome_id,
            fingerprint=fingerprint,
            error=error,
            columns=columns,
            text=text,
            status=line[_WIDTH],
            todo=bool(line[_WIDTH + 1]),
        )

    # -- the outcomes ----------------------------------------------------------------------------------------------

    def recorded(self, outcome_id: str, fingerprint: bytes) -> Recorded | None:
        """The outcome under an identity and key. Raises DamagedError."""
        return self._first_recorded("ident = ? AND key = ?", outcome_id, fingerprint)

    def last_answer(self, outcome_id: str) -> Recorded | None:
        """The latest answer under an identity, whatever its key: what an outdated row shows. Raises DamagedError."""
        if not outcome_id.startswith("="):
            return None
        newest = "ident = ? AND status <> 'failed' ORDER BY answered_at DESC LIMIT 1"
        return self._first_recorded(newest, outcome_id)

    def shown(self, row: Row, recorded: Recorded | None) -> Recorded | None:
        """What a table shows of a row: its outcome, or of an outdated row its last answer. Raises DamagedError."""
        return (
            self.last_answer(row.outcome_id)
            if recorded is None and row.status == "outdated"
            else recorded
        )

    def attempts(self, idents: Collection[str]) -> list[dict[str, Any]]:
        """The audit of some identities, each in order: the table is read through. Raises DamagedError."""
        given = list(idents)
        some = (given[at : at + PAGE] for at in range(0, len(given), PAGE))
        return [
            line
            for part in some
            for line in self.lines(
                "attempts", f"ident IN ({', '.join('?' * len(part))}) ORDER BY seq", *part
            )
        ]

    def files(self) -> Iterator[dict[str, Any]]:
        """Every picture that an answer owns, be it of a row or of what was one. Raises DamagedError."""
        return (self._named("files", line) for line in self._all("files"))

    def files_of(self, recorded: Recorded) -> list[dict[str, Any]]:
        """The pictures of one answer. Raises DamagedError."""
        return self.lines(
            "files", "ident = ? AND key = ?", recorded.outcome_id, recorded.fingerprint
        )

    def owns(self, path: str) -> bool:
        """Whether a picture's path belongs to a recorded answer."""
        return bool(self.query("SELECT 1 FROM files WHERE path = ?", path))

    def spent(self) -> int:
        """What the attempts of all runs whose cost is known took, in nano-dollars. Raises DamagedError."""
        return sum(self._named("attempts", line)["cost"] or 0 for line in self._all("attempts"))

    def unpriced(self) -> list[sqlite3.Row]:
        """The attempts of unknown cost: input_tokens, output_tokens, the batch they were in, the model and service_tier that
        answered, and what such a call costs at the most (cost_bound), each NULL where that is unknown."""
        return self.query(
            """SELECT a.input_tokens, a.output_tokens, a.batch, o.model, o.service_tier,
                coalesce(r.cost_bound, (SELECT max(cost_bound) FROM rows)) AS cost_bound
            FROM attempts a LEFT JOIN outcomes o ON o.ident = a.ident AND o.key = a.key AND o.run = a.run
            LEFT JOIN rows r ON r.key = a.key AND r.ident = a.ident WHERE a.cost IS NULL"""
        )

    # -- what is not what was written ------------------------------------------------------------------------------

    def damage(self, tables: Iterable[str] = TABLES) -> Iterator[str]:
        """A sentence for everything that SQLite finds wrong with the file, and for every line that does not fit its
        seal; nothing for a sound journal."""
        remedy = "restore the journal from a backup"
        found = [row[0] for row in self.query("PRAGMA integrity_check(20)")]
        if found != ["ok"]:
            yield from (f"{self.path}: is damaged ({each}); {remedy}" for each in found)
            return
        for table in tables:
            for line in self._all(table):
                if not is_sound(table, line):
                    yield f"{self.path}: {_spoken(table, line)} is not what was written; {remedy}"

    def _all(self, table: str) -> Iterator[tuple[Any, ...]]:
        """Every line of a table, in order."""
        after = -(2**62)
        sql = f"SELECT rowid AS rowid_, * FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT {PAGE}"
        while page := self.query(sql, after):
            yield from (line[1:] for line in page)
            after = self._onward(after, page[-1]["rowid_"])

    def _onward(self, before: int, after: int) -> int:
        """The place to read on from. A damaged file may lead back to where a reader has been, for ever."""
        if after <= before:
            raise DamagedError(
                f"{self.path}: is damaged (its lines are out of order); restore it from a backup"
            )
        return after

    def lines(self, table: str, condition: str, *values: Any) -> list[dict[str, Any]]:
        """The lines of a table for which a condition in SQL holds, by the names of their cells. Raises DamagedError."""
        found = self.query(f"SELECT * FROM {table} WHERE {condition}", *values)
        return [self._named(table, tuple(line)) for line in found]

    def _named(self, table: str, line: Sequence[Any]) -> dict[str, Any]:
        """A line's cells by their names."""
        return dict(zip(COLUMNS[table], self._checked(table, line), strict=True))

    def _checked(self, table: str, line: Sequence[Any]) -> Sequence[Any]:
        if not is_sound(table, line):
            what = f"{self.path}: {_spoken(table, line)} is not what was written"
            raise DamagedError(f"{what}; restore the journal from a backup")
        return line

    def _first_recorded(self, condition: str, *values: Any) -> Recorded | None:
        found = self.query(f"SELECT * FROM outcomes WHERE {condition}", *values)
        return self._recorded(tuple(found[0])) if found else None

    def _recorded(self, line: Sequence[Any]) -> Recorded:
        return Recorded._make(self._checked("outcomes", line)[:-1])

    # -- writing, outside a dispatch -------------------------------------------------------------------------------

    def keep(self, name: str, value: Any) -> None:
        """Keep a value under a name, inside the caller's transaction."""
        insert(self._connection, "meta", {"name": name, "value": canonical(value)}, replace=True)

    def begin_run(self, provenance: Mapping[str, Any], job_text: str) -> int:
        """A new run's number. Calls that a dead run left in flight become attempts that cost their worst."""
        with self._whole() as connection:
            for dead in self.lines("reserved", "1 = 1"):
                call = {name: dead[name] for name in ("ident", "key", "run", "number", "cost")}
                ended = {"started_at": dead["at"], "reason": "interrupted", "wait": 0.0}
                insert(connection, "attempts", {**call, **ended})
            connection.execute("DELETE FROM reserved")
            number = connection.execute("SELECT coalesce(max(run), 0) + 1 FROM runs").fetchone()[0]
            about = {
                "started_at": time.time(),
                "provenance": canonical(provenance),
                "job_text": job_text,
            }
            return insert(connection, "runs", {"run": number, **about})

    def forget_tables(self) -> None:
        """Know nothing of the tables any more. Before the first of them is replaced: until the last is, they are no tables of
        one make."""
        if self.meta("tables") is not None:
            with self.transaction():
                pass

    def end_run(
        self,
        run: int,
        exit_code: int,
        report: Mapping[str, Any],
        tables: Mapping[str, Any] | None = None,
    ) -> None:
        """How a run ended, and what is known of the tables that show the journal as it is (None: nothing)."""
        with self._whole() as connection:
            if tables is not None:
                self.keep("tables", tables)
            ended = {"ended_at": time.time(), "exit_code": exit_code, "report": json.dumps(report)}
            update(connection, "runs", run, ended)

    def last_run(self) -> dict[str, Any] | None:
        """The latest run, ended or not; None before the first. Raises DamagedError."""
        found = self.lines("runs", "1 = 1 ORDER BY run DESC LIMIT 1")
        return found[0] if found else None

    def last_report(self) -> dict[str, Any] | None:
        """The report of the last run that ended, or None. Raises DamagedError."""
        found = self.lines("runs", "report IS NOT NULL ORDER BY run DESC LIMIT 1")
        return json.loads(found[0]["report"]) if found else None

    def miss(self, outcomes: Iterable[tuple[str, bytes]]) -> None:
        """These (ident, key) have pictures that are found to be missing: for every status that follows, and nowhere else."""
        self._connection.executemany("INSERT OR IGNORE INTO missing VALUES(?, ?)", outcomes)

    def mark_lost(self, lost: Iterable[tuple[str, bytes]]) -> None:
        """Exactly these (ident, key) have pictures that are not what was written."""
        wanted = set(lost)
        marked = {
            (found["ident"], found["key"])
            for found in self.query("SELECT ident, key FROM outcomes WHERE lost")
        }
        if wanted == marked:
            return
        with self.transaction() as connection:
            for each, lost_now in [
                *((each, 0) for each in marked - wanted),
                *((each, 1) for each in wanted - marked),
            ]:
                self._mark(connection, *each, {"lost": lost_now})

    def mark_redo(self, rows: Iterable[Row], statuses: Iterable[str] = ()) -> int:
        """Have the outcomes of these rows, and of all in these statuses, asked again, with those of the later turns of
        their conversations, which follow from them; the old answers stay until then. Returns how many had an outcome."""
        again = {"redo": 1, "tries": 0}
        with self.transaction() as connection:
            marked = {
                (row.outcome_id, row.fingerprint, row.conversation, canonical(row.axes), row.turn)
                for row in rows
            }
            for status in statuses:
                sql = f"{state()} SELECT ident, key, conversation, axes, turn FROM state WHERE status = ?"
                marked |= {tuple(found) for found in self.query(sql, status)}
            wanted = {(outcome_id, fingerprint) for outcome_id, fingerprint, *_ in marked}
            first: dict[tuple[str, str], int] = {}
            for _, _, conversation, axes, turn in marked:
                if conversation is not None:
                    first[conversation, axes] = min(turn, first.get((conversation, axes), turn))
            later = "SELECT ident, key FROM rows WHERE conversation = ? AND axes = ? AND turn > ?"
            for (conversation, axes), turn in first.items():
                wanted |= {tuple(found) for found in self.query(later, conversation, axes, turn)}
            return sum(
                self._mark(connection, outcome_id, fingerprint, again)
                for outcome_id, fingerprint in wanted
            )

    def _mark(
        self,
        connection: sqlite3.Connection,
        outcome_id: str,
        fingerprint: bytes,
        changes: Mapping[str, Any],
    ) -> int:
        found = self.query(
            "SELECT rowid FROM outcomes WHERE ident = ? AND key = ?", outcome_id, fingerprint
        )
        for each in found:
            update(connection, "outcomes", each["rowid"], changes)
        return len(found)


# The cells of a row and its prompt as they are read together: where the prompt begins, how many there are, the row's n.
_ROW = ", ".join(
    [*(f"s.{name}" for name in COLUMNS["rows"]), *(f"p.{name}" for name in COLUMNS["prompts"])]
)
_PROMPT = len(COLUMNS["rows"])
_WIDTH = _PROMPT + len(COLUMNS["prompts"])
_N = list(COLUMNS["rows"]).index("n")


def _spoken(table: str, line: Sequence[Any]) -> str:
    """A line of a table as people know it."""
    known = {
        "prompts": "the staged line {line} of the prompts",
        "rows": "the staged row {id}",
        "outcomes": "the outcome of {ident}",
        "files": "the entry of {path}",
        "attempts": "an attempt at {ident}",
        "reserved": "a call in flight for {ident}",
        "runs": "the entry of run {run}",
        "batches": "the entry of batch {batch}",
        "members": "the request of {id} in batch {batch}",
        "meta": "the entry {name}",
    }
    return known[table].format(**dict(zip(COLUMNS[table], line, strict=True)))
