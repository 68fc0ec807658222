"""The pictures that answers own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from batchgen.journal.journal import Journal
from batchgen.journal.outcomes import RecordedOutcome
from batchgen.journal.records import update


def all_files(journal: Journal) -> Iterator[dict[str, Any]]:
    """Every picture that an answer owns, even if no row shows the answer any more.

    Raises DamagedError.
    """
    return (journal.named("files", record) for record in journal.all_records("files"))


def files_of(journal: Journal, outcome: RecordedOutcome) -> list[dict[str, Any]]:
    """The pictures of one answer. Raises DamagedError."""
    return journal.records(
        "files", "ident = ? AND key = ?", outcome.outcome_id, outcome.fingerprint
    )


def owns_file(journal: Journal, path: str) -> bool:
    """Whether a recorded answer owns the picture at a path."""
    return bool(journal.query("SELECT 1 FROM files WHERE path = ?", path))


def restamp_files(journal: Journal, mtimes: Sequence[tuple[str, int]]) -> None:
    """Record the new mtimes (ns) of pictures, by path, whose content is still the same."""
    if not mtimes:
        return
    with journal.transaction(changes_tables=False) as connection:
        for path, mtime in mtimes:
            sql = "SELECT rowid FROM files WHERE path = ?"
            for (rowid,) in connection.execute(sql, (path,)).fetchall():
                update(connection, "files", rowid, {"mtime": mtime})
