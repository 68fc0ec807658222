"""plan, status, show, results: what can be asked without sending anything."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving

import batchgen
from batchgen import maintenance, queries
from batchgen.journal import Journal, find_damage
from batchgen.simulator import RequestInfo, Simulator
from batchgen.workspace import Workspace

NOWHERE = "http://127.0.0.1:9/v1"


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_plan_sends_and_writes_nothing(lab: Lab, api: Simulator) -> None:
    """P05 plan reads everything, sends nothing and makes no folder; it needs no key."""
    job = batchgen.load_job(lab.job(api.url, rows=3, limits={"requests_per_minute": 2}), environ={})
    before = files(lab.folder)
    planned = batchgen.plan(job)
    assert files(lab.folder) == before
    assert not lab.output().exists()
    assert api.requests.received == 0
    assert (planned.rows, planned.total, planned.calls) == ({"pending": 3}, 3, 3)
    assert planned.seconds == 90
    assert planned.first is not None
    assert planned.first["body"]["messages"][0]["content"] == "ECHO:answer 1"
    assert batchgen.plan(job, limit=2).calls == 2


def test_a_plan_counts_what_a_run_then_does(lab: Lab) -> None:
    """P08 The calls that plan counts are the calls that run makes, for new, changed, failed and
    blocked rows.
    """
    broken = ["answer 2"]
    with serving(
        script=lambda request: "500" if broken and broken[0] in str(request.body) else None
    ) as api:
        job = lab.job(api.url, rows=4, retry={"attempts": 1})
        lab.go(job)
        broken.clear()
        lab.prompts(6)
        planned = batchgen.plan(lab.load(job))
        assert planned.calls == 3
        assert lab.go(job).run.calls == 3
        assert batchgen.plan(lab.load(job)).calls == 0


@pytest.mark.parametrize("fault", ["400_policy", "500"])
def test_a_plan_counts_the_turns_that_a_run_then_sends(lab: Lab, fault: str) -> None:
    """P08 plan and the announcement of run count blocked turns only behind a turn that is going to
    be tried: none behind a refusal, all behind a passing failure, and never a turn behind one that
    no run retries.
    """
    broken = ["answer 1"]

    def script(request: RequestInfo) -> str | None:
        return fault if broken and broken[0] in str(request.body["messages"]) else None

    with serving(script=script) as api:
        lines = ["a,t,ECHO:answer 1", "b,t,ECHO:answer 2", "c,t,ECHO:answer 3", "d,u,ECHO:answer 4"]
        (lab.folder / "prompts.csv").write_text(
            "\n".join(["id,thread,text", *lines]) + "\n", encoding="utf-8"
        )
        parts: dict[str, Any] = {
            "rows": None,
            "conversation": {"id": "thread"},
            "retry": {"attempts": 1},
        }
        job = lab.job(api.url, **parts)
        assert lab.go(job).rows == {"failed": 1, "blocked": 2, "succeeded": 1}
        broken.clear()
        planned = batchgen.plan(lab.load(job))
        assert planned.calls == (0 if fault == "400_policy" else 3)
        assert lab.go(job).run.calls == planned.calls
        maintenance.redo(lab.load(job), statuses=["failed"])
        planned = batchgen.plan(lab.load(job))
        assert planned.calls == (3 if fault == "400_policy" else 0)
        assert lab.go(job).run.calls == planned.calls
        assert lab.go(job).rows == {"succeeded": 4}


def test_a_turn_marked_behind_one_that_stops_is_not_planned(lab: Lab, api: Simulator) -> None:
    """P08 No run sends a turn marked by redo that stands behind a turn which no run tries. So plan
    does not count it, and a run with nothing else to do needs no key.
    """
    path, text = lab.folder / "prompts.csv", "id,thread,text\na,t,ECHO:one\nb,t,ECHO:two\n"
    path.write_text(text, encoding="utf-8")
    job = lab.job(api.url, rows=None, conversation={"id": "thread"}, request=_cut(3))
    assert lab.go(job).rows == {"incomplete": 1, "blocked": 1}
    lab.job(
        api.url,
        rows=None,
        conversation={"id": "thread"},
        request=_cut(3),
        output={"accept": ["length"]},
    )
    assert lab.go(job).rows == {"succeeded": 2}
    lab.job(api.url, rows=None, conversation={"id": "thread"}, request=_cut(3))
    assert maintenance.redo(lab.load(job), ["b"]) == 1
    assert batchgen.plan(lab.load(job)).calls == 0
    assert lab.go(job).run.calls == 0
    assert [row["output"] != "" for row in lab.table()] == [True, True]


def _cut(tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "{{ text }} and a good many words more"}]
    return {"model": "gpt-5.6-luna", "messages": messages, "max_completion_tokens": tokens}


def test_verify_asks_for_the_pictures_that_the_tables_show(lab: Lab, api: Simulator) -> None:
    """P08 verify checks the pictures of the answers that the tables show, those of outdated rows
    too, and not those of an answer that a newer one has replaced.
    """

    def drawing(prompt: str) -> Path:
        return lab.job(
            api.url, kind="image", rows=2, request={"model": "gpt-image-2", "prompt": prompt}
        )

    job = drawing("a {{ text }}")
    lab.go(job)
    old = sorted((lab.output() / "images").iterdir())
    drawing("b {{ text }}")
    lab.go(job, limit=1)
    shown = {lab.output() / row["output"] for row in lab.table()}
    assert len(shown & set(old)) == 1
    for picture in old:
        picture.unlink()
    (trouble,) = maintenance.verify(lab.load(job))
    assert str(next(iter(shown & set(old)))) in trouble
    lab.go(job)
    assert maintenance.verify(lab.load(job)) == []


def test_verify_while_a_run_replaces_a_picture(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P02 verify reads one state of the journal: a picture that a run replaces meanwhile is no
    damage.
    """
    request = {"model": "gpt-image-2", "prompt": "{{ text }}"}
    job = lab.job(api.url, kind="image", rows=2, request=request)
    lab.go(job)

    def find_and_replace(journal: Journal) -> Iterator[str]:
        yield from find_damage(journal)
        maintenance.redo(lab.load(job), ["r1"])
        assert lab.go(job).run.calls == 1

    monkeypatch.setattr(maintenance, "find_damage", find_and_replace)
    assert maintenance.verify(lab.load(job)) == []


