"""Rows take over outcomes of equal requests whose own rows are gone.

When only the id of a row has changed, or its position among equal rows, its request is the same and
is answered already. The row then takes the outcome id under which the answer is recorded. So
nothing is paid twice, and nothing that is recorded changes.
"""

from __future__ import annotations

import sqlite3

from batchgen.journal.records import update

# Orphans are outcomes, and requests in batches, that no row has, although some row has their
# fingerprint. The orphans of one fingerprint are numbered by outcome id, not by time, so that the
# order is the same in every run.
_ORPHANS = (
    """CREATE TEMP TABLE orphans(key BLOB, number INTEGER, ident TEXT, PRIMARY KEY(key, number))
        WITHOUT ROWID""",
    """INSERT INTO orphans
        SELECT key, row_number() OVER (PARTITION BY key ORDER BY length(ident), ident), ident
        FROM (SELECT key, ident FROM outcomes UNION SELECT key, ident FROM members
            EXCEPT SELECT key, ident FROM rows) o
        WHERE EXISTS (SELECT 1 FROM rows r WHERE r.key = o.key)""",
)

# The first row of a fingerprint without an outcome takes the first orphan, the second row the
# second, and so on. A turn of a conversation takes one only if the conversation's first request is
# staged once and recorded once: equal first requests have different replies, and later turns depend
# on these.
_ADOPTED = """CREATE TEMP TABLE adopted AS
    WITH needy AS (
        SELECT r.seq, r.key, row_number() OVER (PARTITION BY r.key ORDER BY r.seq) AS number
        FROM rows r
        WHERE r.key IN (SELECT key FROM orphans)
            AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.ident = r.ident AND o.key = r.key)
            AND NOT EXISTS (SELECT 1 FROM members m WHERE m.ident = r.ident AND m.key = r.key)
            AND NOT EXISTS (
                SELECT 1 FROM rows f
                WHERE f.conversation = r.conversation AND f.axes = r.axes AND f.turn = 1 AND (
                    EXISTS (SELECT 1 FROM rows g WHERE g.key = f.key AND g.occurrence = 2)
                    OR (SELECT count(*) FROM outcomes o WHERE o.ident = f.ident AND o.key = f.key)
                        + (SELECT count(*) FROM orphans x WHERE x.key = f.key AND x.number <= 2)
                        > 1)))
    SELECT n.seq, o.ident FROM needy n JOIN orphans o ON o.key = n.key AND o.number = n.number"""


def adopt_outcomes(connection: sqlite3.Connection) -> None:
    """Give rows without an outcome the ids of orphaned ones, in the caller's transaction."""
    recorded = "SELECT EXISTS (SELECT 1 FROM outcomes) OR EXISTS (SELECT 1 FROM members)"
    if not connection.execute(recorded).fetchone()[0]:
        return
    for statement in (*_ORPHANS, _ADOPTED):
        connection.execute(statement)
    adopted = connection.execute("SELECT seq, ident FROM temp.adopted ORDER BY seq")
    for seq, outcome_id in adopted:
        update(connection, "rows", seq, {"ident": outcome_id})
    connection.execute("DROP TABLE temp.adopted")
    connection.execute("DROP TABLE temp.orphans")
