"""What the next run of a job does: resume, change, revert, redo, give up."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving

import batchgen
from batchgen import maintenance, queries
from batchgen.journal import STATUSES, rows_with_outcomes
from batchgen.simulator import RequestInfo, Simulator
from batchgen.workspace import Workspace

ROWS = [("a", "ECHO:one"), ("b", "ECHO:two"), ("c", "ECHO:three")]
SOME = {"path": "prompts.csv"}

PRICING: dict[str, Any] = {"pricing": {"gpt-5.6-luna": {"input": 1, "output": 2}}}


def write(
    lab: Lab, rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ("id", "text")
) -> None:
    with open(lab.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def shown(lab: Lab) -> list[tuple[str, str, str]]:
    return [(row["id"], row["status"], row["output"]) for row in lab.table()]


def chat(content: str = "{{ text }}", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "gpt-5.6-luna", "messages": messages, "max_completion_tokens": 100, **more}


def messages_of(lab: Lab, job: Path) -> list[str]:
    messages: list[str] = []
    lab.go(job, say=messages.append)
    return messages


def test_an_interrupted_run_resumed_gives_the_table_of_an_unbroken_one(
    lab: Lab, api: Simulator
) -> None:
    """P01 A run stopped part of the way (here by --limit and by a quota) and resumed leaves the
    unbroken run's table."""
    job = lab.job(api.url, rows=30)
    lab.go(job)
    unbroken = [
        {**row, "answered_at": "", "elapsed_s": "", "request_id": "", "run": ""}
        for row in lab.table()
    ]
    with serving(script=lambda request: "quota" if request.n == 12 else None) as other:
        broken = lab.job(other.url, name="broken", rows=None)
        reports = [lab.go(broken, limit=5), lab.go(broken), lab.go(broken)]
        assert [report.exit_code for report in reports] == [0, 4, 0]
        assert other.requests.answered == 30
    table = [
        {**row, "answered_at": "", "elapsed_s": "", "request_id": "", "run": ""}
        for row in lab.table("broken")
    ]
    assert table == unbroken


def test_a_row_inserted_at_the_top_is_the_only_one_called(lab: Lab, api: Simulator) -> None:
    """P08 Rows inserted between runs: exactly the new one is called, and the table is in the file's
    order."""
    write(lab, ROWS)
    job = lab.job(api.url, rows=None)
    lab.go(job)
    write(lab, [("z", "ECHO:zero"), *ROWS])
    assert lab.go(job).run.calls == 1
    assert shown(lab) == [(i, "succeeded", t[5:]) for i, t in [("z", "ECHO:zero"), *ROWS]]


@pytest.mark.parametrize("prompts", [{**SOME, "id": "id"}, SOME], ids=["with ids", "without"])
def test_reordered_and_removed_rows_call_nothing(
    lab: Lab, api: Simulator, prompts: dict[str, str]
) -> None:
    """P08 Rows reordered or removed between runs cost nothing, with and without prompts.id, and
    come back for nothing."""
    write(lab, ROWS)
    job = lab.job(api.url, rows=None, prompts=prompts)
    lab.go(job)
    for rows in (ROWS[::-1], ROWS[:1], ROWS):
        write(lab, rows)
        assert lab.go(job).run.calls == 0
        assert shown(lab) == [(i, "succeeded", t[5:]) for i, t in rows]


def test_without_ids_a_column_that_no_template_uses_may_change(lab: Lab, api: Simulator) -> None:
    """P08 Without prompts.id the identity is the request: mending a column that no template uses
    calls nothing, and equal rows are told apart by their number."""
    rows = [("a", "ECHO:same"), ("b", "ECHO:same"), ("c", "ECHO:other")]
    write(lab, rows)
    job = lab.job(api.url, rows=None, prompts=SOME)
    assert lab.go(job).run.calls == 3
    write(lab, [("x", "ECHO:other"), ("y", "ECHO:same"), ("z", "ECHO:same"), ("new", "ECHO:same")])
    assert lab.go(job).run.calls == 1
    assert [row["output"] for row in lab.table()] == ["other", "same", "same", "same"]
    ids = [row["id"] for row in queries.show(lab.load(job), _ids(lab, job)[3])]
    assert ids[0].endswith("-3")


def _ids(lab: Lab, job: Path) -> list[str]:
    with Workspace.of(lab.load(job)).peek() as journal:
        return [row.id for row, _ in rows_with_outcomes(journal)]


def test_an_edited_row_is_outdated_and_shows_its_old_answer(lab: Lab, api: Simulator) -> None:
    """P08 A paid answer is never blanked: an edited row is outdated with its last answer until it
    is asked again; plan says why and how many; reverting the edit costs nothing."""
    write(lab, ROWS)
    job = lab.job(api.url, rows=None)
    lab.go(job)
    write(lab, [ROWS[0], ("b", "ECHO:second"), ROWS[2]])
    planned = batchgen.plan(lab.load(job))
    assert (planned.rows, planned.calls) == ({"outdated": 1, "succeeded": 2}, 1)
    assert planned.again == {"of changed cells": 1}
    assert lab.go(job, limit=1).run.calls == 0
    assert shown(lab)[1] == ("b", "outdated", "two")
    write(lab, ROWS)
    assert lab.go(job).run.calls == 0
    write(lab, [ROWS[0], ("b", "ECHO:second"), ROWS[2]])
    assert lab.go(job).run.calls == 1
    assert shown(lab)[1] == ("b", "succeeded", "second")
    write(lab, ROWS)
    assert lab.go(job).run.calls == 0
    assert shown(lab)[1] == ("b", "succeeded", "two")


