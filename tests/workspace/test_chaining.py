"""The answers of one job as the prompts of another: only answers, and only what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving

import batchgen
from batchgen import Options, maintenance, plan, queries
from batchgen.simulator import Simulator
from batchgen.tables import ChainedRow, ChainedRows

NOWHERE = "http://127.0.0.1:9/v1"


def second(lab: Lab, url: str, content: str = "ECHO:on {{ output }}", **prompts: Any) -> Path:
    """A job over the answers of `job.yaml`."""
    request = {
        "model": "gpt-5.6-luna",
        "messages": [{"role": "user", "content": content}],
        "max_completion_tokens": 100,
    }
    keys = {"job": "job.yaml", **prompts}
    return lab.job(url, "second", rows=None, prompts=keys, request=request, output={"prefix": "b_"})


def refusal(lab: Lab, job: Path) -> str:
    with pytest.raises(batchgen.InputError) as caught:
        plan(lab.load(job))
    return str(caught.value)


@pytest.mark.parametrize("order", [("job", "second"), ("second", "job")])
def test_both_in_one_command(lab: Lab, api: Simulator, order: tuple[str, str]) -> None:
    """P07 The second job runs on what the first one brought, wherever it stands in the command;
    again, no call is made.
    """
    lab.job(api.url)
    second(lab, api.url)
    command = ["run", *(f"{name}.yaml" for name in order)]
    done = lab.run(*command)
    assert done.returncode == 0, done.stderr
    table = lab.table("second")
    assert [row["id"] for row in table] == ["r1", "r2", "r3", "r4", "r5"]
    assert [row["b_output"] for row in table] == [f"on answer {n}" for n in range(1, 6)]
    assert [row["output"] for row in table] == [f"answer {n}" for n in range(1, 6)]
    assert queries.show(lab.load(lab.folder / "second.yaml"), "r3")[0]["status"] == "succeeded"
    assert api.requests.received == 10
    assert lab.run(*command).stdout.count("no call made") == 2
    assert api.requests.received == 10


def test_what_is_asked_anew_runs_on_where_the_answer_changed(lab: Lab) -> None:
    """P08 After a redo of the first job exactly the rows of the second run whose answers are other
    ones.
    """
    with serving() as api:
        (lab.folder / "prompts.csv").write_text(
            "id,text\na,ECHO:same\nb,ECHO:same too\n", encoding="utf-8"
        )
        job, after = lab.job(api.url, rows=None), second(lab, api.url)
        lab.go(job)
        assert lab.go(after).run.calls == 2
        maintenance.redo(lab.load(job), ["a", "b"])
        assert plan(lab.load(after)).left_out == {"prompts.job": 2}
        assert lab.go(job).run.calls == 2
        assert lab.go(after).run.calls == 0
        (lab.folder / "prompts.csv").write_text(
            "id,text\na,ECHO:same\nb,ECHO:another\n", encoding="utf-8"
        )
        assert lab.go(job).run.calls == 1
        assert lab.go(after).run.calls == 1
        assert [row["b_output"] for row in lab.table("second")] == ["on same", "on another"]


def test_rows_without_an_answer_are_left_out_and_counted(lab: Lab, api: Simulator) -> None:
    """P08 Nothing is paid for a row that has no answer yet; it comes in when it has one."""
    job, after = lab.job(api.url), second(lab, api.url)
    lab.go(job, limit=2)
    planned = plan(lab.load(after))
    assert (planned.total, planned.left_out) == (2, {"prompts.job": 3})
    report = lab.go(after)
    assert "3 rows not answered yet by the job in prompts.job" in report.line()
    assert report.run.calls == 2
    lab.go(job)
    report = lab.go(after)
    assert (report.run.calls, report.rows) == (3, {"succeeded": 5})


def test_failed_rows_come_with_their_status(lab: Lab, api: Simulator) -> None:
    """A row that failed has no output, so that its prompt is empty; an expression leaves it out."""
    (lab.folder / "prompts.csv").write_text("id,text\na,ECHO:x\nb\n", encoding="utf-8")
    keys = {"path": "prompts.csv", "id": "id", "bad_rows": "fail"}
    lab.go(lab.job(api.url, rows=None, prompts=keys))
    assert "1 row has an empty prompt" in refusal(lab, second(lab, api.url))
    after = second(lab, api.url, where='status == "succeeded"')
    assert lab.go(after).rows == {"succeeded": 1}


def test_columns_keep_their_types(lab: Lab, api: Simulator) -> None:
    """P29 Lists and numbers of the first job's prompts, its axes and its own columns come as they
    are, and a job with a matrix gives each combination an id of its own.
    """
    (lab.folder / "p.jsonl").write_text('{"id": "a", "tags": ["x", "y"]}\n', encoding="utf-8")
    job = lab.job(
        api.url,
        prompts={"path": "p.jsonl", "id": "id"},
        matrix={"level": [1, 2]},
        request={
            "model": "gpt-5.6-luna",
            "messages": [{"role": "user", "content": 'ECHO:{"n": {{ level }}}'}],
        },
        output={"columns": {"n": "{{ json.n }}"}, "wide": "level", "columns_of_own": ["output"]},
    )
    lab.go(job)
    after = second(lab, api.url, "ECHO:{{ tags[1] }} {{ n + level }} {{ status }}")
    lab.go(after)
    assert [row["b_output"] for row in lab.table("second")] == ["y 2 succeeded", "y 4 succeeded"]
    for level, answer in ((1, "y 2 succeeded"), (2, "y 4 succeeded")):
        (shown,) = queries.show(lab.load(after), json.dumps(["a", level], separators=(",", ":")))
        assert shown["outcome"]["response"]["choices"][0]["message"]["content"] == answer


def test_choices_are_rows_of_their_own(lab: Lab, api: Simulator) -> None:
    """P09 Several answers to one request are several rows with several ids."""
    request = {
        "model": "gpt-5.6-luna",
        "n": 2,
        "messages": [{"role": "user", "content": "{{ text }}"}],
    }
    lab.go(lab.job(api.url, rows=2, request=request))
    after = second(lab, api.url, "ECHO:{{ choice }}")
    assert lab.go(after).rows == {"succeeded": 4}
    assert [row["b_output"] for row in lab.table("second")] == ["1", "2", "1", "2"]


def test_pictures_of_the_first_job_can_be_shown(lab: Lab, api: Simulator) -> None:
    """P36 Rows may name the pictures that the first job drew, and no other files."""
    request = {"model": "gpt-image-2", "prompt": "{{ text }}", "size": "1024x1024"}
    lab.go(lab.job(api.url, rows=1, kind="image", request=request))
    after = second(lab, api.url, "{{ (output | data_url).startswith('data:image/png') }}")
    first = plan(lab.load(after)).first
    assert first is not None
    assert json.dumps(first["body"]["messages"][0]["content"]).strip('"') == "true"


def test_the_pass_is_skipped_while_the_answers_are_the_same(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P31 Nothing is read again while nothing was written to the first job's journal."""
    job, after = lab.job(api.url), second(lab, api.url)
    lab.go(job)
    lab.go(after)
    read: list[int] = []
    original = ChainedRows.__iter__

    def counted(self: ChainedRows) -> Iterator[ChainedRow]:
        read.append(1)
        return original(self)

    monkeypatch.setattr(ChainedRows, "__iter__", counted)
    lab.go(after)
    assert not read
    lab.go(job)
    assert lab.go(after).run.calls == 0
    assert read


