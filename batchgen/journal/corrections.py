"""Answers judged by what was asked for: which correction is sent, and later judgements.

`redo` of an outcome is 1 if its request is to be sent again as it is, and 1 + n if its correction n
is: the request with this answer, and with why it does not fit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from batchgen.journal.change import INSERTIONS
from batchgen.journal.records import sealed, update

if TYPE_CHECKING:
    from batchgen.journal.outcomes import RecordedOutcome


def correct(
    record: Callable[[], RecordedOutcome], most: int, connection: sqlite3.Connection
) -> None:
    """Record an answer that does not fit, and that its next correction, of `most`, is to be sent.

    An answer to the last correction is final.
    """
    answer = record()
    sql = "SELECT redo FROM outcomes WHERE ident = ? AND key = ?"
    old = connection.execute(sql, (answer.outcome_id, answer.fingerprint)).fetchone()
    # The correction that this is the answer to is still on record.
    made = max(0, old["redo"] - 1) if old else 0
    redo = 1 + made + 1 if made < most else 0
    connection.execute(INSERTIONS["outcomes"], sealed(answer._replace(redo=redo)))


def change_outcomes(
    connection: sqlite3.Connection,
    outcomes: Iterable[tuple[str, bytes]],
    changes: Mapping[str, Any],
) -> int:
    """Change cells of these outcomes, as far as they exist; returns how many did."""
    sql = "SELECT rowid FROM outcomes WHERE ident = ? AND key = ?"
    rowids = [rowid for each in outcomes for (rowid,) in connection.execute(sql, each).fetchall()]
    for rowid in rowids:
        update(connection, "outcomes", rowid, changes)
    return len(rowids)