def test_a_changed_job_says_what_runs_again_before_it_does(lab: Lab, api: Simulator) -> None:
    """P08 A changed prompt or model re-runs what it changes; plan and run say so with the cost,
    before; reverting is free."""
    write(lab, ROWS)
    pricing: dict[str, Any] = {"pricing": {"gpt-5.6-luna": {"input": 1, "output": 2}}}
    job = lab.job(api.url, rows=None, request=chat(), **pricing)
    lab.go(job)
    lab.job(api.url, rows=None, request=chat("{{ text }}!"), **pricing)
    planned = batchgen.plan(lab.load(job))
    assert (list(planned.again.values()), planned.calls) == ([3], 3)
    assert planned.cost is not None
    assert planned.cost_at_most is not None
    assert 0 < planned.cost <= planned.cost_at_most
    messages = messages_of(lab, job)
    assert any(
        "3 answered rows to run again because of a change in the job" in text and "$" in text
        for text in messages
    )
    assert [row["output"] for row in lab.table()] == ["one!", "two!", "three!"]
    lab.job(api.url, rows=None, request=chat())
    assert lab.go(job).run.calls == 0
    assert [row["output"] for row in lab.table()] == ["one", "two", "three"]
    lab.job(api.url, rows=None, request=chat(model="gpt-6-sol"))
    assert lab.go(job).run.calls == 3


def test_knobs_do_not_run_anything_again(lab: Lab, api: Simulator) -> None:
    """P08 Limits, retries and output are no part of a request: changing them calls nothing."""
    job = lab.job(api.url)
    lab.go(job)
    lab.job(api.url, limits={"concurrency": 3, "requests_per_minute": 1000}, retry={"attempts": 2})
    assert lab.go(job).run.calls == 0


def test_a_changed_matrix_calls_only_what_is_new(lab: Lab, api: Simulator) -> None:
    """P08 A value added to the matrix calls one request a row; the answers to the others stay."""
    write(lab, ROWS)
    parts: dict[str, Any] = {"rows": None, "request": chat("{{ text }} {{ tone }}")}
    job = lab.job(api.url, matrix={"tone": ["dry", "warm"]}, **parts)
    assert lab.go(job).run.calls == 6
    lab.job(api.url, matrix={"tone": ["warm", "odd", "dry"]}, **parts)
    assert lab.go(job).run.calls == 3
    assert [row["output"] for row in lab.table()[:3]] == ["one warm", "one odd", "one dry"]
    lab.job(api.url, matrix={"tone": ["dry"]}, **parts)
    assert lab.go(job).run.calls == 0
    assert len(lab.table()) == 3


