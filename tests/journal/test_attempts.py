"""What calls took: money and tokens."""

from __future__ import annotations

import asyncio

import pytest
from lab import Lab
from staged import staged

from batchgen.journal import (
    Writer,
    attempts_of,
    begin_run,
    call_totals,
    find_damage,
    first_row,
    reserve_cost,
    spent,
)
from batchgen.journal.records import LARGEST, insert


def test_a_call_in_flight_when_the_process_died_counts_as_spent(lab: Lab) -> None:
    """P25 What a dead process had reserved becomes one attempt at its highest cost."""
    workspace = staged(lab, 2)
    with workspace.open() as journal:
        row = first_row(journal)
        assert row is not None

        async def reserve() -> None:
            writer = Writer(journal.path)
            await writer.commit(
                reserve_cost(row.outcome_id, row.fingerprint, run=1, number=1, at=5.0, cost=700)
            )
            await writer.close()

        begin_run(journal, {}, "")
        asyncio.run(reserve())
        assert spent(journal) == 0
        begin_run(journal, {}, "")
        begin_run(journal, {}, "")
        assert spent(journal) == 700
        assert [
            (each["reason"], each["cost"], each["run"])
            for each in attempts_of(journal, [row.outcome_id])
        ] == [("interrupted", 700, 1)]
        assert list(find_damage(journal)) == []


def test_no_sum_of_money_ends_in_an_error(lab: Lab) -> None:
    """P25 Sums of real amounts are exact; absurd and damaged ones do not end in an error.

    SQLite's own sum fails beyond 64 bits, and a number cannot be made of an infinite one.
    """
    workspace = staged(lab, 1)
    with workspace.open() as journal:
        begin_run(journal, {}, "")

        def spend(*costs: int | float | str | bytes) -> int:
            with journal.transaction() as connection:
                connection.execute("DELETE FROM attempts")
                for cost in costs:
                    cells = {"ident": "x", "key": b"k", "run": 1, "number": 1, "started_at": 1.0}
                    insert(connection, "attempts", {**cells, "wait": 0.0, "cost": cost})
            return call_totals(journal)["cost"]

        dollar = 10**9
        assert spend(5_000_000 * dollar + 1, 3_999_999 * dollar + 1) == 8_999_999 * dollar + 2
        assert spend(LARGEST, LARGEST, LARGEST) == pytest.approx(3 * LARGEST)
        assert spend(LARGEST, 1e999) == pytest.approx(2 * LARGEST)
        assert spend("no number", b"none", 3) == 3
        assert spend() == 0
