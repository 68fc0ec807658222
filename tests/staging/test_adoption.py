"""Rows take over the outcomes of equal requests; pass 1 holds few rows at once."""

from __future__ import annotations

import pytest
from lab import Lab
from staged import record

import batchgen
from batchgen.journal import (
    count_rows,
    find_damage,
)
from batchgen.staging.rows import GROUP_ROWS, StagingTables
from batchgen.workspace import Workspace


def test_rows_are_not_held_back_without_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 With a matrix of many combinations, pass 1 holds a few thousand rows at most."""
    held = []
    flush = StagingTables.flush

    def looking(self: StagingTables) -> None:
        held.append(len(self._rows))
        flush(self)

    monkeypatch.setattr(StagingTables, "flush", looking)
    batchgen.plan(
        lab.load(lab.job("http://127.0.0.1:9/v1", rows=30, matrix={"axis": list(range(500))}))
    )
    assert sum(held) == 15_000
    assert max(held) < GROUP_ROWS + 500


def test_equal_requests_change_their_names_in_one_go(lab: Lab) -> None:
    """P31 Thousands of equal requests under new ids are matched without comparing all pairs.

    What is staged stays sealed.
    """

    def steps(rows: int) -> int:
        path = lab.folder / "prompts.csv"
        job = lab.job("http://127.0.0.1:9/v1", name=f"same{rows}", rows=None)
        workspace = Workspace.of(lab.load(job))
        counted = 0

        def tick() -> int:
            nonlocal counted
            counted += 1
            return 0

        for prefix in ("old", "new"):
            lines = [f"{prefix}{n},same\n" for n in range(rows)]
            path.write_text("id,text\n" + "".join(lines), encoding="utf-8")
            with workspace.locked(), workspace.open() as journal:
                journal.connection.set_progress_handler(tick if prefix == "new" else None, 100)
                workspace.stage(journal, capped=False)
            if prefix == "old":
                record(workspace, lambda n: True)
        with workspace.peek() as journal:
            assert count_rows(journal, None, by_turns=False).lines == {"succeeded": rows}
            assert list(find_damage(journal)) == []
        return counted

    few, many = steps(200), steps(800)
    assert many < 6 * few
