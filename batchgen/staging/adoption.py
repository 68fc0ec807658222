"""Rows take over outcomes of the same request that no row has any more.

When only the id of a row has changed, or its position among equal rows, its request is the same and
is answered already. The row then takes the outcome id under which the answer is recorded, so that
nothing is paid twice and nothing recorded is touched.
"""

from __future__ import annotations

import sqlite3

from batchgen.journal.records import update

# Outcomes that no row has, and requests in batches that none has, although some row has their
# fingerprint; numbered for each fingerprint. Not by time: the order must be the same in every run.
_ORPHANS = (
    """CREATE TEMP TABLE orphans(key BLOB, number INTEGER, ident TEXT, PRIMARY KEY(key, number))
        WITHOUT ROWID""",
    """INSERT INTO orphans
        SELECT key, row_number() OVER (PARTITION BY key ORDER BY length(ident), ident), ident
        FROM (SELECT key, ident FROM outcomes UNION SELECT key, ident FROM members
            EXCEPT SELECT key, ident FROM rows) o
        WHERE EXISTS (SELECT 1 FROM rows r WHERE r.key = o.key)""",
)

# The first row without an outcome takes the first of them, the second the second. The turns of a
# conversation do so only if its first request is staged once and recorded once: equal ones have
# replies of their own, and the later turns follow from them.
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
