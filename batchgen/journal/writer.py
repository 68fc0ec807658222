"""The one thread that commits what a run records.

It has no timer: as soon as a commit returns, it commits everything that has arrived in the
meantime. Callers wait for their own commit, so the queue holds at most what is in flight, and a
slow disk slows the sending.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from batchgen.errors import OutputError
from batchgen.journal import database
from batchgen.journal.change import Change, apply

# Changes after which a group is committed, although more have arrived: a bound on one transaction.
GROUP = 1000

_Waiting = tuple[Change, asyncio.Future[None]]


class Writer:
    """Commits the changes of one run in order.

    Use it from one event loop; `close` returns when everything is on disk.
    """

    def __init__(self, path: Path) -> None:
        """Start the thread, with a connection of its own to the journal at `path`."""
        self._path = path
        self._arrived: list[_Waiting] = []
        self._queue: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    async def commit(self, change: Change) -> None:
        """Return when the change is durable.

        Raises OutputError or DamagedError, and from then on always.
        """
        # Cancelling the caller does not withdraw the change: it may be on its way to the disk.
        await self.put(change)

    def put(self, change: Change) -> asyncio.Future[None]:
        """A future that is done when the change is durable; the caller need not wait for it."""
        if not self._arrived:
            # All changes of one iteration of the loop are handed over at once: waking a thread
            # costs more than a change.
            self._loop.call_soon(self._hand_over)
        done = self._loop.create_future()
        self._arrived.append((change, done))
        return done

    def _hand_over(self) -> None:
        self._queue.put(self._arrived)
        self._arrived = []

    async def close(self) -> None:
        """Commit the rest and end the thread."""
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        connection = None
        try:
            connection = database.writing(self._path)
        except Exception as error:
            # Whatever it is, pass it on: if the thread died, its callers would wait for ever.
            self._failure = error
        ended = False
        while not ended:
            group, ended = self._next_group()
            if group and self._failure is None and connection is not None:
                self._failure = self._commit(connection, [change for change, _ in group])
            self._resolve([done for _, done in group])
        if connection is not None:
            connection.close()

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """The changes that have arrived, and whether they are the last."""
        group: list[_Waiting] = []
        arrived = self._queue.get()
        while arrived is not None:
            group += arrived
            if len(group) >= GROUP or self._queue.empty():
                return group, False
            arrived = self._queue.get()
        return group, True

    def _commit(
        self, connection: sqlite3.Connection, changes: Sequence[Change]
    ) -> BaseException | None:
        """Commit all changes or none; returns what prevented it."""
        try:
            with database.translating_errors(self._path):
                connection.execute("BEGIN IMMEDIATE")
                if any(each.changes_tables for each in changes):
                    database.forget_tables(connection)
                apply(connection, changes)
                connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            return error
        return None

    def _resolve(self, waiting: Sequence[asyncio.Future[None]]) -> None:
        """Pass the result of a commit on to the callers that wait for it."""
        failure = self._failure

        def resolve() -> None:
            for done in waiting:
                if done.cancelled():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    # Each caller raises its own exception: one for all would collect tracebacks.
                    own = OutputError(str(failure)) if isinstance(failure, OutputError) else failure
                    done.set_exception(own)
                    # Mark it as retrieved: if no caller waits, asyncio would log it.
                    done.exception()

        if waiting:
            # After the loop has closed, no caller waits; the rest is still committed.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(resolve)
