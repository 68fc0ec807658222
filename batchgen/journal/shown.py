"""What the tables show of a row: its outcome, or an older answer until there is a new one."""

from __future__ import annotations

from batchgen.journal.journal import Journal
from batchgen.journal.outcomes import RecordedOutcome, outcome_of
from batchgen.journal.rows import Row


def last_answer(journal: Journal, row: Row) -> RecordedOutcome | None:
    """The latest answer that the row of this id had for another request: what it shows meanwhile.

    An answer that another row has taken over is not its own. Raises DamagedError.
    """
    owner = _owner(journal, row.outcome_id, row.fingerprint)
    # Without an id column there is no telling which row an answer belonged to.
    if not owner.startswith("="):
        return None
    newest = "owner = ? AND key <> ? AND status <> 'failed' ORDER BY answered_at DESC LIMIT 1"
    keys = journal.query(f"SELECT ident, key FROM owned WHERE {newest}", owner, row.fingerprint)
    if not keys or _owner(journal, *keys[0]) != owner:
        return None
    return outcome_of(journal, *keys[0])


def _owner(journal: Journal, outcome_id: str, fingerprint: bytes) -> str:
    """The identity of the row that has an outcome, or had it last. Raises DamagedError."""
    adopted = journal.records("adopted", "ident = ? AND key = ?", outcome_id, fingerprint)
    return str(adopted[0]["owner"]) if adopted else outcome_id


def shown_outcome(
    journal: Journal, row: Row, recorded: RecordedOutcome | None
) -> RecordedOutcome | None:
    """What a table shows of a row: its answer, else the last one under its id, else its failure.

    So no answer that was paid for is blanked because its row was edited, whatever became of the
    new request. Raises DamagedError.
    """
    if recorded is None and row.status == "pending":
        # With an answer to show it would be outdated, and pending rows are many.
        return None
    if recorded is None or recorded.status == "failed":
        return last_answer(journal, row) or recorded
    return recorded


def answers_of(journal: Journal, row: Row) -> list[RecordedOutcome]:
    """Every answer that the row of this id has: that to its present request first, then those to
    earlier ones, the latest first.

    A `redo` replaces an answer. Without an id column nobody can tell which row an earlier request
    belonged to. Raises DamagedError.
    """
    owner = _owner(journal, row.outcome_id, row.fingerprint)
    if not owner.startswith("="):
        own = outcome_of(journal, row.outcome_id, row.fingerprint)
        return [own] if own is not None and own.status != "failed" else []
    keys = journal.query(
        "SELECT ident, key FROM owned WHERE owner = ? AND status <> 'failed' "
        "ORDER BY key = ? DESC, answered_at DESC",
        owner,
        row.fingerprint,
    )
    found = [outcome_of(journal, *key) for key in keys if _owner(journal, *key) == owner]
    return [outcome for outcome in found if outcome is not None]
