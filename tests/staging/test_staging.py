"""Pass 1: everything wrong is known before anything is sent, and the pass is skipped while nothing
has changed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from lab import Lab

import batchgen
from batchgen import Options, maintenance, queries
from batchgen.journal import rows_with_outcomes
from batchgen.simulator import Simulator
from batchgen.workspace import Workspace

NOWHERE = "http://127.0.0.1:9/v1"


def csv_of(lab: Lab, text: str) -> Path:
    path = lab.folder / "prompts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def piped(text: str) -> BinaryIO:
    return io.BufferedReader(io.BytesIO(text.encode()))


def refused(lab: Lab, job: Path) -> str:
    with pytest.raises(batchgen.InputError) as caught:
        lab.go(job)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_duplicate_ids_are_refused_with_both_lines(lab: Lab, api: Simulator) -> None:
    """P09 Duplicate ids are refused before any call, with both line numbers, all of them at
    once."""
    csv_of(lab, "id,text\na,1\nb,2\na,3\n\nb,4\n")
    message = refused(lab, lab.job(api.url, rows=None)).splitlines()
    assert message == [
        "prompts.csv:4: id 'a' is the id of line 2 already",
        "prompts.csv:6: id 'b' is the id of line 3 already",
    ]
    assert api.requests.received == 0


@pytest.mark.parametrize("after", [b'"c,5\n', b"c,\xff\n"])
def test_duplicate_ids_are_reported_of_a_file_that_is_broken_later(lab: Lab, after: bytes) -> None:
    """P09 P30 A file that cannot be read to its end has its duplicate ids reported as well, up to
    there."""
    (lab.folder / "prompts.csv").write_bytes(b"id,text\na,1\na,3\n" + after)
    message = refused(lab, lab.job(NOWHERE, rows=None)).splitlines()
    assert message[0] == "prompts.csv:3: id 'a' is the id of line 2 already"
    assert message[1].startswith("prompts.csv:4: ")


def test_ids_that_read_alike_are_one(lab: Lab) -> None:
    """P09 The number 1 and the text "1" of a JSONL are one id; 1 and 01, A and a are not."""
    (lab.folder / "p.jsonl").write_text(
        '{"id": 1, "text": "x"}\n{"id": "1", "text": "y"}\n', encoding="utf-8"
    )
    job = lab.job(NOWHERE, prompts={"path": "p.jsonl", "id": "id"})
    assert "p.jsonl:2: id '1' is the id of line 1 already" in refused(lab, job)
    csv_of(lab, "id,text\n1,x\n01,x\nA,x\na,x\n")
    assert batchgen.plan(lab.load(lab.job(NOWHERE, rows=None))).total == 4


@pytest.mark.parametrize("bad_rows", ["refuse", "fail"])
def test_duplicate_ids_are_refused_whatever_bad_rows_says(lab: Lab, bad_rows: str) -> None:
    """P09 Of two rows of one name neither is the wrong one: bad_rows: fail does not let them
    pass."""
    csv_of(lab, "id,text\na,1\na,3\n")
    prompts = {"path": "prompts.csv", "id": "id", "bad_rows": bad_rows}
    assert "line 2 already" in refused(lab, lab.job(NOWHERE, rows=None, prompts=prompts))


def test_what_stands_for_an_id_is_nobodys_id(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P09 A broken row whose id cannot be read is called by its number, and a row that has these
    words for an id is no duplicate of it; a row that fails under its own id has that id all the
    same, however far behind the other comes."""
    monkeypatch.setattr("batchgen.staging.rows.GROUP", 2)
    prompts = {"path": "prompts.csv", "id": "id", "bad_rows": "fail"}
    body = {
        "model": "gpt-5.6-luna",
        "messages": [{"role": "user", "content": "{{ 1 // (text | int) }}"}],
    }
    csv_of(lab, "id,text\n,1\na,1\nb,1\nrow 1,1\n")
    assert (
        batchgen.plan(lab.load(lab.job(NOWHERE, rows=None, prompts=prompts, request=body))).total
        == 4
    )
    csv_of(lab, "id,text\nrow 1,0\na,1\nb,1\nrow 1,1\n")
    message = refused(lab, lab.job(NOWHERE, rows=None, prompts=prompts, request=body))
    assert "prompts.csv:5: id 'row 1' is the id of line 2 already" in message