NAMED = {**SOME, "id": "id"}
OLD, NEW = [("a", "ECHO:one"), ("b", "ECHO:two")], [("x", "ECHO:one"), ("y", "ECHO:two")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"prompts": SOME}, {"prompts": NAMED}),
        ({"prompts": NAMED}, {"prompts": SOME}),
        ({"prompts": NAMED}, {"prompts": NAMED, "rows": NEW}),
        (
            {"request": chat()},
            {"request": chat(model="{{ model }}"), "matrix": {"model": ["gpt-5.6-luna"]}},
        ),
        (
            {"request": chat("{{ text }} {{ t }}"), "matrix": {"t": ["x"]}},
            {"request": chat("{{ text }} x")},
        ),
    ],
    ids=[
        "ids added",
        "ids dropped",
        "ids renamed",
        "a constant made an axis",
        "an axis made a constant",
    ],
)
def test_unchanged_requests_are_not_paid_again(
    lab: Lab, api: Simulator, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """P08 A request that is the same keeps its answer though the row has another name: ids added,
    dropped or renamed, or a constant made an axis, call nothing, and plan says so; the way back is
    free too."""

    def to(parts: dict[str, Any]) -> Path:
        write(lab, parts.get("rows", OLD))
        options = {"prompts": NAMED, "request": chat(), **parts, "rows": None}
        return lab.job(api.url, **options)

    job = to(before)
    lab.go(job)
    outputs = [row["output"] for row in lab.table()]
    for parts in (after, before, after):
        to(parts)
        planned = batchgen.plan(lab.load(job))
        assert (planned.rows, planned.calls) == ({"succeeded": 2}, 0)
        assert (lab.go(job).run.calls, [row["output"] for row in lab.table()]) == (0, outputs)
        assert maintenance.verify(lab.load(job)) == []
    assert maintenance.redo(lab.load(job), statuses=["succeeded"]) == 2
    assert lab.go(job).run.calls == 2
    assert lab.go(to(before)).run.calls == 0


def test_an_answer_is_taken_over_by_one_row_only(lab: Lab, api: Simulator) -> None:
    """P08 Of equal requests each has an answer of its own: two answers serve two rows of other
    names, and a third row is called; a row's own answer is never given away."""
    write(lab, [("a", "ECHO:same"), ("b", "ECHO:same"), ("c", "ECHO:other")])
    job = lab.job(api.url, rows=None, prompts=NAMED)
    lab.go(job)
    asked = [row["request_id"] for row in lab.table()]
    write(
        lab,
        [
            ("x", "ECHO:same"),
            ("a", "ECHO:same"),
            ("c", "ECHO:other"),
            ("z", "ECHO:same"),
            ("y", "ECHO:new"),
        ],
    )
    planned = batchgen.plan(lab.load(job))
    assert planned.calls == lab.go(job).run.calls == 2
    found = {row["id"]: row["request_id"] for row in lab.table()}
    assert [found["a"], found["x"], found["c"]] == asked
    assert len(set(found.values())) == 5


def test_a_failure_is_taken_over_with_its_tries(lab: Lab) -> None:
    """P11 A request that was refused is refused under another name too: it is not called again, and
    redo asks it."""
    with serving(
        script=lambda request: "400_policy" if "two" in str(request.body) else None
    ) as api:
        write(lab, OLD)
        job = lab.job(api.url, rows=None)
        lab.go(job)
        write(lab, NEW)
        assert (lab.go(job).run.calls, shown(lab)[1][:2]) == (0, ("y", "failed"))
        assert maintenance.redo(lab.load(job), ["y"]) == 1
        assert lab.go(job).run.calls == 1


TABLES = ("results.csv", "errors.csv", "results.jsonl", "errors.jsonl")
FINISHED: dict[str, Any] = {
    "output": {"tables": ["csv", "jsonl"], "csv": {"safe": True}},
    "rows": None,
}


@pytest.fixture
def finished(lab: Lab) -> Iterator[Path]:
    """A job that has run, with a refused row and a cell that was made safe for spreadsheets."""
    with serving(
        script=lambda request: "400_policy" if "poison" in str(request.body) else None
    ) as api:
        write(lab, [*ROWS, ("d", "ECHO:=1+1"), ("e", "ECHO:poison")])
        job = lab.job(api.url, **FINISHED)
        assert lab.go(job).run.calls == 5
        yield job


def files(lab: Lab) -> dict[str, tuple[bytes, int]]:
    """The tables that there are, each with the file that it is."""
    paths = [path for path in (lab.output() / name for name in TABLES) if path.exists()]
    return {path.name: (path.read_bytes(), path.stat().st_ino) for path in paths}


def texts(lab: Lab) -> dict[str, bytes]:
    return {name: text for name, (text, _) in files(lab).items()}


def test_a_run_with_nothing_to_do_leaves_the_tables_alone(
    lab: Lab, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P07 A run that has nothing to do and finds its tables as it left them does not touch them,
    nor reads every row, and says what it would say had it written them; report.json tells of it."""
    before = files(lab)
    assert list(before) == list(TABLES)
    (lab.output() / "errors.csv").unlink()
    wrote = lab.go(finished)
    before = files(lab)
    with monkeypatch.context() as patched:
        patched.setattr(
            "batchgen.journal.rows._page", lambda *_, **__: pytest.fail("rows are read")
        )
        left = lab.go(finished)
    assert files(lab) == before
    assert (left.line(), left.exit_code, left.job) == (wrote.line(), wrote.exit_code, wrote.job)
    assert "1 cells made safe for spreadsheets" in left.line()
    assert left.exit_code == 3
    assert json.loads((lab.output() / "report.json").read_text())["run"]["run"] == left.number == 3
    kept = (lab.output() / "report.json").read_bytes()
    maintenance.export(lab.load(finished))
    assert (texts(lab), (lab.output() / "report.json").read_bytes()) == (
        {n: x for n, (x, _) in before.items()},
        kept,
    )


def _touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda path: os.truncate(path, 20),
        lambda path: path.write_bytes(path.read_bytes().replace(b"one", b"two")),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: path.write_bytes(b""),
        _touched,
        _linked,
    ],
    ids=["deleted", "truncated", "edited", "longer", "emptied", "touched", "a link"],
)
def test_a_table_that_is_not_what_was_written_comes_back(
    lab: Lab, finished: Path, harm: Callable[[Path], None], name: str
) -> None:
    """P10 Whatever became of a table, the same command makes it again, also when it has nothing
    else to do."""
    wanted = texts(lab)
    harm(lab.output() / name)
    assert lab.go(finished).run.calls == 0
    assert texts(lab) == wanted
    assert not (lab.output() / name).is_symlink()


@pytest.mark.parametrize(
    "output",
    [
        {"tables": ["jsonl"]},
        {"tables": ["csv"], "prefix": "bg_"},
        {"tables": ["csv"], "columns": {"loud": "{{ output | upper }}"}},
        {"tables": ["csv"], "columns": {"loud": "{% include 'loud.txt' %}"}},
        {"tables": ["csv"], "csv": {"safe": False}},
        {"tables": ["csv"], "accept": ["length"]},
    ],
)
def test_other_output_settings_write_other_tables(
    lab: Lab, finished: Path, output: dict[str, Any]
) -> None:
    """P10 A run with nothing to send writes the tables that the job asks for now, and on the way
    back those of before."""
    (lab.folder / "loud.txt").write_text("{{ output }}!")
    wanted = texts(lab)
    url = lab.load(finished).provider.base_url
    lab.job(url, **{**FINISHED, "output": output})
    lab.go(finished)
    made = texts(lab)
    maintenance.export(lab.load(finished))
    assert texts(lab) == made
    (lab.folder / "loud.txt").write_text("{{ output }}!!")
    lab.go(finished)
    made = texts(lab)
    maintenance.export(lab.load(finished))
    assert texts(lab) == made
    lab.job(url, **FINISHED)
    assert lab.go(finished).run.calls == 0
    assert texts(lab) == wanted


def test_tables_that_show_pictures_of_rows_are_always_written(lab: Lab, api: Simulator) -> None:
    """P10 A column may read a picture as the tables are made; nobody knows but by making them
    whether it is the same."""
    pictures = Path(__file__).parent.parent / "jobs" / "pictures"
    (lab.folder / "one.png").write_bytes((pictures / "mug.png").read_bytes())
    write(lab, [("one.png", "ECHO:x")])
    job = lab.job(api.url, rows=None, output={"columns": {"seen": "{{ row.id | data_url }}"}})
    lab.go(job)
    before = lab.table()[0]["seen"]
    (lab.folder / "one.png").write_bytes((pictures / "vase.png").read_bytes())
    assert lab.go(job).run.calls == 0
    assert lab.table()[0]["seen"] != before


def test_redo_shows_in_the_tables_of_a_run_that_sends_nothing(lab: Lab, finished: Path) -> None:
    """P07 What redo marked is outdated in the tables of the next run, though its limit lets it send
    nothing."""
    assert maintenance.redo(lab.load(finished), ["c"]) == 1
    assert lab.go(finished, limit=1).run.calls == 0
    assert shown(lab)[2] == ("c", "outdated", "three")
    assert lab.go(finished).run.calls == 1
    assert shown(lab)[2] == ("c", "succeeded", "three")


def test_prompts_that_come_in_another_order_are_written_so(lab: Lab, finished: Path) -> None:
    """P10 Rows that were turned round, and turned back, stand in the tables as in the file, though
    nothing is sent."""
    before = texts(lab)
    lines = (lab.folder / "prompts.csv").read_text().splitlines()
    for order in (-1, 1):
        (lab.folder / "prompts.csv").write_text("\n".join([lines[0], *lines[1:][::order]]))
        assert lab.go(finished).run.calls == 0
        assert [row["id"] for row in lab.table()] == list("abcde")[::order]
    assert texts(lab) == before


@pytest.mark.parametrize("step", ["the tables are half written", "the tables are written"])
def test_a_run_that_dies_over_its_tables_leaves_nothing_taken_for_them(
    lab: Lab, finished: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """P10 From the first table that is replaced until the run's end is in the journal, the journal
    knows of no tables: what a crash leaves there is written again."""

    class Crash(BaseException):
        pass

    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    wanted = texts(lab)
    (lab.output() / "results.csv").write_bytes(b"gone")
    with monkeypatch.context() as patched:
        if step == "the tables are written":
            patched.setattr("batchgen.session.session.end_run", crash)
        else:
            patched.setattr("batchgen.tables.build._total", crash)
        with pytest.raises(Crash):
            lab.go(finished)
    with Workspace.of(lab.load(finished)).peek() as journal:
        assert journal.meta("tables") is None
    assert lab.go(finished).run.calls == 0
    assert texts(lab) == wanted


def test_an_export_that_ends_after_a_run_is_not_taken_for_its_tables(
    lab: Lab, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10 An export may put older tables in the place of a run's at the very moment that these
    appear: the next run writes its own."""
    wanted = texts(lab)
    (lab.output() / "results.csv").unlink()
    replaced = os.replace

    def outrun(source: Path, target: Path) -> None:
        replaced(source, target)
        if Path(target).name == "results.csv":
            Path(target).unlink()
            Path(target).write_bytes(b"older\n")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", outrun)
        lab.go(finished)
    assert (lab.output() / "results.csv").read_bytes() == b"older\n"
    lab.go(finished)
    assert texts(lab) == wanted


def test_redo_asks_exactly_what_it_names_again(lab: Lab, api: Simulator) -> None:
    """P07 redo marks exactly what it names; the old answer stays until the new one lands."""
    job = lab.job(api.url)
    lab.go(job)
    assert maintenance.redo(lab.load(job), ["r2", "r4"]) == 2
    maintenance.export(lab.load(job))
    assert [row["status"] for row in lab.table()] == [
        "succeeded",
        "outdated",
        "succeeded",
        "outdated",
        "succeeded",
    ]
    assert lab.table()[1]["output"] == "answer 2"
    again = lab.go(job)
    assert (again.run.calls, again.rows) == (2, {"succeeded": 5})
    assert [row["run"] for row in lab.table()] == ["1", "2", "1", "2", "1"]
    assert lab.go(job).run.calls == 0


def test_redo_of_an_unknown_id_marks_nothing(lab: Lab, api: Simulator) -> None:
    """P07 An id that no row has is refused, with the nearest one, and nothing else is marked."""
    job = lab.job(api.url)
    lab.go(job)
    with pytest.raises(
        batchgen.InputError, match=r"r11: this job has no row with this id.*did you mean 'r1'"
    ):
        maintenance.redo(lab.load(job), ["r1", "r11"])
    assert lab.go(job).run.calls == 0


def test_redo_before_a_run_says_so(lab: Lab, api: Simulator) -> None:
    """P07 Nothing can be redone, shown, exported or verified of a job that never ran, and its
    folder is not made."""
    job = lab.load(lab.job(api.url))
    for ask in (
        maintenance.redo,
        maintenance.export,
        maintenance.verify,
        queries.status,
        batchgen.results,
    ):
        with pytest.raises(batchgen.InputError, match="has not been run yet"):
            ask(job)
    assert not lab.output().exists()


@pytest.mark.parametrize("fault", ["400_policy", "500"])
def test_a_failed_redo_keeps_the_old_answer(lab: Lab, fault: str) -> None:
    """P07 When the new call fails, the answer that was paid for stays, whatever the failure."""
    faulty: list[str] = []
    with serving(script=lambda request: faulty[0] if faulty else None) as api:
        job = lab.job(api.url, rows=2, retry={"attempts": 1})
        lab.go(job)
        before = lab.table()[0]
        maintenance.redo(lab.load(job), ["r1"])
        faulty.append(fault)
        assert lab.go(job).exit_code == 3
        row = lab.table()[0]
        assert {**row, "status": "", "error": ""} == {**before, "status": "", "error": ""}
        faulty.clear()
        again = lab.go(job)
        if fault == "500":
            # A failure that says nothing of the row leaves the wish to ask again.
            assert (row["status"], again.run.calls) == ("outdated", 1)
        else:
            assert (row["status"], again.run.calls, again.exit_code) == ("failed", 0, 3)
            assert (again.rows, again.job.failures) == (
                {"failed": 1, "succeeded": 1},
                {"policy": 1},
            )
            (error,) = lab.table(which="errors")
            assert (error["id"], error["reason"], error["http_status"]) == ("r1", "policy", "400")
            assert row["error"] == f"policy: {error['message']}"
            assert maintenance.redo(lab.load(job), statuses=["failed"]) == 1
            assert lab.go(job).run.calls == 1
        assert lab.table()[0]["status"] == "succeeded"
        assert lab.table(which="errors") == []


def test_a_run_that_all_rows_are_refused_in_leaves_every_redo_mark(lab: Lab) -> None:
    """P07 When the first answers are all the same refusal, it says nothing of the rows: each that
    was marked is asked again later, and until then it is outdated with its answer.
    """
    refused: list[bool] = []
    with serving(script=lambda request: "400_policy" if refused else None) as api:
        job = lab.job(api.url, rows=40)
        lab.go(job)
        maintenance.redo(lab.load(job), statuses=["succeeded"])
        refused.append(True)
        report = lab.go(job)
        assert (report.exit_code, report.rows) == (4, {"outdated": 40})
        assert lab.table(which="errors") == []
        refused.clear()
        again = lab.go(job)
        assert (again.run.calls, again.rows) == (40, {"succeeded": 40})


def test_a_redo_that_gave_up_says_so(lab: Lab) -> None:
    """P07 A redo that failed in three runs is no success: the row has failed, with its answer."""
    faulty: list[str] = []
    with serving(script=lambda request: faulty[0] if faulty else None) as api:
        job = lab.job(api.url, rows=1, retry={"attempts": 1})
        lab.go(job)
        maintenance.redo(lab.load(job), ["r1"])
        faulty.append("500")
        assert [lab.go(job).run.calls for _ in range(4)] == [1, 1, 1, 0]
    row = lab.table()[0]
    assert (row["status"], row["output"]) == ("failed", "answer 1")
    assert row["error"].startswith("gave_up: ")
    assert lab.table(which="errors")[0]["reason"] == "gave_up"


@pytest.mark.parametrize("fault", ["400_policy", "500"])
def test_an_edited_row_that_fails_shows_its_old_answer(lab: Lab, fault: str) -> None:
    """P08 A paid answer is never blanked: when an edited row fails, the table has its old answer
    beside the error, and reverting the edit costs nothing; so it is for a row that a failed turn
    blocks.
    """
    with serving(script=lambda request: fault if "poison" in str(request.body) else None) as api:
        rows = [("a", "ECHO:one", "x"), ("b", "ECHO:two", "x"), ("c", "ECHO:three", "y")]
        write(lab, rows, ("id", "text", "thread"))
        job = lab.job(api.url, rows=None, retry={"attempts": 1}, conversation={"id": "thread"})
        lab.go(job)
        before = lab.table()
        write(lab, [("a", "ECHO:poison", "x"), *rows[1:]], ("id", "text", "thread"))
        report = lab.go(job)
        assert (report.exit_code, report.rows) == (3, {"failed": 1, "blocked": 1, "succeeded": 1})
        table = lab.table()
        assert [row["output"] for row in table] == ["one", "two", "three"]
        assert [row["status"] for row in table] == ["failed", "blocked", "succeeded"]
        assert [row["request_id"] for row in table] == [row["request_id"] for row in before]
        (error,) = lab.table(which="errors")
        assert error["id"] == "a"
        assert table[0]["error"] == f"{error['reason']}: {error['message']}"
        write(lab, rows, ("id", "text", "thread"))
        assert lab.go(job).run.calls == 0
    assert lab.table() == before


def test_redo_of_failed_rows_asks_them_again(lab: Lab) -> None:
    """P07 A row that was refused is asked again only by redo."""
    refused = ["refused"]
    with serving(
        script=lambda request: "400_policy" if refused and "answer 1" in str(request.body) else None
    ) as api:
        job = lab.job(api.url, rows=3)
        assert lab.go(job).exit_code == 3
        assert lab.go(job).run.calls == 0
        refused.clear()
        assert maintenance.redo(lab.load(job), statuses=["failed"]) == 1
        assert queries.status(lab.load(job))["rows"] == {"pending": 1, "succeeded": 2}
        report = lab.go(job)
        assert (report.run.calls, report.exit_code, report.rows) == (1, 0, {"succeeded": 3})


def test_redo_all_asks_everything_again(lab: Lab, api: Simulator) -> None:
    """P07 All answered rows can be asked again, each once."""
    job = lab.job(api.url)
    lab.go(job)
    assert (
        maintenance.redo(lab.load(job), ["r1"], statuses=["succeeded", "failed", "incomplete"]) == 5
    )
    assert lab.go(job).run.calls == 5


def test_a_row_gives_up_after_three_runs(lab: Lab) -> None:
    """P11 A row that ended in a passing failure in three runs has failed for good, and waits for
    redo."""
    healthy: list[bool] = []

    def script(request: RequestInfo) -> str | None:
        return None if healthy or "answer 1" not in str(request.body) else "500"

    with serving(script=script) as api:
        job = lab.job(api.url, rows=2, retry={"attempts": 1})
        assert [lab.go(job).run.calls for _ in range(4)] == [2, 1, 1, 0]
        row = lab.table()[0]
        assert (row["status"], row["error"].split(":")[0]) == ("failed", "gave_up")
        assert lab.table(which="errors")[0]["reason"] == "gave_up"
        assert json.loads((lab.output() / "report.json").read_text())["job"]["failures"] == {
            "gave_up": 1
        }
        maintenance.redo(lab.load(job), ["r1"])
        assert [lab.go(job).run.calls for _ in range(4)] == [1, 1, 1, 0]
        healthy.append(True)
        maintenance.redo(lab.load(job), statuses=["failed"])
        assert lab.go(job).rows == {"succeeded": 2}


def test_three_passing_failures_of_an_edited_row_start_from_nothing(lab: Lab) -> None:
    """P11 The runs are counted under one key: an edited row is tried three times again."""
    with serving(script=lambda request: "500") as api:
        write(lab, [("a", "ECHO:one")])
        job = lab.job(api.url, rows=None, retry={"attempts": 1})
        assert [lab.go(job).run.calls for _ in range(4)] == [1, 1, 1, 0]
        write(lab, [("a", "ECHO:two")])
        assert [lab.go(job).run.calls for _ in range(4)] == [1, 1, 1, 0]


def test_limit_is_the_files_first_rows_and_can_grow(lab: Lab, api: Simulator) -> None:
    """--limit counts the file's rows, not this run's: the same limit again calls nothing, a larger
    one the difference."""
    job = lab.job(api.url, rows=10)
    calls = [lab.go(job, limit=limit).run.calls for limit in (3, 3, 5, 2)]
    assert calls == [3, 0, 2, 0]
    report = lab.go(job, limit=5)
    assert (report.rows, report.total, report.exit_code) == ({"succeeded": 5}, 5, 0)
    assert report.job.rows == {"succeeded": 5, "pending": 5}
    assert [row["status"] for row in lab.table()] == ["succeeded"] * 5 + ["pending"] * 5
    assert lab.go(job).run.calls == 5


def test_a_picture_that_is_gone_or_altered_is_drawn_again(lab: Lab, api: Simulator) -> None:
    """P08 An image row is done only while its files match their sha256; verify says which do
    not."""
    write(lab, ROWS)
    job = lab.job(
        api.url, rows=None, kind="image", request={"model": "gpt-image-2", "prompt": "{{ text }}"}
    )
    lab.go(job)
    pictures = [lab.output() / row["output"] for row in lab.table()]
    assert all(path.is_file() for path in pictures)
    assert maintenance.verify(lab.load(job)) == []
    pictures[0].unlink()
    data = bytearray(pictures[2].read_bytes())
    data[-20] ^= 1
    pictures[2].write_bytes(data)
    troubles = maintenance.verify(lab.load(job))
    assert [str(path) in "\n".join(troubles) for path in pictures] == [True, False, True]
    assert lab.go(job).run.calls == 2
    assert maintenance.verify(lab.load(job)) == []
    assert all((lab.output() / row["output"]).is_file() for row in lab.table())
    assert lab.go(job).run.calls == 0


def test_a_picture_that_redo_replaced_is_set_aside(lab: Lab, api: Simulator) -> None:
    """P33 After each redo the row's current picture has its plain name, and `images/` has no
    rejected one; these are kept in `images/replaced/`. What is not batchgen's own stays where it
    is.
    """
    write(lab, [("a", "a red cup"), ("b", "a blue cup")])
    request = {"model": "gpt-image-2", "prompt": "{{ text }}"}
    images = lab.output() / "images"
    images.mkdir(parents=True)
    mine = {"b.png": b"mine", "mine.png": b"mine, too"}
    for name, data in mine.items():
        (images / name).write_bytes(data)
    job = lab.job(api.url, rows=None, kind="image", request=request)
    lab.go(job)
    rejected: set[bytes] = set()
    for _ in range(3):
        path = lab.output() / lab.table()[0]["output"]
        rejected.add(path.read_bytes())
        maintenance.redo(lab.load(job), ["a"])
        assert lab.go(job).run.calls == 1
        one, two = (Path(row["output"]).name for row in lab.table())
        assert (one, two[:2]) == ("a.png", "b.")
        assert {each.name for each in images.iterdir() if each.is_file()} == {one, two, *mine}
        assert {name: (images / name).read_bytes() for name in mine} == mine
        assert maintenance.verify(lab.load(job)) == []
    assert {each.read_bytes() for each in (images / "replaced").iterdir()} == rejected
    write(lab, [("a", "a green cup"), ("b", "a blue cup")])
    lab.go(job)
    write(lab, [("a", "a red cup"), ("b", "a blue cup")])
    assert lab.go(job).run.calls == 0
    assert maintenance.verify(lab.load(job)) == []


def test_pictures_that_were_copied_are_read_once(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P08 Pictures with other times, as from a backup, are intact; they are read to find that out
    in one run, and not in every run after it.
    """
    write(lab, ROWS)
    job = lab.job(
        api.url, rows=None, kind="image", request={"model": "gpt-image-2", "prompt": "{{ text }}"}
    )
    lab.go(job)
    for path in (lab.output() / "images").iterdir():
        os.utime(path, ns=(1_000_000_000, 1_000_000_000))
    read: list[str] = []
    read_bytes = Path.read_bytes

    def reading(path: Path) -> bytes:
        read.append(path.suffix)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", reading)
    assert [(lab.go(job).run.calls, read.count(".png")) for _ in range(3)] == [(0, 3)] * 3
    assert maintenance.verify(lab.load(job)) == []


def test_two_equal_rows_without_ids_get_two_pictures(lab: Lab, api: Simulator) -> None:
    """P33 Equal rows without an id are told apart by their number, in the table and in the
    pictures' names."""
    write(lab, [("a", "a red cup"), ("b", "a red cup")])
    request = {"model": "gpt-image-2", "prompt": "{{ text }}"}
    job = lab.job(api.url, rows=None, kind="image", prompts=SOME, request=request)
    lab.go(job)
    names = [row["output"] for row in lab.table()]
    assert len(set(names)) == 2
    assert names[1].removesuffix(".png").endswith("-2")
    assert all((lab.output() / name).is_file() for name in names)


def test_pictures_that_are_missing_are_counted_before_they_are_drawn_again(
    lab: Lab, api: Simulator
) -> None:
    """P08 plan counts the calls that missing pictures cost, and run says so before it makes them;
    nothing is written."""
    job = lab.job(
        api.url,
        kind="image",
        request={"model": "gpt-image-2", "prompt": "{{ text }}", "size": "64x64"},
    )
    lab.go(job)
    for picture in sorted((lab.output() / "images").iterdir())[:2]:
        picture.unlink()
    before = (lab.output() / "journal.db").read_bytes()
    planned = batchgen.plan(lab.load(job))
    assert (planned.calls, planned.rows) == (2, {"pending": 2, "succeeded": 3})
    assert planned.again == {"their pictures are missing or were changed": 2}
    assert (lab.output() / "journal.db").read_bytes() == before
    messages: list[str] = []
    assert lab.go(job, say=messages.append).run.calls == 2
    assert "2 answered rows to run again because their pictures are missing" in messages[0]
    assert batchgen.plan(lab.load(job)).again == {}


def test_a_changed_picture_of_a_row_runs_that_row_again(lab: Lab, api: Simulator) -> None:
    """P08 The pictures that rows name are part of their requests: one that changed runs its row
    again, one that was only touched does not, one that is gone is told before any call."""
    pictures = Path(__file__).parent.parent / "jobs" / "pictures"
    for name, source in (("one.png", "mug.png"), ("two.png", "vase.png")):
        (lab.folder / name).write_bytes((pictures / source).read_bytes())
    write(lab, [("a", "one.png"), ("b", "two.png")])
    request = {"model": "gpt-image-2", "image": "{{ text }}", "prompt": "Make it blue"}
    job = lab.job(api.url, rows=None, kind="image_edit", request=request)
    assert lab.go(job).run.calls == 2
    (lab.folder / "two.png").write_bytes((pictures / "lamp.png").read_bytes())
    assert batchgen.plan(lab.load(job)).rows == {"succeeded": 1, "outdated": 1}
    assert lab.go(job).run.calls == 1
    (lab.folder / "one.png").write_bytes((pictures / "mug.png").read_bytes())
    assert lab.go(job).run.calls == 0
    (lab.folder / "one.png").unlink()
    with pytest.raises(batchgen.InputError, match=r"prompts.csv:2: .*one.png"):
        lab.go(job)
    assert "one.png" in queries.show(lab.load(job), "a")[0]["request"]["error"]


def test_the_audit_has_a_row_for_every_attempt(lab: Lab) -> None:
    """P46 Every attempt is one row of the audit: number, when, HTTP status, code, request id,
    tokens, wait, elapsed."""
    with serving(script=lambda request: "503" if request.seen == 1 else None) as api:
        job = lab.job(api.url, rows=1)
        lab.go(job)
        first, second = queries.show(lab.load(job), "r1")[0]["attempts"]
    assert (first["number"], first["http_status"], first["code"], first["reason"]) == (
        1,
        503,
        "server_is_overloaded",
        "server",
    )
    assert (second["number"], second["http_status"], second["reason"], second["run"]) == (
        2,
        200,
        None,
        1,
    )
    assert second["input_tokens"] > 0
    assert second["output_tokens"] > 0
    for each in (first, second):
        assert each["request_id"].startswith("req_sim_")
        assert each["started_at"] > 1.7e9
        assert each["wait"] >= 0
        assert each["elapsed"] > 0


def test_the_statuses_sum_to_the_rows_after_any_mix(lab: Lab) -> None:
    """P45 rows = succeeded + incomplete + failed + blocked + pending + outdated in the summary,
    report.json and the tables, after refusals, cut answers, an edit, a limit and a stop."""

    def script(request: RequestInfo) -> str | None:
        text = str(request.body)
        return "400_policy" if "poison" in text else "quota" if "broke" in text else None

    rows = [
        ("a", "ECHO:fine"),
        ("b", "ECHO:poison"),
        ("c", "ECHO:" + "long " * 99),
        ("d", "ECHO:fine"),
        ("e", "ECHO:x"),
    ]
    with serving(script=script) as api:
        write(lab, rows)
        job = lab.job(
            api.url, rows=None, limits={"concurrency": 1}, request=chat(max_completion_tokens=50)
        )
        lab.go(job, limit=4)
        write(lab, [("a", "ECHO:broke"), *rows[1:]])
        report = lab.go(job)
        assert report.exit_code == 4
        wanted = {"outdated": 1, "failed": 1, "incomplete": 1, "succeeded": 1, "pending": 1}
        assert report.rows == wanted
        assert report.total == sum(wanted.values()) == len(lab.table())
        written = json.loads((lab.output() / "report.json").read_text())
        assert written["job"]["rows"] == written["run"]["rows"] == wanted
        assert written["job"]["total"] == 5
        counted = [row["status"] for row in lab.table()]
        assert {status: counted.count(status) for status in counted} == wanted
        assert {row["id"] for row in lab.table(which="errors")} == {"b", "c"}
        assert queries.status(lab.load(job))["rows"] == wanted


def test_an_outdated_row_shows_its_latest_answer(lab: Lab) -> None:
    """P08 Of several paid answers an outdated row shows the last one, and a failure between hides
    none."""
    with serving(
        script=lambda request: "400_policy" if "poison" in str(request.body) else None
    ) as api:
        job = lab.job(api.url, rows=None)
        for text in ("one", "two", "poison"):
            write(lab, [("a", "ECHO:first"), ("b", f"ECHO:{text}")])
            lab.go(job)
        write(lab, [("a", "ECHO:first"), ("b", "ECHO:three")])
        lab.go(job, limit=1)
    assert shown(lab)[1] == ("b", "outdated", "two")


def test_an_edited_row_that_had_only_failed_is_pending(lab: Lab) -> None:
    """P08 A row is outdated only while there is an answer to show: after a failure alone, an edit
    makes it pending."""
    with serving(
        script=lambda request: "400_policy" if "poison" in str(request.body) else None
    ) as api:
        write(lab, [ROWS[0], ("b", "ECHO:poison")])
        job = lab.job(api.url, rows=None)
        lab.go(job)
        write(lab, ROWS[:2])
        assert batchgen.plan(lab.load(job)).rows == {"succeeded": 1, "pending": 1}


def test_a_call_that_has_ended_is_not_counted_again(lab: Lab) -> None:
    """P25 What a call reserved is free when it ends, whether it was the last of its row or not: the
    next run finds no call of a dead one, and counts nothing twice."""
    with serving(script=lambda request: "500" if request.seen == 1 else None) as api:
        job = lab.job(api.url, rows=3, limits={"max_cost": 1}, **PRICING)
        first = lab.go(job)
        assert lab.go(job).job.totals == first.job.totals
    assert first.run.calls == 6


def test_other_prompts_options_read_the_prompts_again(lab: Lab, api: Simulator) -> None:
    """P08 What the job says of its prompts is part of what pass 1 made: rows that get ids have them
    in the next run."""
    write(lab, ROWS)
    job = lab.job(api.url, rows=None, prompts=SOME)
    lab.go(job)
    lab.job(api.url, rows=None, prompts={**SOME, "id": "id"})
    lab.go(job)
    assert _ids(lab, job) == ["a", "b", "c"]


def test_a_new_column_in_the_way_of_another_is_refused_before_any_call(
    lab: Lab, api: Simulator
) -> None:
    """P30 A column of the job's own that is a column of the prompts is refused when it is added
    between two runs, too."""
    job = lab.job(api.url)
    lab.go(job, limit=2)
    lab.job(api.url, output={"columns": {"text": "{{ output }}"}})
    received = api.requests.received
    with pytest.raises(batchgen.InputError, match="text"):
        lab.go(job)
    assert api.requests.received == received


def test_verify_hashes_every_picture(lab: Lab, api: Simulator) -> None:
    """P35 A picture that was altered, its size and its time kept, is found by verify."""
    write(lab, ROWS[:1])
    job = lab.job(
        api.url, rows=None, kind="image", request={"model": "gpt-image-2", "prompt": "{{ text }}"}
    )
    lab.go(job)
    picture = lab.output() / lab.table()[0]["output"]
    about, data = picture.stat(), bytearray(picture.read_bytes())
    data[-20] ^= 1
    picture.write_bytes(data)
    os.utime(picture, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert [trouble.split(":")[0] for trouble in maintenance.verify(lab.load(job))] == [
        str(picture)
    ]


def test_a_picture_that_changes_during_the_run_is_not_sent_under_the_old_key(lab: Lab) -> None:
    """P08 What is sent is what the key was made of: a row whose picture changed meanwhile waits for
    the next run."""
    pictures = Path(__file__).parent.parent / "jobs" / "pictures"

    def script(request: RequestInfo) -> None:
        (lab.folder / "two.png").write_bytes((pictures / "lamp.png").read_bytes())

    for name, source in (("one.png", "mug.png"), ("two.png", "vase.png")):
        (lab.folder / name).write_bytes((pictures / source).read_bytes())
    write(lab, [("a", "one.png"), ("b", "two.png")])
    request = {"model": "gpt-image-2", "image": "{{ text }}", "prompt": "Make it blue"}
    with serving(script=script) as api:
        job = lab.job(
            api.url, rows=None, kind="image_edit", request=request, limits={"concurrency": 1}
        )
        report = lab.go(job)
        assert (report.run.calls, report.rows) == (1, {"succeeded": 1, "failed": 1})
        assert "has changed since the run began" in lab.table()[1]["error"]
        assert lab.go(job).rows == {"succeeded": 2}


def test_the_cap_of_a_job_holds_over_all_its_runs(lab: Lab, api: Simulator) -> None:
    """P25 limits.max_cost counts what earlier runs spent: run after run, the job never passes
    it."""
    prices: dict[str, Any] = {"pricing": {"gpt-5.6-luna": {"input": 1, "output": 10}}}
    job = lab.job(api.url, rows=100, limits={"max_cost": 0.002, "concurrency": 4}, **prices)
    reports: list[Any] = [lab.go(job) for _ in range(3)]
    assert [report.exit_code for report in reports] == [5, 5, 5]
    assert 0 < reports[0].job.totals.cost == reports[-1].job.totals.cost <= 0.002


def test_the_line_counts_every_status(lab: Lab) -> None:
    """P45 The line names every status that a row can have: its counts sum to its rows, blocked
    turns too."""
    rows = [
        ("a", "ECHO:poison"),
        ("a", "ECHO:y"),
        ("b", "ECHO:x"),
        ("c", "ECHO:" + "long " * 99),
        ("d", "ECHO:z"),
    ]
    with serving(
        script=lambda request: "400_policy" if "poison" in str(request.body) else None
    ) as api:
        write(lab, rows, ("talk", "text"))
        job = lab.job(
            api.url,
            rows=None,
            prompts=SOME,
            conversation={"id": "talk"},
            request=chat(max_completion_tokens=50),
        )
        lab.go(job, limit=4)
        report = lab.go(job, limit=4)
    assert set(report.rows) == {"failed", "blocked", "succeeded", "incomplete"}
    counts = report.line().split(": ")[2].split(";")[0]
    assert counts == ", ".join(
        f"{report.rows[status]} {status}" for status in STATUSES if status in report.rows
    )
    assert sum(int(each.split()[0]) for each in counts.split(", ")) == report.total == 4
