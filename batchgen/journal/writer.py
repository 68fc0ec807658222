"""The one thread that commits what a run brings: no timer, it commits whatever has arrived when its last commit returns.

Callers wait for their own commit, so the queue holds at most what is in flight, and a slow disk slows the sending.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from batchgen.dispatch import Attempt, Outcome
from batchgen.errors import OutputError
from batchgen.journal import database
from batchgen.journal.records import Recorded, insert, update
from batchgen.journal.schema import LAST_RUN

# Commands committed together at most: a bound on one transaction, not on what waits.
GROUP = 1000

Change = Callable[[sqlite3.Connection], None]


class Writer:
    """Commits changes of one run in order. Use it from one event loop; `close` returns when all is on disk."""

    def __init__(self, path: Path, run: int) -> None:
        self._path = path
        self._run = run
        self._queue: queue.SimpleQueue[tuple[Change, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    async def commit(self, change: Change) -> None:
        """Return when the change is durable. Raises OutputError or DamagedError, and from then on always."""
        # A cancelled caller must not take back what is already on its way to the disk.
        await asyncio.shield(self.put(change))

    def put(self, change: Change) -> asyncio.Future[None]:
        """What is done when the change is durable; nobody has to wait for it."""
        done = self._loop.create_future()
        self._queue.put((change, done))
        return done

    async def close(self) -> None:
        """Commit the rest and end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        connection = None
        try:
            connection = database.writing(self._path)
        except Exception as error:
            # Whatever it is, those who wait are told: a thread that dies leaves them waiting for ever.
            self._failure = error
        ended = False
        while not ended:
            group = self._next_group()
            ended = group[-1] is None
            changes = [item for item in group if item is not None]
            if changes and self._failure is None and connection is not None:
                self._failure = self._commit(connection, [change for change, _ in changes])
            self._tell([done for _, done in changes])
        if connection is not None:
            connection.close()

    def _next_group(self) -> list[tuple[Change, asyncio.Future[None]] | None]:
        group = [self._queue.get()]
        while group[-1] is not None and len(group) < GROUP:
            try:
                group.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return group

    def _commit(self, connection: sqlite3.Connection, changes: Sequence[Change]) -> BaseException | None:
        try:
            with database.telling(self._path):
                connection.execute("BEGIN IMMEDIATE")
                for change in changes:
                    change(connection)
                connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                try:
                    connection.execute("ROLLBACK")
                except sqlite3.Error:
                    return error
            return error
        return None

    def _tell(self, waiting: Sequence[asyncio.Future[None]]) -> None:
        failure = self._failure

        def tell() -> None:
            for done in waiting:
                if done.cancelled():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(OutputError(str(failure)) if isinstance(failure, OutputError) else failure)
                    # A caller that was cancelled will never ask.
                    done.exception()

        if waiting:
            # A loop that is closed has nobody who waits; the rest is committed all the same.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(tell)

    # -- what a run records --------------------------------------------------------------------------------------

    def reserve(self, ident: str, key: str, number: int, at: float, cost: int) -> Change:
        """A call is about to be sent that may cost up to `cost` nano-dollars."""
        cells = {"ident": ident, "key": key, "run": self._run, "number": number, "at": at, "cost": cost}

        def change(connection: sqlite3.Connection) -> None:
            insert(connection, "reserved", cells, replace=True)

        return change

    def attempt(self, ident: str, key: str, attempt: Attempt) -> Change:
        """A call has ended."""
        about = asdict(attempt)
        about["http_status"] = about.pop("status")

        def change(connection: sqlite3.Connection) -> None:
            insert(connection, "attempts", {"ident": ident, "key": key, "run": self._run, **about})
            connection.execute("DELETE FROM reserved WHERE ident = ? AND key = ?", (ident, key))

        return change

    def withdraw(self, ident: str, key: str) -> Change:
        """A failure that this run recorded says nothing of its row after all."""

        def change(connection: sqlite3.Connection) -> None:
            sql = "DELETE FROM outcomes WHERE ident = ? AND key = ? AND run = ? AND status = 'failed'"
            connection.execute(sql, (ident, key, self._run))

        return change

    def outcome(self, ident: str, columns_digest: bytes, outcome: Outcome) -> Change:
        """A request has ended in this run. A failure never replaces an answer that is still whole."""
        recorded = self._recorded(ident, columns_digest, outcome)
        key, files, passing = outcome.request.key, outcome.files, recorded.passing

        def change(connection: sqlite3.Connection) -> None:
            sql = "SELECT rowid, status, passing, tries, lost FROM outcomes WHERE ident = ? AND key = ?"
            old = connection.execute(sql, (ident, key)).fetchone()
            counted = old is not None and (old["passing"] or old["status"] != "failed")
            tries = (old["tries"] if counted else 0) + 1 if passing else 0
            if old and old["status"] != "failed" and not old["lost"] and outcome.failure:
                again = passing and tries < LAST_RUN
                update(connection, "outcomes", old["rowid"], {"redo": int(again), "tries": tries})
                return
            cells = {**recorded.cells(), "tries": tries, "redo": 0, "lost": 0}
            insert(connection, "outcomes", cells, replace=True)
            connection.execute("DELETE FROM files WHERE ident = ? AND key = ?", (ident, key))
            for file in files:
                insert(connection, "files", {**file, "ident": ident, "key": key}, replace=True)

        return change

    def _recorded(self, ident: str, columns_digest: bytes, outcome: Outcome) -> Recorded:
        answer, failure = outcome.answer, outcome.failure
        usage = answer.usage if answer else None
        return Recorded(
            ident=ident,
            key=outcome.request.key,
            status="failed" if answer is None else "succeeded" if answer.ended else "incomplete",
            finish_reason=answer.finish_reason if answer else None,
            model=answer.model if answer else None,
            service_tier=answer.service_tier if answer else None,
            input_tokens=usage.input_tokens if usage else None,
            cached_tokens=usage.cached_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            reasoning_tokens=usage.reasoning_tokens if usage else None,
            cost=outcome.cost,
            attempts=outcome.attempts,
            elapsed=outcome.elapsed,
            answered_at=outcome.answered_at,
            run=self._run,
            reason=failure.reason if failure else None,
            http_status=failure.status if failure else 200,
            code=failure.code if failure else None,
            message=failure.message if failure else None,
            request_id=outcome.request_id,
            passing=failure is not None and failure.passing,
            columns_digest=columns_digest,
            response=outcome.reply,
        )
