"""Finds the records of a journal that are not what was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from batchgen.errors import DamagedError
from batchgen.journal.journal import Journal
from batchgen.journal.records import MEND, damage_of, is_sound
from batchgen.journal.schema import TABLES

# The tables whose indexes decide whether a request is answered, is in a batch, or owns a picture.
# SQLite finds a record through its index and believes what it says: one changed byte of an index,
# and an answer is not found.
_DECIDING = ("outcomes", "members", "files")


def find_damage(journal: Journal, tables: Iterable[str] = TABLES) -> Iterator[str]:
    """A sentence for each fault that SQLite finds, and for each record with a wrong seal."""
    faults = list(_faults(journal, "PRAGMA main.integrity_check(20)"))
    yield from faults
    if faults:
        return
    for table in tables:
        for record in journal.all_records(table):
            if not is_sound(table, record):
                yield damage_of(journal.path, table, record)


def check_before_sending(journal: Journal) -> None:
    """Raise DamagedError if damage could make a run pay for what is answered already.

    Tables and indexes that decide what is sent must agree, and an outcome that may be asked again
    must be what was written, as what it followed. A million outcomes take three to six seconds.
    """
    for table in (*_DECIDING, *(["rows", "follows"] if _has_conversations(journal) else [])):
        for fault in _faults(journal, f"PRAGMA integrity_check({table})"):
            raise DamagedError(f"{fault}; nothing was sent")
    again = "status = 'failed' OR redo OR lost"
    for table, condition in (("outcomes", again), ("follows", "1")):
        with journal.select(f"SELECT * FROM {table} WHERE {condition}") as cursor:
            for record in cursor:
                journal.checked(table, tuple(record))


def _has_conversations(journal: Journal) -> bool:
    # The index of threads finds the turns whose messages are sent as the history of the next.
    return bool(journal.query("SELECT 1 FROM rows WHERE conversation IS NOT NULL LIMIT 1"))


def _faults(journal: Journal, check: str) -> Iterator[str]:
    """What a check of SQLite finds."""
    for (report,) in journal.query(check):
        if report != "ok":
            yield f"{journal.path}: is damaged ({report}); {MEND}"