def test_another_job_in_the_same_folder_is_reported(lab: Lab, api: Simulator) -> None:
    """P08 A job whose output folder another job file used last says so, once, before its rows
    replace the other's. A renamed job file is the same job. Nothing recorded is lost.
    """
    messages: list[str] = []
    one = lab.job(api.url, name="one", rows=2, output={"dir": "shared"})
    two = lab.job(api.url, name="two", rows=None, output={"dir": "shared"}, request=_cut(20))
    lab.go(one, say=messages.append)
    assert messages == []
    lab.go(two, say=messages.append)
    assert f"shared was last used by {one}; its rows leave the tables" in messages[0]
    messages.clear()
    lab.go(two, say=messages.append)
    assert messages == []
    assert lab.go(one, say=messages.append).run.calls == 0
    assert f"shared was last used by {two}" in messages[0]
    messages.clear()
    renamed = one.rename(lab.folder / "three.yaml")
    lab.prompts(3)
    assert lab.go(renamed, say=messages.append).run.calls == 1
    assert messages == []


def test_status_comes_from_the_journal_alone(lab: Lab, api: Simulator) -> None:
    """P45 status counts without the prompts, and says how the last run ended."""
    job = lab.job(api.url, rows=4)
    lab.go(job, limit=3)
    (lab.folder / "prompts.csv").unlink()
    shown = queries.status(lab.load(job))
    assert shown["rows"] == {"succeeded": 3, "pending": 1}
    assert (shown["total"], shown["calls"]) == (4, 3)
    assert (shown["last_run"]["run"], shown["last_run"]["exit_code"]) == (1, 0)


