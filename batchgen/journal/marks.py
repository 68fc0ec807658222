"""Marks on recorded outcomes: to be sent again (`redo`), or without its picture (`lost`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from batchgen.journal.corrections import change_outcomes
from batchgen.journal.journal import Journal
from batchgen.journal.outcomes import own_files
from batchgen.journal.records import is_sound
from batchgen.journal.rows import Row
from batchgen.journal.status import state
from batchgen.requests import canonical


def assume_lost(journal: Journal, outcomes: Iterable[tuple[str, bytes]]) -> None:
    """Treat pictures of these (outcome id, fingerprint) as missing, for this connection only.

    So a plan counts what a run would mark as lost.
    """
    journal.connection.executemany("INSERT OR IGNORE INTO missing VALUES(?, ?)", outcomes)


def mark_lost(journal: Journal, lost: Iterable[tuple[str, bytes]]) -> None:
    """Mark exactly these (outcome id, fingerprint) as lost: their pictures are gone or changed."""
    wanted = set(lost)
    marked = {
        (record["ident"], record["key"])
        for record in journal.query("SELECT ident, key FROM outcomes WHERE lost")
    }
    if wanted == marked:
        return
    with journal.transaction() as connection:
        change_outcomes(connection, marked - wanted, {"lost": 0})
        change_outcomes(connection, wanted - marked, {"lost": 1})


def mark_redo(journal: Journal, rows: Iterable[Row], statuses: Iterable[str] = ()) -> int:
    """Mark rows that the next run sends again; old answers stay until new ones are recorded.

    rows: the rows to mark.
    statuses: rows in one of these statuses are marked too.

    The later turns of their conversations depend on them, so they are marked too. A damaged outcome
    of such a row can never be used, so it is deleted. Returns how many of all these had an outcome.
    """
    with journal.transaction() as connection:
        marked = {
            (row.outcome_id, row.fingerprint, row.conversation, canonical(row.axes), row.turn)
            for row in rows
        }
        sql = f"{state()} SELECT ident, key, conversation, axes, turn FROM state WHERE status = ?"
        for status in statuses:
            marked |= {tuple(row) for row in journal.query(sql, status)}
        wanted = {(outcome_id, fingerprint) for outcome_id, fingerprint, *_ in marked}
        first: dict[tuple[str, str], int] = {}
        for _, _, conversation, axes, turn in marked:
            if conversation is not None:
                first[conversation, axes] = min(turn, first.get((conversation, axes), turn))
        later = "SELECT ident, key FROM rows WHERE conversation = ? AND axes = ? AND turn > ?"
        for (conversation, axes), turn in first.items():
            wanted |= {tuple(row) for row in journal.query(later, conversation, axes, turn)}
        dropped = _drop_damaged(connection, wanted)
        return change_outcomes(connection, wanted, {"redo": 1, "tries": 0}) + len(dropped & wanted)


def _drop_damaged(
    connection: sqlite3.Connection, outcomes: Iterable[tuple[str, bytes]]
) -> set[tuple[str, bytes]]:
    """Delete what is damaged of these outcomes, and of older ones of their rows; returns which."""
    dropped = set()
    for outcome_id, fingerprint in outcomes:
        # Without an id column, the same outcome id belongs to many rows.
        older = outcome_id.startswith("=")
        sql = "SELECT rowid, * FROM outcomes WHERE ident = ? AND (key = ? OR ?)"
        found = connection.execute(sql, (outcome_id, fingerprint, older)).fetchall()
        for rowid, *record in found:
            if not is_sound("outcomes", record):
                own_files(outcome_id, record[1], (), connection)
                connection.execute("DELETE FROM outcomes WHERE rowid = ?", (rowid,))
                connection.execute(
                    "DELETE FROM follows WHERE ident = ? AND key = ?", (outcome_id, record[1])
                )
                dropped.add((outcome_id, record[1]))
    return dropped
