"""The audit of every call, and what calls took: tokens and money.

What is in flight under a cap on money is reserved.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from batchgen.dispatch import Attempt
from batchgen.journal.change import Change
from batchgen.journal.journal import PAGE, Journal
from batchgen.journal.records import fitting, insert
from batchgen.journal.schema import total_of

# Whether an attempt counts at its highest cost because nobody knows how it ended: it has a cost,
# but no answer and no count of tokens.
_UNCERTAIN = "(cost > 0 AND reason IS NOT NULL AND input_tokens IS NULL AND output_tokens IS NULL)"


def attempts_of(journal: Journal, outcome_ids: Collection[str]) -> list[dict[str, Any]]:
    """The attempts under some outcome ids, those of each in order.

    The whole table is read. Raises DamagedError.
    """
    wanted = list(outcome_ids)
    pages = (wanted[at : at + PAGE] for at in range(0, len(wanted), PAGE))
    return [
        record
        for page in pages
        for record in journal.records(
            "attempts", f"ident IN ({', '.join('?' * len(page))}) ORDER BY seq", *page
        )
    ]


def call_totals(journal: Journal, run: int | None = None) -> dict[str, int]:
    """What the calls of one run took, or (None) of all.

    That is `calls`, `input_tokens`, `output_tokens`; `cost`, of the calls whose cost is known, in
    nano-dollars; `uncertain`, how many calls count at their highest cost because their outcome is
    unknown, and `uncertain_cost`; and `unpriced`, how many calls have an unknown cost.
    """
    where, value = ("run = ?", run) if run is not None else ("1 = ?", 1)
    sums = {
        "calls": "count(*)",
        "input_tokens": total_of("input_tokens"),
        "output_tokens": total_of("output_tokens"),
        "cost": total_of(f"iif({_UNCERTAIN}, 0, cost)"),
        "uncertain": f"count(iif({_UNCERTAIN}, 1, NULL))",
        "uncertain_cost": total_of(f"iif({_UNCERTAIN}, cost, 0)"),
        "unpriced": "count(*) - count(cost)",
    }
    (totals,) = journal.query(
        f"SELECT {', '.join(sums.values())} FROM attempts WHERE {where}", value
    )
    return dict(zip(sums, map(int, totals), strict=True))


def in_flight(journal: Journal) -> tuple[int, int]:
    """How many calls are in flight under a cap on money, or were when their process died, and their
    highest cost in nano-dollars.
    """
    (totals,) = journal.query(f"SELECT count(*), {total_of('cost')} FROM reserved")
    return int(totals[0]), int(totals[1])


def spent(journal: Journal) -> int:
    """The cost of all attempts, in nano-dollars: what is known, and what counts at its highest.

    Raises DamagedError when any attempt is not sound: a cap on money must not rest on a damaged
    sum.
    """
    for record in journal.all_records("attempts"):
        journal.checked("attempts", record)
    totals = call_totals(journal)
    return totals["cost"] + totals["uncertain_cost"]


def unpriced_attempts(journal: Journal) -> list[sqlite3.Row]:
    """The attempts of unknown cost.

    Their columns, each NULL where unknown: input_tokens, output_tokens, the batch that they were
    in, the model and service_tier that answered, and cost_bound: the highest cost of such a call,
    in nano-dollars.
    """
    return journal.query(
        """SELECT a.input_tokens, a.output_tokens, a.batch, o.model, o.service_tier,
            coalesce(r.cost_bound, (SELECT max(cost_bound) FROM rows)) AS cost_bound
        FROM attempts a
            LEFT JOIN outcomes o ON o.ident = a.ident AND o.key = a.key AND o.run = a.run
            LEFT JOIN rows r ON r.key = a.key AND r.ident = a.ident
        WHERE a.cost IS NULL"""
    )


def highest_overruns(journal: Journal, batch_share: float) -> list[tuple[int, int]]:
    """The bound and the cost of the answered calls that cost most beyond their bound, in
    nano-dollars: by the factor, and by the difference.

    `batch_share` is what the bound of a call in a batch is of its bound outside one. Later turns do
    not count: their bound also holds the turns before, and is not on record.
    """
    overruns = """SELECT bound, cost FROM (
            SELECT CAST(a.cost AS INTEGER) AS cost,
                CAST(r.cost_bound * iif(a.batch IS NULL, 1, ?) AS INTEGER) AS bound
            FROM attempts a JOIN rows r ON r.key = a.key AND r.ident = a.ident
            WHERE a.reason IS NULL AND r.turn <= 1)
        WHERE cost > bound ORDER BY {} DESC LIMIT 1"""
    highest = ("cost * 1.0 / max(bound, 1)", "cost - bound")
    return [
        (bound, cost)
        for by in highest
        for bound, cost in journal.query(overruns.format(by), batch_share)
    ]


def record_attempt(
    outcome_id: str, fingerprint: bytes, attempt: Attempt, *, run: int, reserved: bool = False
) -> Change:
    """The change that records a call which has ended.

    outcome_id, fingerprint: of the request that it was made for.
    attempt: the call.
    run: the number of the run that made it.
    reserved: whether its cost was reserved; it no longer is.
    """
    record = partial(_audit, outcome_id, fingerprint, run, attempt)
    release = partial(_release, outcome_id, fingerprint) if reserved else None
    return Change(records=(("attempts", record),), also=release)


def reserve_cost(
    outcome_id: str, fingerprint: bytes, *, run: int, number: int, at: float, cost: int
) -> Change:
    """The change that records a call which is about to be sent under a cap on money.

    outcome_id, fingerprint: of the request that it is made for.
    run: the number of the run that makes it.
    number: of the attempt, within the run.
    at: seconds since 1970.
    cost: the most that it may cost, in nano-dollars.
    """
    cells = {"ident": outcome_id, "key": fingerprint, "run": run, "number": number, "at": at}
    return Change(also=partial(_reserve, {**cells, "cost": cost}))


def _audit(
    outcome_id: str, fingerprint: bytes, run: int, attempt: Attempt
) -> tuple[str | bytes | float | None, ...]:
    """An attempt as its table holds it."""
    return (
        outcome_id,
        fingerprint,
        run,
        attempt.number,
        attempt.started_at,
        attempt.status,
        attempt.code,
        attempt.reason,
        attempt.request_id,
        attempt.input_tokens,
        attempt.output_tokens,
        fitting(attempt.cost),
        attempt.wait,
        attempt.elapsed,
        attempt.batch,
    )


def _reserve(cells: Mapping[str, Any], connection: sqlite3.Connection) -> None:
    insert(connection, "reserved", cells, replace=True)


def _release(outcome_id: str, fingerprint: bytes, connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM reserved WHERE ident = ? AND key = ?", (outcome_id, fingerprint)
    )


def spent_by_day(journal: Journal, since: float = 0.0) -> list[dict[str, Any]]:
    """What was spent, by the day (UTC, `2026-11-29`) on which calls were sent and by run.

    Calls before `since`, in seconds since 1970, are left out.

    Each has `day`, `run`, `calls`, `tokens`, `cost` in nano-dollars, and `unpriced`: how many calls
    have an unknown cost. What is in flight, or has an unknown outcome, counts at its highest cost.
    """
    tokens = f"{total_of('input_tokens')} + {total_of('output_tokens')}"
    records = journal.query(
        f"""SELECT date(started_at, 'unixepoch') AS day, run, count(*) AS calls,
            {tokens} AS tokens, {total_of("cost")} AS cost, count(*) - count(cost) AS unpriced
        FROM attempts WHERE started_at >= ? GROUP BY 1, 2
        UNION ALL SELECT date(at, 'unixepoch'), run, count(*), 0, {total_of("cost")}, 0
        FROM reserved GROUP BY 1, 2 ORDER BY 1, 2""",
        since,
    )
    numbers = ("run", "calls", "tokens", "cost", "unpriced")
    return [
        {"day": record["day"], **{name: int(record[name]) for name in numbers}}
        for record in records
    ]
