"""A change to the journal as data: made where something happens, committed by the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from batchgen.journal.records import insertion, sealed

Step = Callable[[sqlite3.Connection], None]

# The tables of which many records are inserted at once. An outcome replaces the one before it;
# attempts add up.
INSERTIONS = {
    "attempts": insertion("attempts"),
    "outcomes": insertion("outcomes", replace=True),
    "members": insertion("members"),
    "follows": insertion("follows", replace=True),
}


class Change(NamedTuple):
    """What one caller wants on record.

    records: pairs of a table of INSERTIONS and a function that makes the cells of a record. The
        writer's thread calls it, because compressing a response would hold up the event loop.
    also: does anything else inside the transaction.
    changes_tables: whether the results and errors tables may look different after it.
    """

    records: tuple[tuple[str, Callable[[], Sequence[Any]]], ...] = ()
    also: Step | None = None
    changes_tables: bool = True


def together(*changes: Change) -> Change:
    """All of these changes, in one transaction."""
    steps = [change.also for change in changes if change.also is not None]
    return Change(
        records=tuple(record for change in changes for record in change.records),
        also=partial(_each, steps) if steps else None,
        changes_tables=any(change.changes_tables for change in changes),
    )


def _each(steps: Sequence[Step], connection: sqlite3.Connection) -> None:
    for step in steps:
        step(connection)


def apply(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    """Make changes inside the caller's transaction.

    Records come first, whichever change they belong to, because inserting many at once is cheaper.
    The order of changes to one row stays: a caller waits until its first change is durable before
    it makes a second.
    """
    for table, statement in INSERTIONS.items():
        made = [make for change in changes for name, make in change.records if name == table]
        connection.executemany(statement, [sealed(make()) for make in made])
    for change in changes:
        if change.also is not None:
            change.also(connection)
