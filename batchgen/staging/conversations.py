"""Conversations take over recorded ones as a whole.

Equal turns of different conversations have equal fingerprints, but each its own reply, and what was
said next belongs to that reply. So a conversation takes an orphaned outcome only together with the
replies that it followed, back to the first turn; the longest that is recorded comes first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

# The conversations that have a turn without an outcome, although an orphan has its fingerprint; and
# of these every turn that has an outcome or may take one, the last turns first.
_CANDIDATES = """CREATE TEMP TABLE candidates AS
    WITH needy AS (
        SELECT DISTINCT conversation, axes FROM rows r
        WHERE r.conversation IS NOT NULL AND r.key IN (SELECT key FROM orphans)
            AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.ident = r.ident AND o.key = r.key)
            AND NOT EXISTS (SELECT 1 FROM members m WHERE m.ident = r.ident AND m.key = r.key))
    SELECT r.seq FROM needy t
        CROSS JOIN rows r ON r.conversation = t.conversation AND r.axes = t.axes
    WHERE r.key IN (SELECT key FROM orphans)
        OR EXISTS (SELECT 1 FROM outcomes o WHERE o.ident = r.ident AND o.key = r.key)
    ORDER BY r.turn DESC, r.seq"""

# The turns up to one of them, the last first.
_TURNS = """SELECT r.seq, r.ident, r.key FROM rows l JOIN rows r
        ON r.conversation = l.conversation AND r.axes = l.axes AND r.turn <= l.turn
    WHERE l.seq = ? ORDER BY r.turn DESC"""

# Whose reply an outcome followed, if the reply is still the one that is recorded.
_FOLLOWED = """SELECT f.previous FROM follows f
        JOIN outcomes o ON o.ident = f.previous AND o.key = ? AND o.run = f.run
    WHERE f.ident = ? AND f.key = ?"""


class _Turn(NamedTuple):
    """A staged turn under the outcome id of its own."""

    seq: int
    outcome_id: str
    fingerprint: bytes


def adopt_conversations(connection: sqlite3.Connection) -> None:
    """Note in the table `taken` which outcomes the turns of conversations take over.

    `orphans` holds the outcomes that no row has; those that are taken leave it.
    """
    connection.execute(_CANDIDATES)
    for (seq,) in connection.execute("SELECT seq FROM candidates ORDER BY rowid"):
        if not connection.execute("SELECT 1 FROM taken WHERE seq = ?", (seq,)).fetchone():
            _take_conversation(connection, seq)
    connection.execute("DROP TABLE temp.candidates")


def _take_conversation(connection: sqlite3.Connection, last: int) -> None:
    """Let a conversation take the outcomes of its turns up to the one with the seq `last`.

    Nothing is taken unless a recorded conversation has them all.
    """
    turns = [_Turn(*each) for each in connection.execute(_TURNS, (last,))]
    for outcome_id in _may_take(connection, turns[0]):
        chain = _back_from(connection, turns, outcome_id)
        taken = list(zip(turns, chain, strict=False))
        if len(taken) == len(turns):
            connection.executemany(
                "INSERT INTO taken VALUES(?, ?)", [(turn.seq, each) for turn, each in taken]
            )
            _remove_orphans(connection, taken)
            return
        if not chain:
            _remove_orphans(connection, [(turns[0], outcome_id)])


def _back_from(connection: sqlite3.Connection, turns: list[_Turn], outcome_id: str) -> list[str]:
    """The outcome ids of a recorded conversation, back from the last of `turns`.

    It is shorter than `turns` if they may not take all of it, and empty if a reply of it is gone.
    """
    chain = [outcome_id]
    for turn, before in pairwise(turns):
        found = connection.execute(_FOLLOWED, (before.fingerprint, chain[-1], turn.fingerprint))
        followed = found.fetchone()
        if followed is None:
            return []
        (previous,) = followed
        if previous != before.outcome_id and not _is_orphan(connection, previous, before):
            break
        chain.append(previous)
    return chain


def _remove_orphans(connection: sqlite3.Connection, taken: list[tuple[_Turn, str]]) -> None:
    connection.executemany(
        "DELETE FROM orphans WHERE ident = ? AND key = ?",
        [(outcome_id, turn.fingerprint) for turn, outcome_id in taken],
    )


def _may_take(connection: sqlite3.Connection, turn: _Turn) -> Iterator[str]:
    """The outcome ids that a turn may take: its own, and those of orphans."""
    sql = "SELECT 1 FROM outcomes WHERE ident = ? AND key = ?"
    if connection.execute(sql, (turn.outcome_id, turn.fingerprint)).fetchone():
        yield turn.outcome_id
    sql = "SELECT ident FROM orphans WHERE key = ? ORDER BY number"
    yield from (each["ident"] for each in connection.execute(sql, (turn.fingerprint,)).fetchall())


def _is_orphan(connection: sqlite3.Connection, outcome_id: str, turn: _Turn) -> bool:
    sql = "SELECT 1 FROM orphans WHERE ident = ? AND key = ?"
    return connection.execute(sql, (outcome_id, turn.fingerprint)).fetchone() is not None
