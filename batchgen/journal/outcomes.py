"""The outcomes that are recorded, and the pictures that their answers own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from batchgen.dispatch import Outcome
from batchgen.journal.change import INSERTIONS, Change, together
from batchgen.journal.corrections import correct
from batchgen.journal.journal import Journal
from batchgen.journal.records import fitting, insert, is_sound, packed, sealed, unpacked, update
from batchgen.journal.status import MAX_TRIES

if TYPE_CHECKING:
    pass

# What an outcome has of a failure. An answer has it, too, when `redo` asked for another and failed.
_FAILURE = ("reason", "http_status", "code", "message", "passing")


class RecordedOutcome(NamedTuple):
    """An outcome as its table holds it, without its seal.

    `cost` is in nano-dollars, `packed` the response as stored.
    """

    outcome_id: str
    fingerprint: bytes
    status: Literal["succeeded", "incomplete", "failed"]
    finish_reason: str | None
    model: str | None
    service_tier: str | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost: int | None
    attempts: int
    elapsed: float
    answered_at: float
    run: int
    reason: str | None
    http_status: int | None
    code: str | None
    message: str | None
    request_id: str | None
    passing: int
    columns_digest: bytes
    packed: bytes
    tries: int
    redo: int
    lost: int

    @classmethod
    def read(cls, journal: Journal, record: Sequence[Any]) -> Self:
        """The outcome of a record. Raises DamagedError."""
        return cls._make(journal.checked("outcomes", record)[:-1])

    @property
    def response(self) -> bytes:
        """The API's JSON, b"" for a failure. Raises DamagedError when it cannot be unpacked."""
        return unpacked(self.packed)


# -- reading ---------------------------------------------------------------------------------------


def outcome_of(journal: Journal, outcome_id: str, fingerprint: bytes) -> RecordedOutcome | None:
    """The outcome recorded for a request, or None. Raises DamagedError."""
    return _first(journal, "ident = ? AND key = ?", outcome_id, fingerprint)


def _first(journal: Journal, condition: str, *values: Any) -> RecordedOutcome | None:
    records = journal.query(f"SELECT * FROM outcomes WHERE {condition}", *values)
    return RecordedOutcome.read(journal, tuple(records[0])) if records else None


def answering_models(journal: Journal, run: int | None = None) -> tuple[str, ...]:
    """The models that answered in one run, or (None) in all, as the replies name them."""
    where, value = ("run = ?", run) if run is not None else ("1 = ?", 1)
    sql = f"SELECT DISTINCT model FROM outcomes WHERE model IS NOT NULL AND {where} ORDER BY 1"
    return tuple(row["model"] for row in journal.query(sql, value))


def answered_between(journal: Journal) -> tuple[float | None, float | None]:
    """When the first and the last answer came, in seconds since 1970; None without answers."""
    sql = (
        "SELECT min(answered_at) AS began, max(answered_at) AS ended FROM outcomes "
        "WHERE status != 'failed'"
    )
    row = journal.query(sql)[0]
    return row["began"], row["ended"]


def answers_without_rows(journal: Journal) -> int:
    """How many answers no row has as it is now: their rows were changed or removed."""
    sql = """SELECT count(*) FROM outcomes o WHERE o.status <> 'failed'
        AND NOT EXISTS (SELECT 1 FROM rows r WHERE r.key = o.key AND r.ident = o.ident)"""
    return int(journal.query(sql)[0][0])


# -- writing, in a run -----------------------------------------------------------------------------


def record_outcome(
    outcome_id: str, columns_digest: bytes, outcome: Outcome, *, run: int, corrections: int = 0
) -> Change:
    """The change that records how a request ended. A failure never replaces a whole answer.

    outcome_id: of the request.
    columns_digest: of the cells that it was made of.
    outcome: how it ended.
    run: the number of the run.
    corrections: how often an answer that does not fit is asked for again.
    """
    record = partial(_recorded, outcome_id, columns_digest, outcome, run)
    request = outcome.request
    followed = (outcome_id, request.fingerprint, *request.follows) if request.follows else None
    if outcome.failure is not None:
        return Change(also=partial(_fail, record, followed))
    # Texts may bring pictures, and may have had some when they were asked for before.
    own = partial(own_files, outcome_id, request.fingerprint, outcome.files)
    follows = (("follows", lambda: followed),) if followed is not None else ()
    if corrections and outcome.answer is not None and outcome.answer.misfit:
        corrected = Change(records=follows, also=partial(correct, record, corrections))
        return together(corrected, Change(also=own))
    return Change(records=(("outcomes", record), *follows), also=own)


