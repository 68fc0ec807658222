"""The pictures that answers own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchgen.journal.journal import Journal
from batchgen.journal.outcomes import RecordedOutcome
from batchgen.journal.records import update

# A picture that no answer owns any more has an empty `ident`, until a run has moved it away.


def all_files(journal: Journal) -> Iterator[dict[str, Any]]:
    """Every picture that an answer owns, even if no row shows the answer any more.

    Raises DamagedError.
    """
    files = (journal.named("files", record) for record in journal.all_records("files"))
    return (file for file in files if file["ident"])


def files_of(journal: Journal, outcome: RecordedOutcome) -> list[dict[str, Any]]:
    """The pictures of one answer. Raises DamagedError."""
    return journal.records(
        "files", "ident = ? AND key = ?", outcome.outcome_id, outcome.fingerprint
    )


def file_at(journal: Journal, path: str) -> dict[str, Any] | None:
    """The picture at a path, or None. Raises DamagedError."""
    files = journal.records("files", "path = ?", path)
    return files[0] if files else None


def orphaned_files(journal: Journal) -> list[dict[str, Any]]:
    """The pictures that no answer owns any more. Raises DamagedError."""
    return journal.records("files", "ident = ''")


def forget_files(journal: Journal, files: Sequence[Mapping[str, Any]]) -> None:
    """Forget pictures that no answer owns."""
    if files:
        with journal.transaction(changes_tables=False) as connection:
            connection.executemany(
                "DELETE FROM files WHERE path = ? AND ident = ''",
                [(file["path"],) for file in files],
            )


def restamp_files(journal: Journal, mtimes: Sequence[tuple[str, int]]) -> None:
    """Record the new mtimes (ns) of pictures, by path, whose content is still the same."""
    if not mtimes:
        return
    with journal.transaction(changes_tables=False) as connection:
        for path, mtime in mtimes:
            sql = "SELECT rowid FROM files WHERE path = ?"
            for (rowid,) in connection.execute(sql, (path,)).fetchall():
                update(connection, "files", rowid, {"mtime": mtime})
