"""The one thread that commits what a run brings: no timer, it commits whatever has arrived when its last commit returns.

Callers wait for their own commit, so the queue holds at most what is in flight, and a slow disk slows the sending.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from batchgen.dispatch import Attempt, Outcome
from batchgen.errors import OutputError
from batchgen.journal import database
from batchgen.journal.records import Recorded, fitting, insert, insertion, packed, sealed, update
from batchgen.journal.schema import LAST_RUN

# Changes committed together at most: a bound on one transaction, not on what waits.
GROUP = 1000

Cells = Sequence[Any]


class Change(NamedTuple):
    """What a caller wants on record: lines, by table, of which many are written at once and which are made in the writer's
    thread; and what else there is to do. `shown` says that tables may look different after it."""

    lines: tuple[tuple[str, Callable[[], Cells]], ...] = ()
    also: Callable[[sqlite3.Connection], None] | None = None
    shown: bool = True


_Waiting = tuple[Change, asyncio.Future[None]]

# A row has one outcome, the latest; its attempts are many.
_INSERTIONS = {
    "attempts": insertion("attempts"),
    "outcomes": insertion("outcomes", replace=True),
    "members": insertion("members"),
}


class Writer:
    """Commits changes of one run in order. Use it from one event loop; `close` returns when all is on disk."""

    def __init__(self, path: Path, run: int) -> None:
        self._path = path
        self._run = run
        self._held: list[_Waiting] = []
        self._queue: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._failure: BaseException | None = None
        # What has money set aside in the journal.
        self._reserved: set[tuple[str, bytes]] = set()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    async def commit(self, change: Change) -> None:
        """Return when the change is durable. Raises OutputError or DamagedError, and from then on always."""
        # A caller that is cancelled takes nothing back: what waits for the disk is not what it waits for.
        await self.put(change)

    def put(self, change: Change) -> asyncio.Future[None]:
        """What is done when the change is durable; nobody has to wait for it."""
        if not self._held:
            # All that one turn of the loop brings goes over at once: waking a thread costs more than a change.
            self._loop.call_soon(self._hand_over)
        done = self._loop.create_future()
        self._held.append((change, done))
        return done

    def _hand_over(self) -> None:
        self._queue.put(self._held)
        self._held = []

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
            # Whatever it is, those who wait are told: a thread that dies leaves them waiting for ever.
            self._failure = error
        ended = False
        while not ended:
            group, ended = self._next_group()
            if group and self._failure is None and connection is not None:
                self._failure = self._commit(connection, [change for change, _ in group])
            self._tell([done for _, done in group])
        if connection is not None:
            connection.close()

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """What has arrived, and whether it is the last."""
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
        try:
            with database.telling(self._path):
                connection.execute("BEGIN IMMEDIATE")
                if any(change.shown for change in changes):
                    database.forget_tables(connection)
                _write(connection, changes)
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
                    done.set_exception(
                        OutputError(str(failure)) if isinstance(failure, OutputError) else failure
                    )
                    # A caller that was cancelled will never ask.
                    done.exception()

        if waiting:
            # A loop that is closed has nobody who waits; the rest is committed all the same.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(tell)

    # -- what a run records --------------------------------------------------------------------------------------

    def reserve(
        self, outcome_id: str, fingerprint: bytes, number: int, at: float, cost: int
    ) -> Change:
        """A call is about to be sent that may cost up to `cost` nano-dollars."""
        self._reserved.add((outcome_id, fingerprint))
        cells = {
            "ident": outcome_id,
            "key": fingerprint,
            "run": self._run,
            "number": number,
            "at": at,
            "cost": cost,
        }
        return Change(also=partial(_reserve, cells))

    def attempt(self, outcome_id: str, fingerprint: bytes, attempt: Attempt) -> Change:
        """A call has ended."""
        audit = ("attempts", partial(_audit, outcome_id, fingerprint, self._run, attempt))
        if (outcome_id, fingerprint) not in self._reserved:
            return Change(lines=(audit,))
        self._reserved.discard((outcome_id, fingerprint))
        return Change(lines=(audit,), also=partial(_settle, outcome_id, fingerprint))

    def withdraw(self, outcome_id: str, fingerprint: bytes) -> Change:
        """A failure that this run recorded says nothing of its row after all."""
        return Change(also=partial(_withdraw, outcome_id, fingerprint, self._run))

    def outcome(self, outcome_id: str, columns_digest: bytes, outcome: Outcome) -> Change:
        """A request has ended in this run. A failure never replaces an answer that is still whole."""
        line = partial(_recorded, outcome_id, columns_digest, outcome, self._run)
        if outcome.failure is not None:
            return Change(also=partial(_fail, line))
        if outcome.files:
            return Change(
                lines=(("outcomes", line),),
                also=partial(_own, outcome_id, outcome.request.fingerprint, outcome.files),
            )
        return Change(lines=(("outcomes", line),))


def together(*changes: Change) -> Change:
    """All of these changes, in one transaction."""
    steps = [change.also for change in changes if change.also is not None]
    lines = tuple(line for change in changes for line in change.lines)
    return Change(
        lines=lines,
        also=partial(_all, steps) if steps else None,
        shown=any(c.shown for c in changes),
    )


def _all(
    steps: Sequence[Callable[[sqlite3.Connection], None]], connection: sqlite3.Connection
) -> None:
    for step in steps:
        step(connection)


def _write(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    """Make changes inside a transaction: lines first, whichever change they are of. That is their order all the same: who
    asks for a second change of a row has waited for the first."""
    for table, statement in _INSERTIONS.items():
        made = [make for change in changes for name, make in change.lines if name == table]
        connection.executemany(statement, [sealed(make()) for make in made])
    for change in changes:
        if change.also is not None:
            change.also(connection)


def _reserve(cells: Mapping[str, Any], connection: sqlite3.Connection) -> None:
    insert(connection, "reserved", cells, replace=True)


def _settle(outcome_id: str, fingerprint: bytes, connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM reserved WHERE ident = ? AND key = ?", (outcome_id, fingerprint)
    )


def _withdraw(
    outcome_id: str, fingerprint: bytes, run: int, connection: sqlite3.Connection
) -> None:
    sql = "DELETE FROM outcomes WHERE ident = ? AND key = ? AND run = ? AND status = 'failed'"
    connection.execute(sql, (outcome_id, fingerprint, run))


def _own(
    outcome_id: str,
    fingerprint: bytes,
    files: Sequence[Mapping[str, Any]],
    connection: sqlite3.Connection,
) -> None:
    """The pictures of an answer, in place of those of an earlier one."""
    connection.execute("DELETE FROM files WHERE ident = ? AND key = ?", (outcome_id, fingerprint))
    for file in files:
        insert(connection, "files", {**file, "ident": outcome_id, "key": fingerprint}, replace=True)


def _fail(line: Callable[[], Recorded], connection: sqlite3.Connection) -> None:
    failed = line()
    sql = "SELECT rowid, status, passing, tries, lost FROM outcomes WHERE ident = ? AND key = ?"
    old = connection.execute(sql, (failed.outcome_id, failed.fingerprint)).fetchone()
    counted = old is not None and (old["passing"] or old["status"] != "failed")
    tries = (old["tries"] if counted else 0) + 1 if failed.passing else 0
    if old and old["status"] != "failed" and not old["lost"]:
        again = failed.passing and tries < LAST_RUN
        update(connection, "outcomes", old["rowid"], {"redo": int(again), "tries": tries})
        return
    connection.execute(_INSERTIONS["outcomes"], sealed(failed._replace(tries=tries)))
    _own(failed.outcome_id, failed.fingerprint, (), connection)


def _audit(outcome_id: str, fingerprint: bytes, run: int, attempt: Attempt) -> Cells:
    """An attempt as its table holds it."""
    told = (attempt.status, attempt.code, attempt.reason, attempt.request_id)
    took = (attempt.input_tokens, attempt.output_tokens, fitting(attempt.cost))
    lasted = (attempt.wait, attempt.elapsed, attempt.batch)
    return (outcome_id, fingerprint, run, attempt.number, attempt.started_at, *told, *took, *lasted)


def _recorded(outcome_id: str, columns_digest: bytes, outcome: Outcome, run: int) -> Recorded:
    """An outcome as its table holds it, tried in one run."""
    answer, failure = outcome.answer, outcome.failure
    usage = answer.usage if answer else None
    return Recorded(
        outcome_id=outcome_id,
        fingerprint=outcome.request.fingerprint,
        status="failed" if answer is None else "succeeded" if answer.ended else "incomplete",
        finish_reason=answer.finish_reason if answer else None,
        model=answer.model if answer else None,
        service_tier=answer.service_tier if answer else None,
        input_tokens=usage.input_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        reasoning_tokens=usage.reasoning_tokens if usage else None,
        cost=fitting(outcome.cost),
        attempts=outcome.attempts,
        elapsed=outcome.elapsed,
        answered_at=outcome.answered_at,
        run=run,
        reason=failure.reason if failure else None,
        http_status=failure.status if failure else 200,
        code=failure.code if failure else None,
        message=failure.message if failure else None,
        request_id=outcome.request_id,
        passing=int(failure is not None and failure.is_passing),
        columns_digest=columns_digest,
        packed=packed(outcome.reply),
        tries=0,
        redo=0,
        lost=0,
    )