def test_a_rehearsal_reads_the_rehearsal(lab: Lab, api: Simulator) -> None:
    """P40 --simulate and --output hold for both jobs: nothing simulated is taken for real."""
    job, after = lab.job(api.url), second(lab, api.url)
    lab.go(job)
    with pytest.raises(batchgen.InputError, match=r"run it first: batchgen run .*--simulate"):
        plan(lab.load(after), simulate=True)
    root = lab.folder / "elsewhere"
    for path in (job, after):
        batchgen.run(lab.load(path), Options(simulate=True, output=root))
    assert (root / "second.simulated" / "results.csv").exists()


def test_chains_that_are_wrong(lab: Lab) -> None:
    """P30 A job that never ran, is missing, waits for itself or has the same folder, and two
    sources or none: each is one sentence with the line of the job.
    """
    lab.job(NOWHERE)
    assert "job.yaml: has not been run yet; run it first: batchgen run" in refusal(
        lab, second(lab, NOWHERE)
    )
    assert "there is no job file" in refusal(lab, second(lab, NOWHERE, job="nowhere.yaml"))
    assert "wait for each other: second.yaml -> second.yaml" in refusal(
        lab, second(lab, NOWHERE, job="second.yaml")
    )
    lab.job(NOWHERE, "third", rows=None, prompts={"job": "second.yaml"})
    assert "second.yaml -> third.yaml -> second.yaml" in refusal(
        lab, second(lab, NOWHERE, job="third.yaml")
    )
    done = lab.run("run", "second.yaml", "third.yaml")
    assert done.returncode == 2
    assert "wait for each other" in done.stderr
    for prompts in ({"path": "p.csv", "job": "job.yaml"}, {"id": "x"}):
        wrong = lab.job(NOWHERE, "wrong", rows=None, prompts=prompts)
        with pytest.raises(batchgen.InputError, match=r"needs either path \(a prompts file, or -"):
            lab.load(wrong)
    text = second(lab, NOWHERE).read_text(encoding="utf-8")
    (lab.folder / "same.yaml").write_text(text.replace("{", '{"name": "job",', 1), encoding="utf-8")
    assert "has the output folder of this one" in refusal(lab, lab.folder / "same.yaml")


def test_other_prompts_take_the_place_of_a_job(lab: Lab, api: Simulator) -> None:
    """--prompts is a file, also for a job whose prompts are another job's answers."""
    after = second(lab, api.url, "{{ text }}")
    lab.prompts(2)
    done = lab.run("run", after, "--prompts", "prompts.csv")
    assert done.returncode == 0, done.stderr
    assert len(lab.table("second")) == 2
