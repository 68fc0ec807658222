"""Rows take over outcomes of equal requests whose own rows are gone.

When only the id of a row has changed, or its position among equal rows, its request is the same and
is answered already. The row then takes the outcome id under which the answer is recorded. So
nothing is paid twice, and nothing that is recorded changes.

The table `adopted` keeps what was taken over, and by the row of which identity. While that row has
the same request it keeps the outcome, also from the row that had it first, should this come back;
once it is edited it shows this answer until it has a new one, and no other row does.
"""

from __future__ import annotations

import sqlite3

from batchgen.journal.records import insert, update
from batchgen.staging.conversations import adopt_conversations

# The rows that may have what was taken over before, under the identities of their own. What was
# taken over by a row that is not there any more goes back to the one that had it first.
_CLAIMS = (
    """CREATE TEMP TABLE claims(ident TEXT, key BLOB, seq INTEGER, PRIMARY KEY(ident, key))
        WITHOUT ROWID""",
    """INSERT INTO claims
        SELECT ident, key, seq FROM rows WHERE key IN (SELECT key FROM adopted)""",
    """DELETE FROM adopted AS a WHERE
        EXISTS (SELECT 1 FROM claims c WHERE c.ident = a.ident AND c.key = a.key)
        AND NOT EXISTS (SELECT 1 FROM claims c WHERE c.ident = a.owner AND c.key = a.key)""",
)
_KEPT = """SELECT c.seq, a.ident FROM adopted a JOIN claims c ON c.ident = a.owner AND c.key = a.key
    ORDER BY c.seq"""

# The rows whose own outcome another row keeps, and which have taken over none.
_BEREFT = """SELECT c.seq, c.ident, c.key FROM claims c
    WHERE EXISTS (SELECT 1 FROM adopted a WHERE a.ident = c.ident AND a.key = c.key)
        AND NOT EXISTS (SELECT 1 FROM adopted a WHERE a.owner = c.ident AND a.key = c.key)
    ORDER BY c.seq"""

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
    "CREATE UNIQUE INDEX temp.orphans_ident ON orphans(ident, key)",
    # The outcome that each row takes over.
    "CREATE TEMP TABLE taken(seq INTEGER PRIMARY KEY, ident TEXT)",
)

# The first row of a fingerprint without an outcome takes the first orphan, the second row the
# second, and so on.
_TAKEN = """INSERT INTO taken
    WITH needy AS (
        SELECT r.seq, r.key, row_number() OVER (PARTITION BY r.key ORDER BY r.seq) AS number
        FROM rows r
        WHERE r.conversation IS NULL AND r.key IN (SELECT key FROM orphans)
            AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.ident = r.ident AND o.key = r.key)
            AND NOT EXISTS (SELECT 1 FROM members m WHERE m.ident = r.ident AND m.key = r.key))
    SELECT n.seq, o.ident FROM needy n JOIN orphans o ON o.key = n.key AND o.number = n.number"""


def adopt_outcomes(connection: sqlite3.Connection) -> None:
    """Give rows without an outcome the ids of orphaned ones, in the caller's transaction."""
    recorded = "SELECT EXISTS (SELECT 1 FROM outcomes) OR EXISTS (SELECT 1 FROM members)"
    if not connection.execute(recorded).fetchone()[0]:
        return
    for statement in _CLAIMS:
        connection.execute(statement)
    bereft = connection.execute(_BEREFT).fetchall()
    for seq, outcome_id in connection.execute(_KEPT):
        update(connection, "rows", seq, {"ident": outcome_id})
    for seq, owner, fingerprint in bereft:
        _set(connection, seq, fingerprint, _other_id(connection, owner, fingerprint), owner)
    for statement in (*_ORPHANS, _TAKEN):
        connection.execute(statement)
    adopt_conversations(connection)
    for seq, outcome_id in connection.execute("SELECT seq, ident FROM taken ORDER BY seq"):
        _take(connection, seq, outcome_id)
    for table in ("claims", "orphans", "taken"):
        connection.execute(f"DROP TABLE temp.{table}")


def _other_id(connection: sqlite3.Connection, owner: str, fingerprint: bytes) -> str:
    """An outcome id under which no row has this request, for a row whose own is taken."""
    sql = "SELECT 1 FROM adopted WHERE ident = ? AND key = ?"
    number = 2
    while connection.execute(sql, (f"{owner}~{number}", fingerprint)).fetchone():
        number += 1
    return f"{owner}~{number}"


def _take(connection: sqlite3.Connection, seq: int, outcome_id: str) -> None:
    """Let the row with this seq have another outcome; what it took over before it leaves."""
    sql = "SELECT ident, key FROM rows WHERE seq = ?"
    had, fingerprint = connection.execute(sql, (seq,)).fetchone()
    if had == outcome_id:
        return
    its = "FROM adopted WHERE ident = ? AND key = ?"
    before = connection.execute(f"SELECT owner {its}", (had, fingerprint)).fetchone()
    connection.execute(f"DELETE {its}", (had, fingerprint))
    _set(connection, seq, fingerprint, outcome_id, before[0] if before else had)


def _set(
    connection: sqlite3.Connection, seq: int, fingerprint: bytes, outcome_id: str, owner: str
) -> None:
    """Give a row an outcome id that is not its own, and note that.

    connection: inside the caller's transaction.
    seq, fingerprint: the row's.
    outcome_id: that it gets.
    owner: its own identity.
    """
    update(connection, "rows", seq, {"ident": outcome_id})
    if owner != outcome_id:
        cells = {"ident": outcome_id, "key": fingerprint, "owner": owner}
        insert(connection, "adopted", cells, replace=True)
