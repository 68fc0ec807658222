"""Rows take over the outcomes of equal requests; pass 1 holds few rows at once."""

from __future__ import annotations

import pytest
from lab import Lab, Script, serving
from staged import record

import batchgen
from batchgen import maintenance
from batchgen.journal import (
    count_rows,
    find_damage,
)
from batchgen.simulator import Simulator
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
            assert count_rows(journal, by_turns=False).lines == {"succeeded": rows}
            assert list(find_damage(journal)) == []
        return counted

    few, many = steps(200), steps(800)
    assert many < 6 * few


def refusing(*words: str) -> Script:
    """Refuses requests that say one of these words."""
    return lambda request: (
        "400_policy" if any(word in str(request.body) for word in words) else None
    )


def table_of(lab: Lab) -> list[tuple[str, str, str]]:
    return [(row["id"], row["status"], row["output"]) for row in lab.table()]


def write(lab: Lab, *rows: tuple[str, str]) -> None:
    lines = ["id,text", *(f"{name},ECHO:{text}" for name, text in rows)]
    (lab.folder / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("at_once", [False, True])
def test_ids_are_swapped_and_a_row_is_edited(lab: Lab, at_once: bool) -> None:
    """P08 A row whose id and text both change shows no answer of another row: where the ids were
    swapped before it was edited, it shows its own old answer, else none. The other row keeps its
    answer, unpaid."""
    with serving(script=refusing("edited")) as api:
        write(lab, ("a", "one"), ("b", "two"))
        job = lab.job(api.url, rows=None)
        lab.go(job)
        if not at_once:
            write(lab, ("b", "one"), ("a", "two"))
            assert lab.go(job).run.calls == 0
            assert table_of(lab) == [("b", "succeeded", "one"), ("a", "succeeded", "two")]
        write(lab, ("b", "edited"), ("a", "two"))
        plan = batchgen.plan(lab.load(job))
        assert plan.rows == {"succeeded": 1, "pending" if at_once else "outdated": 1}
        assert lab.go(job).run.calls == 1
        assert table_of(lab) == [
            ("b", "failed", "" if at_once else "one"),
            ("a", "succeeded", "two"),
        ]
        assert [row["id"] for row in lab.table(which="errors")] == ["b"]
        # A row `a` with the first text gets the answer that it had first.
        write(lab, ("a", "one"), ("b", "two"))
        assert lab.go(job).run.calls == 0
        assert table_of(lab) == [("a", "succeeded", "one"), ("b", "succeeded", "two")]
        assert maintenance.verify(lab.load(job)) == []


def test_an_id_column_is_named_and_then_a_row_is_edited(lab: Lab) -> None:
    """P08 Rows that get ids keep their answers under them: an edited one shows its old answer."""
    with serving(script=refusing("edited")) as api:
        write(lab, ("a", "one"), ("b", "two"), ("c", "two"))
        lab.go(lab.job(api.url, rows=None, prompts={"path": "prompts.csv"}))
        job = lab.job(api.url, rows=None)
        assert lab.go(job).run.calls == 0
        write(lab, ("b", "two"), ("a", "edited"), ("c", "edited too"))
        assert batchgen.plan(lab.load(job)).rows == {"succeeded": 1, "outdated": 2}
        assert lab.go(job).run.calls == 2
        assert table_of(lab) == [
            ("b", "succeeded", "two"),
            ("a", "failed", "one"),
            ("c", "failed", "two"),
        ]
        assert maintenance.verify(lab.load(job)) == []


def test_a_row_keeps_what_it_took_over(lab: Lab, api: Simulator) -> None:
    """P08 Of equal rows under new ids each keeps the answer that it took over, whatever order they
    are in later; `redo` of one asks this one alone, and shows the new answer there."""
    write(lab, ("a", "one"), ("b", "one"))
    job = lab.job(api.url, rows=None)
    lab.go(job)
    write(lab, ("x", "one"), ("y", "one"))
    assert lab.go(job).run.calls == 0
    maintenance.redo(lab.load(job), ["y"])
    assert lab.go(job).run.calls == 1
    runs = {row["id"]: row["run"] for row in lab.table()}
    write(lab, ("y", "one"), ("w", "new"), ("x", "one"))
    assert lab.go(job).run.calls == 1
    assert {row["id"]: row["run"] for row in lab.table() if row["id"] != "w"} == runs


def test_a_row_that_comes_back_takes_no_answer_from_another(lab: Lab, api: Simulator) -> None:
    """P08 An edit is undone after another row has taken over the answer to the first text: the
    other row, which nobody touched, keeps it, and the edited row is answered anew, once."""
    write(lab, ("a", "one"), ("b", "two"))
    job = lab.job(api.url, rows=None)
    lab.go(job)
    write(lab, ("a", "other"), ("b", "one"))
    assert lab.go(job).run.calls == 1
    before = {row["id"]: row["run"] for row in lab.table()}
    assert before == {"a": "2", "b": "1"}
    write(lab, ("a", "one"), ("b", "one"))
    assert batchgen.plan(lab.load(job)).calls == lab.go(job).run.calls == 1
    assert {row["id"]: row["run"] for row in lab.table()} == {"a": "3", "b": "1"}
    write(lab, ("b", "one"), ("a", "one"))
    assert batchgen.plan(lab.load(job)).calls == lab.go(job).run.calls == 0
    assert {row["id"]: row["run"] for row in lab.table()} == {"a": "3", "b": "1"}
    assert maintenance.verify(lab.load(job)) == []