def withdraw_failure(outcome_id: str, fingerprint: bytes, *, run: int) -> Change:
    """The change that takes back a failure recorded in a run: its row is pending again."""
    return Change(also=partial(_withdraw, outcome_id, fingerprint, run))


def _recorded(
    outcome_id: str, columns_digest: bytes, outcome: Outcome, run: int
) -> RecordedOutcome:
    """An outcome as its table holds it."""
    answer, failure = outcome.answer, outcome.failure
    usage = answer.usage if answer else None
    return RecordedOutcome(
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
        message=failure.message if failure else (answer and answer.misfit) or None,
        request_id=outcome.request_id,
        passing=int(failure is not None and failure.is_passing),
        columns_digest=columns_digest,
        packed=packed(outcome.reply),
        tries=0,
        redo=0,
        lost=0,
    )


def _fail(
    record: Callable[[], RecordedOutcome],
    followed: tuple[str, bytes, str, int] | None,
    connection: sqlite3.Connection,
) -> None:
    failed = record()
    sql = "SELECT rowid, * FROM outcomes WHERE ident = ? AND key = ?"
    old = connection.execute(sql, (failed.outcome_id, failed.fingerprint)).fetchone()
    counts = old is not None and (old["passing"] or old["status"] != "failed")
    tries = (old["tries"] if counts else 0) + 1 if failed.passing else 0
    if old and old["status"] != "failed" and not old["lost"]:
        # `redo` had the row sent again; its mark stays while the failure is a passing one. The
        # answer stays too, with the reason why there is no new one.
        changes = {name: getattr(failed, name) for name in _FAILURE}
        redo = max(1, old["redo"]) if failed.passing and tries < MAX_TRIES else 0
        changes |= {"redo": redo, "tries": tries}
        update(connection, "outcomes", old["rowid"], changes)
        return
    connection.execute(INSERTIONS["outcomes"], sealed(failed._replace(tries=tries)))
    connection.execute(
        "DELETE FROM follows WHERE ident = ? AND key = ?", (failed.outcome_id, failed.fingerprint)
    )
    if followed is not None:
        connection.execute(INSERTIONS["follows"], sealed(followed))
    own_files(failed.outcome_id, failed.fingerprint, (), connection)


def own_files(
    outcome_id: str,
    fingerprint: bytes,
    files: Sequence[Mapping[str, Any]],
    connection: sqlite3.Connection,
) -> None:
    """Give an answer its pictures, in place of those of the answer before it."""
    before = "SELECT rowid, * FROM files WHERE ident = ? AND key = ?"
    for rowid, *record in connection.execute(before, (outcome_id, fingerprint)).fetchall():
        if is_sound("files", record):
            update(connection, "files", rowid, {"ident": "", "key": b""})
        else:
            connection.execute("DELETE FROM files WHERE rowid = ?", (rowid,))
    for file in files:
        insert(connection, "files", {**file, "ident": outcome_id, "key": fingerprint}, replace=True)


def _withdraw(
    outcome_id: str, fingerprint: bytes, run: int, connection: sqlite3.Connection
) -> None:
    sql = "DELETE FROM outcomes WHERE ident = ? AND key = ? AND run = ? AND status = 'failed'"
    connection.execute(sql, (outcome_id, fingerprint, run))
    # An answer whose row was sent again gets its mark of `redo` back: the row is sent once more.
    sql = "SELECT rowid FROM outcomes WHERE ident = ? AND key = ? AND reason IS NOT NULL"
    for (rowid,) in connection.execute(sql, (outcome_id, fingerprint)).fetchall():
        again = {**dict.fromkeys(_FAILURE), "http_status": 200, "passing": 0, "redo": 1}
        update(connection, "outcomes", rowid, again)
