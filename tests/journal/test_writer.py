"""The writer commits what arrives, and passes failures on."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from lab import Lab
from staged import staged

from batchgen.dispatch import Attempt
from batchgen.errors import OutputError
from batchgen.journal import (
    Change,
    Writer,
    attempts_of,
    record_attempt,
)


def test_the_writer_commits_what_has_arrived_and_tells_everyone_of_a_failure(lab: Lab) -> None:
    """P03 A failed commit fails for all that wait for it and all that come later.

    Nothing is written by halves.
    """
    workspace = staged(lab, 1)

    async def use() -> None:
        writer = Writer(workspace.folder / "journal.db")
        attempt = Attempt(number=1, started_at=1.0, wait=0.0, elapsed=0.1)
        await asyncio.gather(
            *(writer.commit(record_attempt("=x", b"k", attempt, run=1)) for _ in range(50))
        )

        def full(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA max_page_count = 1")
            raise OutputError("the disk is full")

        with pytest.raises(OutputError, match="full"):
            await writer.commit(record_attempt("=x", b"k", attempt, run=1)._replace(also=full))
        with pytest.raises(OutputError, match="full"):
            await writer.commit(record_attempt("=x", b"k", attempt, run=1))
        await writer.close()

    asyncio.run(use())
    with workspace.peek() as journal:
        assert len(attempts_of(journal, ["=x"])) == 50


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("out of memory"), RuntimeError("a bug")]
)
def test_a_writer_that_cannot_begin_tells_everyone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """P03 Nobody waits for ever if the journal cannot be opened or a change cannot be made.

    Every commit fails with the error, and the writer can be closed.
    """

    def broken(path: Path) -> sqlite3.Connection:
        raise error

    def wrong(connection: sqlite3.Connection) -> None:
        raise error

    async def use() -> None:
        writer = Writer(workspace.folder / "journal.db")
        for _ in range(2):
            with pytest.raises(type(error)):
                await asyncio.wait_for(writer.commit(Change(also=wrong)), 10)
        await asyncio.wait_for(writer.close(), 10)

    workspace = staged(lab, 1)
    asyncio.run(use())
    monkeypatch.setattr("batchgen.journal.database.writing", broken)
    asyncio.run(use())
