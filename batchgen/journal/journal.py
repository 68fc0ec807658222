"""One job's journal: the connection, its transactions, and reading sealed records from it."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from batchgen.errors import DamagedError
from batchgen.journal import database
from batchgen.journal.database import translating_errors
from batchgen.journal.records import MEND, damage_of, insert, is_sound
from batchgen.journal.schema import COLUMNS, SHADOWED, statements
from batchgen.journal.status import ROW_STATE
from batchgen.replies import accepted, is_accepted
from batchgen.requests import canonical

# Records read at once. Snapshots stay short, so that the log can be checkpointed, and memory stays
# flat.
PAGE = 250


class Journal:
    """One job's journal.

    `open` it for writing (under the lock) or `peek` to read, and close it, or use it in a `with`.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        accept: Sequence[str] = (),
        shadow: bool = False,
    ) -> None:
        """Use `open` or `peek`.

        connection: of `path`, from batchgen.journal.database. path: of the journal's file, for
        messages and for the writer's own connection. accept: finish reasons that count as success
        (the job's `output.accept`). shadow: temporary tables stand in for what pass 1 writes, so
        that a plan can stage a job without a write.
        """
        self.path, self.connection, self.shadowed = path, connection, shadow
        # Pages are read in threads, off the event loop; one at a time.
        self._lock = threading.RLock()
        with translating_errors(path):
            if shadow:
                self._shadow()
            taken = accepted(accept)
            connection.create_function(
                "is_accepted", 1, lambda word: is_accepted(word, taken), deterministic=True
            )
            connection.executescript(ROW_STATE)

    def _shadow(self) -> None:
        # `prompts` and `rows` are made anew in any case; of `adopted` only a part is replaced.
        self.connection.execute("CREATE TEMP TABLE copied AS SELECT * FROM adopted")
        for statement in statements(SHADOWED, temporary=True):
            self.connection.execute(statement)
        self.connection.execute("INSERT OR IGNORE INTO temp.adopted SELECT * FROM temp.copied")
        self.connection.execute("DROP TABLE temp.copied")

    @classmethod
    def open(cls, folder: Path, *, accept: Sequence[str] = ()) -> Self:
        """Open the folder's journal for writing and create it if there is none.

        Raises OutputError, DamagedError.
        """
        path = folder / database.NAME
        return cls(database.writing(path), path, accept=accept)

    @classmethod
    def peek(cls, folder: Path, *, accept: Sequence[str] = (), shadow: bool = False) -> Self:
        """Open the folder's journal for reading; one that does not exist is empty.

        Raises OutputError, DamagedError.
        """
        path = folder / database.NAME
        return cls(database.reading(path), path, accept=accept, shadow=shadow)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        with self._lock:
            self.connection.close()

    # -- reading -----------------------------------------------------------------------------------

    @contextmanager
    def select(self, sql: str, *values: Any) -> Iterator[sqlite3.Cursor]:
        """The results of a query one by one, while no other thread reads."""
        with translating_errors(self.path), self._lock:
            yield self.connection.execute(sql, values)

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """All the results of a query."""
        with self.select(sql, *values) as cursor:
            return cursor.fetchall()

    def records(self, table: str, condition: str, *values: Any) -> list[dict[str, Any]]:
        """The records of a table for which an SQL condition holds, by column.

        Raises DamagedError.
        """
        records = self.query(f"SELECT * FROM {table} WHERE {condition}", *values)
        return [self.named(table, tuple(record)) for record in records]

    def all_records(self, table: str) -> Iterator[tuple[Any, ...]]:
        """Every record of a table in order, a page at a time, unchecked."""
        after = -(2**62)
        sql = f"SELECT rowid AS rowid_, * FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT {PAGE}"
        while page := self.query(sql, after):
            yield from (record[1:] for record in page)
            after = self.onward(after, page[-1]["rowid_"])

    def named(self, table: str, record: Sequence[Any]) -> dict[str, Any]:
        """A record's cells by column. Raises DamagedError when it does not fit its seal."""
        return dict(zip(COLUMNS[table], self.checked(table, record), strict=True))

    def checked(self, table: str, record: Sequence[Any]) -> Sequence[Any]:
        """The record. Raises DamagedError when it does not fit its seal."""
        if not is_sound(table, record):
            raise DamagedError(damage_of(self.path, table, record))
        return record

    def onward(self, before: int, after: int) -> int:
        """Returns `after`, from where the next page is read.

        Raises DamagedError unless it is beyond `before`: a damaged index may lead a reader in
        circles.
        """
        if after <= before:
            raise DamagedError(f"{self.path}: is damaged (its records are out of order); {MEND}")
        return after

    @contextmanager
    def snapshot(self) -> Iterator[Self]:
        """Read the journal as it is now, whatever a run commits while the block runs."""
        with translating_errors(self.path):
            self.connection.execute("BEGIN")
        try:
            yield self
        finally:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")

    def meta(self, name: str) -> Any:
        """The value kept under a name, or None. Raises DamagedError."""
        kept = self.records("meta", "name = ?", name)
        return json.loads(kept[0]["value"]) if kept else None

    # -- writing, outside a dispatch ---------------------------------------------------------------

    @contextmanager
    def transaction(self, *, changes_tables: bool = True) -> Iterator[sqlite3.Connection]:
        """Commit all of the block or nothing of it.

        Unless the results and errors tables cannot look different after it (`changes_tables`), what
        is known of those that were written is forgotten with it.
        """
        with translating_errors(self.path), self._lock:
            # A shadowed journal is open for reading; what is written is temporary.
            self.connection.execute("BEGIN" if self.shadowed else "BEGIN IMMEDIATE")
            try:
                if changes_tables and not self.shadowed:
                    database.forget_tables(self.connection)
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                with suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                raise

    def keep(self, name: str, value: Any) -> None:
        """Keep a JSON value under a name, inside the caller's transaction."""
        insert(self.connection, "meta", {"name": name, "value": canonical(value)}, replace=True)

    def forget_tables(self) -> None:
        """Forget what is known of the tables that were written.

        Call it before the first of them is replaced: until the last one is, they do not belong
        together.
        """
        if self.meta("tables") is not None:
            with self.transaction():
                pass