def test_every_problem_is_reported_at_once_and_nothing_is_staged(lab: Lab, api: Simulator) -> None:
    """P30 Ragged rows, empty ids and templates that fail are reported together, in file order,
    before any call; the journal is left as it was."""
    job = lab.job(api.url)
    lab.go(job)
    body = {
        "model": "gpt-5.6-luna",
        "messages": [{"role": "user", "content": "{{ 1 // (text | int) }}"}],
    }
    csv_of(lab, "id,text\na,0\n,1\nb,1,2\nc,1\n")
    message = refused(lab, lab.job(api.url, rows=None, request=body)).splitlines()
    assert [line.split(": ")[0] for line in message] == [
        "prompts.csv:2",
        "prompts.csv:3",
        "prompts.csv:4",
    ]
    assert "job.yaml:" in message[0]
    assert "prompts.id" in message[1]
    assert api.requests.received == 5
    assert queries.status(lab.load(job))["rows"] == {"succeeded": 5}


def test_many_problems_are_counted_and_the_first_shown(lab: Lab) -> None:
    """P30 A thousand bad rows are a screenful and a count; those with one fault are one line."""
    csv_of(lab, "id,text\n" + "".join(f"{n}\n" for n in range(1000)))
    assert refused(lab, lab.job(NOWHERE, rows=None)) == (
        "prompts.csv:2: expected 2 cells, found 1 (also in lines 3, 4, 5, 6, 7 and 994 more)"
    )
    csv_of(lab, "id,text\n" + "".join(f"{n}{',x' * n}\n" for n in range(2, 1000)))
    message = refused(lab, lab.job(NOWHERE, rows=None)).splitlines()
    assert len(message) < 30
    assert message[-1].startswith("... and 9")


def test_bad_rows_may_fail_and_keep_their_place(lab: Lab, api: Simulator) -> None:
    """P30 With bad_rows: fail a broken row is a failed one, reason input, in its place, and the
    others run; mended, it runs alone."""
    csv_of(lab, "id,text\na,ECHO:one\nb,ECHO:two,ragged\n,ECHO:three\nd,ECHO:four\n")
    prompts = {"path": "prompts.csv", "id": "id", "bad_rows": "fail"}
    job = lab.job(api.url, rows=None, prompts=prompts)
    report = lab.go(job)
    assert (report.exit_code, report.rows, report.run.calls) == (
        3,
        {"succeeded": 2, "failed": 2},
        2,
    )
    assert report.job.failures == {"input": 2}
    table = lab.table()
    assert [(row["status"], row["output"]) for row in table] == [
        ("succeeded", "one"),
        ("failed", ""),
        ("failed", ""),
        ("succeeded", "four"),
    ]
    assert all(row["error"].startswith("input: line ") for row in table[1:3])
    assert [row["reason"] for row in lab.table(which="errors")] == ["input", "input"]
    assert lab.go(job).run.calls == 0
    assert maintenance.redo(lab.load(job), statuses=["failed"]) == 0
    csv_of(lab, "id,text\na,ECHO:one\nb,ECHO:two\nc,ECHO:three\nd,ECHO:four\n")
    assert lab.go(job).run.calls == 2
    assert lab.go(job).rows == {"succeeded": 4}


def test_a_cap_on_money_needs_a_bound_and_names_the_field(lab: Lab, api: Simulator) -> None:
    """P25 Under max_cost a request without a cap on its answer, or without a price, is refused with
    exit 2 that names the field, once; also when the cap comes after the job was staged."""
    pricing = {"gpt-5.6-luna": {"input": 1, "output": 1}}
    body = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "{{ text }}"}]}
    job = lab.job(api.url, request=body, pricing=pricing)
    lab.go(job, limit=1)
    lab.job(api.url, request=body, pricing=pricing, limits={"max_cost": 1})
    message = refused(lab, job)
    assert message.startswith("job.yaml:") or "job.yaml:" in message
    assert "limits.max_cost" not in message or "max_completion_tokens" in message
    assert message.count("max_completion_tokens") == 1
    with pytest.raises(batchgen.InputError, match="max_completion_tokens"):
        lab.go(lab.job(api.url, request=body, pricing=pricing), max_cost=1.0)
    lab.job(
        api.url,
        request={**body, "model": "no-such-model", "max_completion_tokens": 9},
        limits={"max_cost": 1},
    )
    assert "pricing.no-such-model" in refused(lab, job)
    stored = {**body, "web_search_options": {}, "max_completion_tokens": 9}
    assert "'web_search_options'" in refused(
        lab, lab.job(api.url, request=stored, pricing=pricing, limits={"max_cost": 1})
    )
    assert api.requests.received == 1


