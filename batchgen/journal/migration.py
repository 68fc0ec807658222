"""Brings a journal of an older schema to the present one.

A new version is one script in batchgen.journal.schema and, where its tables must be filled, one
function here and one line in `_FILLS`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from batchgen.journal.records import insertion, sealed
from batchgen.journal.schema import SCHEMA_VERSION, additions

# In version 1 an answer followed the reply that its row's conversation had before it, unless that
# reply is of a later run.
_FOLLOWED = """SELECT r.ident, r.key, p.ident, po.run
    FROM rows r JOIN outcomes o ON o.ident = r.ident AND o.key = r.key
        JOIN rows p ON p.conversation = r.conversation AND p.axes = r.axes AND p.turn = r.turn - 1
        JOIN outcomes po ON po.ident = p.ident AND po.key = p.key
    WHERE r.conversation IS NOT NULL AND r.turn > 1 AND po.status <> 'failed'
        AND po.run <= o.run"""


def migrate(
    connection: sqlite3.Connection,
    version: int,
    *,
    to: int = SCHEMA_VERSION,
    temporary: bool = False,
) -> None:
    """Bring a journal from one version to another, in the caller's transaction.

    connection: of the journal.
    version: that it has; 0 for an empty file.
    to: the version that it gets.
    temporary: what it lacks is made of temporary tables, and the file is only read.
    """
    for number in range(version + 1, to + 1):
        for statement in additions(number, temporary=temporary):
            connection.execute(statement)
        if version and number in _FILLS:
            _FILLS[number](connection)
    if not temporary:
        connection.execute(f"PRAGMA user_version = {to}")


def _note_what_answers_followed(connection: sqlite3.Connection) -> None:
    followed = connection.execute(_FOLLOWED)
    connection.executemany(insertion("follows"), (sealed(tuple(each)) for each in followed))


# What fills the tables that a version adds.
_FILLS: dict[int, Callable[[sqlite3.Connection], None]] = {2: _note_what_answers_followed}