def test_show_tells_everything_of_a_row(lab: Lab) -> None:
    """P46 show has a row's request, its answer and every attempt, as plain JSON."""
    with serving(script=lambda request: "500" if request.seen == 1 else None) as api:
        job = lab.job(api.url, rows=2)
        lab.go(job)
    (shown,) = json.loads(json.dumps(queries.show(lab.load(job), "r2")))
    assert (shown["id"], shown["line"], shown["status"]) == ("r2", 3, "succeeded")
    assert shown["request"]["body"]["messages"][0]["content"] == "ECHO:answer 2"
    assert shown["outcome"]["response"]["choices"][0]["message"]["content"] == "answer 2"
    assert [each["http_status"] for each in shown["attempts"]] == [500, 200]
    with pytest.raises(
        batchgen.InputError, match="r22: this job has no row with this id; did you mean 'r2'"
    ):
        queries.show(lab.load(job), "r22")


def test_show_of_a_job_that_has_changed_says_what_is_wrong(lab: Lab, api: Simulator) -> None:
    """P08 A row of which no request can be made any more is shown all the same, with the reason."""
    job = lab.job(api.url, rows=1)
    lab.go(job)
    body = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "{{ 1 // 0 }}"}]}
    lab.job(api.url, rows=None, request=body)
    (shown,) = queries.show(lab.load(job), "r1")
    assert "division" in shown["request"]["error"] or "zero" in shown["request"]["error"]
    assert shown["outcome"]["status"] == "succeeded"


def test_the_python_api_gives_the_table_as_a_frame(lab: Lab, api: Simulator) -> None:
    """P29 results() is the results table: its columns, its order, its cells."""
    job = lab.job(api.url, rows=3)
    lab.go(job)
    frame = batchgen.results(lab.load(job))
    assert list(frame["output"]) == ["answer 1", "answer 2", "answer 3"]
    assert list(frame.columns) == list(lab.table()[0])


def test_simulated_and_real_results_stay_apart(lab: Lab, api: Simulator) -> None:
    """P08 What was simulated is in a folder of its own and never stands for an answer."""
    job = lab.job(api.url, rows=2)
    lab.go(job, simulate=True)
    assert not lab.output().exists()
    assert batchgen.plan(lab.load(job)).calls == 2
    assert lab.go(job).run.calls == 2
    assert queries.status(lab.load(job), simulate=True)["simulated"] is True
    assert list(batchgen.results(lab.load(job), simulate=True)["status"]) == ["succeeded"] * 2


def test_the_second_of_two_at_once_is_busy(lab: Lab, api: Simulator) -> None:
    """P06 redo takes the job's lock as run does: while another process holds it, redo ends at once
    with 75. Reading needs no lock.
    """
    job = lab.load(lab.job(api.url, rows=2))
    batchgen.run(job)
    with Workspace.of(job).locked():
        for ask in (lambda: maintenance.redo(job, ["r1"]), lambda: batchgen.run(job)):
            with pytest.raises(batchgen.BusyError) as caught:
                ask()
            assert caught.value.exit_code == 75
        assert queries.status(job)["rows"] == {"succeeded": 2}
        maintenance.export(job)
    assert maintenance.redo(job, ["r1"]) == 1


def test_a_planted_link_is_not_followed(lab: Lab, api: Simulator) -> None:
    """P34 A symlink in place of the journal, the lock or a table is refused or replaced, never
    followed.
    """
    victim = lab.folder / "victim"
    victim.write_text("precious", encoding="utf-8")
    for name in ("journal.db", ".lock", "journal.db-wal"):
        job = lab.load(lab.job(api.url, name="linked", rows=1))
        folder = lab.output("linked")
        folder.mkdir(parents=True, exist_ok=True)
        os.symlink(victim, folder / name)
        with pytest.raises(batchgen.OutputError, match="is a link"):
            batchgen.run(job)
        for left in folder.iterdir():
            left.unlink()
    os.symlink(victim, folder / "results.csv")
    batchgen.run(job)
    assert victim.read_text(encoding="utf-8") == "precious"
    assert stat.S_ISREG((folder / "results.csv").lstat().st_mode)


def test_nothing_simulated_stands_for_an_answer(lab: Lab) -> None:
    """P08 A row's simulated request and its real one have different fingerprints, wherever the
    journals are.
    """
    job = lab.load(lab.job("http://127.0.0.1:9/v1"))
    real, simulated = (
        Workspace.of(job, simulate=each).renderer.request({"id": "r1", "text": "x"}, {})
        for each in (False, True)
    )
    assert real.body == simulated.body
    assert real.fingerprint != simulated.fingerprint
