"""What of a journal is not what was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from batchgen.journal.journal import Journal
from batchgen.journal.records import damage_of, is_sound
from batchgen.journal.schema import TABLES


def find_damage(journal: Journal, tables: Iterable[str] = TABLES) -> Iterator[str]:
    """A sentence for each fault that SQLite finds, and for each record with a wrong seal."""
    reports = [row[0] for row in journal.query("PRAGMA integrity_check(20)")]
    if reports != ["ok"]:
        remedy = "restore the journal from a backup"
        yield from (f"{journal.path}: is damaged ({each}); {remedy}" for each in reports)
        return
    for table in tables:
        for record in journal.all_records(table):
            if not is_sound(table, record):
                yield damage_of(journal.path, table, record)