def test_the_pass_is_skipped_while_nothing_has_changed(
    lab: Lab, api: Simulator, renderings: list[str]
) -> None:
    """P31 While the prompts and the job are unchanged nothing is read or rendered again: not by
    run, plan, or another knob; a touched file is only hashed, a changed price or cap is counted
    anew."""
    job = lab.job(api.url)

    def again(**parts: Any) -> int:
        renderings.clear()
        lab.job(api.url, rows=None, **parts)
        lab.go(job)
        return len(renderings)

    assert again() == 10
    assert again() == 0
    (lab.folder / "prompts.csv").touch()
    assert again() == 0
    assert again(limits={"concurrency": 2}, output={"tables": ["jsonl"]}) == 0
    assert again(pricing={"gpt-5.6-luna": {"input": 1, "output": 1}}) == 5
    assert again() == 5
    renderings.clear()
    batchgen.plan(lab.load(job))
    assert len(renderings) == 1  # the first request, to be shown


def test_other_prices_are_another_pass(
    lab: Lab, api: Simulator, renderings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P25 What a request costs at the most is found anew when the job goes to another server,
    though provider.name keeps its requests the same, and when genai-prices is another version: a
    cap never rests on prices that are no longer so."""
    known = {"base_url": "https://api.openai.com/v1", "name": "mine"}
    messages = [{"role": "user", "content": "{{ text }}"}]
    request = {"model": "gpt-4o-mini", "messages": messages, "max_completion_tokens": 9}
    job = lab.job(provider=known, limits={"max_cost": 1}, request=request)

    def stage() -> None:
        workspace = Workspace.of(lab.load(job))
        with workspace.locked(), workspace.open() as journal:
            workspace.stage(journal, capped=True)

    stage()
    stage()
    assert len(renderings) == 5
    monkeypatch.setattr("batchgen.staging.result.version", lambda name: "0.0.0")
    stage()
    assert len(renderings) == 10
    lab.job(
        provider={"base_url": api.url, "name": "mine"},
        rows=None,
        limits={"max_cost": 1},
        request=request,
    )
    assert f"pricing.gpt-4o-mini: genai-prices does not know this model at {api.url}" in refused(
        lab, job
    )
    assert api.requests.received == 0


def test_prompts_from_a_stream_are_staged(lab: Lab, api: Simulator) -> None:
    """P07 Prompts from stdin are kept: the same command with an empty stdin, as under cron, goes on
    with them and says so; new ones replace them."""
    job = lab.job(api.url, prompts={"path": "-", "format": "csv", "id": "id"})
    loaded = lab.load(job)
    messages: list[str] = []
    with pytest.raises(batchgen.InputError, match="stdin: is empty"):
        batchgen.run(loaded, Options(stdin=piped("")))
    first = batchgen.run(loaded, Options(stdin=piped("id,text\na,ECHO:one\nb,ECHO:two\n"), limit=1))
    assert first.run.calls == 1
    second = batchgen.run(loaded, Options(stdin=piped(""), say=messages.append))
    assert (second.run.calls, second.rows) == (1, {"succeeded": 2})
    assert messages == ["stdin is empty; going on with the prompts of the last run"]
    assert batchgen.plan(loaded, stdin=piped("id,text\na,ECHO:one\nc,ECHO:x\n")).rows == {
        "succeeded": 1,
        "pending": 1,
    }
    assert batchgen.plan(loaded, stdin=piped("")).rows == {"succeeded": 2}
    third = batchgen.run(loaded, Options(stdin=piped("id,text\nb,ECHO:two\nc,ECHO:three\n")))
    assert (third.run.calls, [row["id"] for row in lab.table()]) == (1, ["b", "c"])


def test_a_changed_job_re_renders_the_prompts_of_a_stream_that_is_gone(
    lab: Lab, api: Simulator
) -> None:
    """P08 When the job changes and its prompts came from stdin, those kept are rendered anew: what
    the change runs again is planned, called and nothing fails; broken rows stay broken."""
    parts: dict[str, Any] = {
        "prompts": {"path": "-", "format": "csv", "id": "id", "bad_rows": "fail"}
    }
    job = lab.job(api.url, **parts)
    batchgen.run(
        lab.load(job), Options(stdin=piped("id,text\na,ECHO:one\nb,ECHO:two\nc,x,ragged\n"))
    )
    body = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "{{ text }}!"}]}
    lab.job(api.url, request=body, **parts)
    assert batchgen.plan(lab.load(job)).rows == {"outdated": 2, "failed": 1}
    report = batchgen.run(lab.load(job), Options(stdin=piped("")))
    assert (report.run.calls, report.rows) == (2, {"succeeded": 2, "failed": 1})
    assert [row["output"] for row in lab.table()] == ["one!", "two!", ""]
    assert "columns" in lab.table()[2]["error"] or "cells" in lab.table()[2]["error"]
    assert maintenance.verify(lab.load(job)) == []
    lab.job(api.url, **parts)
    assert batchgen.run(lab.load(job), Options(stdin=piped(""))).run.calls == 0


def test_a_stream_that_brings_nothing_is_no_file_of_another_time(lab: Lab, api: Simulator) -> None:
    """P07 Only prompts that came from a stream stand in for an empty one: a file's do not."""
    lab.go(lab.job(api.url))
    job = lab.job(api.url, prompts={"path": "-", "format": "csv", "id": "id"})
    with pytest.raises(batchgen.InputError, match="stdin: is empty"):
        batchgen.run(lab.load(job), Options(stdin=piped("")))


def test_a_header_in_one_piece_is_called_by_its_name(lab: Lab) -> None:
    """P30 With a delimiter that the file does not have, the message says what came out and which
    key to look at."""
    csv_of(lab, "id,text\na,1\n")
    message = refused(
        lab,
        lab.job(NOWHERE, rows=None, prompts={"path": "prompts.csv", "id": "id", "delimiter": ";"}),
    )
    assert "the header came out as one column: is prompts.delimiter right?" in message


def test_other_prompts_may_be_named(lab: Lab, api: Simulator) -> None:
    """P08 --prompts reads another file with the same job: rows that it shares are not called
    again."""
    job = lab.job(api.url)
    lab.go(job)
    (lab.folder / "other.csv").write_text(
        "id,text\nr1,ECHO:answer 1\nnew,ECHO:new\n", encoding="utf-8"
    )
    done = lab.run("run", job, "--prompts", lab.folder / "other.csv", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["totals"]["calls"] == 1
    assert [row["id"] for row in lab.table()] == ["r1", "new"]


def test_columns_that_the_job_names_must_be_there(lab: Lab) -> None:
    """P30 A missing id, thread or turns column, an axis that is a column, and a column that no
    prompt has, are reported together with the place in the job and the nearest name."""
    csv_of(lab, "ident,text,tone\na,1,x\n")
    body = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "{{ texd }}"}]}
    message = refused(lab, lab.job(NOWHERE, rows=None, request=body, matrix={"tone": ["x"]}))
    assert "prompts.id: 'id' is not a column" in message
    assert "matrix.tone: the prompts have a column of this name" in message
    assert "'texd' is not a column (columns: ident, text, tone); did you mean 'text'?" in message
    assert all(line.partition(".yaml:")[2].split(":")[0].isdigit() for line in message.splitlines())


def test_two_rows_with_equal_requests_are_two_rows(lab: Lab) -> None:
    """P07 Without ids the identity of a row is its request and the occurrence of it, shown as -2
    for the second."""
    csv_of(lab, "text\nsame\nother\nsame\nsame\n")
    workspace = Workspace.of(lab.load(lab.job(NOWHERE, rows=None, prompts={"path": "prompts.csv"})))
    with workspace.locked(), workspace.open() as journal:
        workspace.stage(journal, capped=False)
        rows = [row for row, _ in rows_with_outcomes(journal)]
    assert rows[0].fingerprint == rows[2].fingerprint == rows[3].fingerprint
    assert [row.id for row in rows[2:]] == [f"{rows[0].id}-2", f"{rows[0].id}-3"]
    assert [row.outcome_id for row in rows] == ["#1", "#1", "#2", "#3"]
    assert len(rows[0].id) == 12


def test_a_row_may_ask_for_more_than_64_bits_hold(lab: Lab) -> None:
    """Whatever caps on the answer the rows bring, each beyond SQLite's whole numbers or only their
    sum, a plan is made; it expects a quarter of each."""
    path = lab.folder / "prompts.jsonl"
    request = {
        "model": "gpt-5.6-luna",
        "messages": [{"role": "user", "content": "{{ text }}"}],
        "max_completion_tokens": "{{ most }}",
    }
    job = lab.job(
        prompts={"path": "prompts.jsonl"},
        request=request,
        pricing={"gpt-5.6-luna": {"input": 1, "output": 1}},
    )
    for most, tokens in ((10**30, 0), (9 * 10**15, 12 * 9 * 10**15 // 4)):
        lines = [json.dumps({"text": f"hello {n}", "most": most}) + "\n" for n in range(12)]
        path.write_text("".join(lines), encoding="utf-8")
        plan = batchgen.plan(lab.load(job))
        assert plan.tokens // 1000 == tokens // 1000
        assert (plan.cost is None) == (tokens == 0)
