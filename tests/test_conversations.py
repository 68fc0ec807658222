"""Conversations: turns in order, each with the recorded replies before it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving
from PIL import Image

import batchgen
from batchgen import maintenance
from batchgen.simulator import RequestInfo, Settings, Simulator

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "ECHO:{{ text }}"}]
BODY = {"model": "gpt-5.6-luna", "messages": TALK, "max_completion_tokens": 100}
TURNS = {**BODY, "messages": [TALK[0], {"role": "user", "content": "ECHO:{{ turn }}"}]}


def by_id(lab: Lab, url: str, rows: list[tuple[str, str, str]], **parts: Any) -> Path:
    """A job over rows of (id, thread, text)."""
    lines = ["id,thread,text", *(",".join(row) for row in rows)]
    (lab.folder / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lab.job(
        url, **{"rows": None, "conversation": {"id": "thread"}, "request": BODY, **parts}
    )


def by_turns(lab: Lab, url: str, threads: list[list[str]], **parts: Any) -> Path:
    lines = [json.dumps({"id": f"t{n}", "turns": turns}) for n, turns in enumerate(threads, 1)]
    (lab.folder / "talks.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    defaults = {
        "prompts": {"path": "talks.jsonl", "id": "id"},
        "conversation": {"turns": "turns"},
        "request": TURNS,
    }
    return lab.job(url, **{**defaults, **parts})


def asked(api: Simulator) -> list[list[str]]:
    """What each request said, as `role:content`, requests in order."""
    bodies = [received.body or {} for received in api.log]
    return [
        [f"{each['role'][0]}:{each['content']}" for each in body["messages"]] for body in bodies
    ]


ROWS = [
    ("a1", "a", "one"),
    ("b1", "b", "eins"),
    ("a2", "a", "two"),
    ("a3", "a", "three"),
    ("b2", "b", "zwei"),
]


def test_interleaved_conversations_keep_their_order(lab: Lab) -> None:
    """P13 Interleaved conversations: each turn sees the turns and the model's own replies before
    it, the system message once, and no other conversation's."""
    with serving(Settings(latency=0.01), record=True) as api:
        lab.go(by_id(lab, api.url, ROWS))
        conversations = asked(api)
    assert [row["output"] for row in lab.table()] == [text for _, _, text in ROWS]
    system = "s:Be brief."
    assert [each for each in conversations if "one" in each[1]] == [
        [system, "u:ECHO:one"],
        [system, "u:ECHO:one", "a:one", "u:ECHO:two"],
        [system, "u:ECHO:one", "a:one", "u:ECHO:two", "a:two", "u:ECHO:three"],
    ]
    assert [len(each) for each in conversations if "eins" in each[1]] == [2, 4]


def test_turns_of_a_column_are_one_line(lab: Lab) -> None:
    """P13 With turns a table line is the whole row: output the last reply, messages the thread,
    tokens and cost summed."""
    with serving(record=True) as api:
        pricing = {"gpt-5.6-luna": {"input": 1, "output": 1}}
        job = by_turns(lab, api.url, [["one", "two", "three"], ["eins"]], pricing=pricing)
        report = lab.go(job)
        conversations = asked(api)
    assert (report.run.calls, report.rows, report.total) == (4, {"succeeded": 2}, 2)
    first, second = lab.table()
    assert (first["output"], second["output"]) == ("three", "eins")
    thread = json.loads(first["messages"])
    assert [each["role"] for each in thread] == ["system", *["user", "assistant"] * 3]
    assert [each["content"] for each in thread[2::2]] == ["one", "two", "three"]
    assert max(conversations, key=len)[:-1] == [
        f"{m['role'][0]}:{m['content']}" for m in thread[:-2]
    ]
    assert float(first["cost"]) + float(second["cost"]) == pytest.approx(report.run.cost)
    assert lab.go(job).run.calls == 0


@pytest.mark.parametrize("make", ["id", "turns"])
def test_a_failed_turn_blocks_the_later_ones_until_it_is_asked_again(lab: Lab, make: str) -> None:
    """P13 A failed turn blocks its later ones, which are not failed; redo goes on at the failed
    turn with the recorded replies, and asks nothing before it again."""
    refused = ["two"]

    def script(request: RequestInfo) -> str | None:
        last = request.body["messages"][-1]["content"]
        return "400_policy" if any(word in last for word in refused) else None

    with serving(script=script, record=True) as api:
        if make == "id":
            job = by_id(lab, api.url, ROWS)
            assert lab.go(job).rows == {"succeeded": 3, "failed": 1, "blocked": 1}
            assert [row["status"] for row in lab.table()] == [
                "succeeded",
                "succeeded",
                "failed",
                "blocked",
                "succeeded",
            ]
            assert "blocked" in lab.table()[3]["error"]
            named = "a2"
        else:
            job = by_turns(lab, api.url, [["one", "two", "three"], ["eins", "zwei"]])
            assert lab.go(job).rows == {"failed": 1, "succeeded": 1}
            assert lab.table()[0]["status"] == "failed"
            assert [each["turn"] for each in lab.table(which="errors")] == ["2"]
            named = "t1"
        assert lab.go(job).run.calls == 0
        refused.clear()
        sent = len(api.log)
        if make == "id":
            maintenance.redo(lab.load(job), [named])
        else:
            maintenance.redo(lab.load(job), statuses=["failed"])
        report = lab.go(job)
        assert (report.exit_code, report.run.calls) == (0, 2)
        assert asked(api)[sent:] == [
            ["s:Be brief.", "u:ECHO:one", "a:one", "u:ECHO:two"],
            ["s:Be brief.", "u:ECHO:one", "a:one", "u:ECHO:two", "a:two", "u:ECHO:three"],
        ]


def test_an_interrupted_conversation_resumes_with_the_recorded_replies(lab: Lab) -> None:
    """P13 A run that stops in the middle of a conversation resumes at the turn that is missing,
    with the replies recorded before, not with new ones."""
    with serving(script=lambda request: "quota" if request.n == 2 else None, record=True) as api:
        body = {**TURNS, "messages": [{"role": "user", "content": "{{ turn }}"}]}
        job = by_turns(lab, api.url, [["Why?", "And then?", "Really?"]], request=body)
        assert lab.go(job).exit_code == 4
        assert [row["status"] for row in lab.table()] == ["pending"]
        first_reply = json.loads(lab.table()[0]["messages"])[1]["content"]
        assert lab.go(job).exit_code == 0
        assert [len(each) for each in asked(api)] == [1, 3, 3, 5]
        assert asked(api)[2][1] == f"a:{first_reply}"


def test_a_passing_failure_of_a_turn_is_tried_by_the_next_run(lab: Lab) -> None:
    """P13 A turn that failed in passing is tried again by the next run, and the turns it blocked
    follow in that run."""
    broken = ["two"]
    with serving(
        script=lambda request: (
            "500" if broken and "two" in str(request.body["messages"][-1]) else None
        )
    ) as api:
        job = by_id(lab, api.url, ROWS, retry={"attempts": 1})
        assert lab.go(job).rows == {"succeeded": 3, "failed": 1, "blocked": 1}
        broken.clear()
        report = lab.go(job)
        assert (report.run.calls, report.rows) == (2, {"succeeded": 5})


def test_an_incomplete_turn_blocks_unless_it_is_accepted(lab: Lab, api: Simulator) -> None:
    """P13 A reply that was cut is no base for the next turn, until output.accept says that it
    is."""
    rows = [("a1", "a", "word " * 40), ("a2", "a", "two")]
    body = {**BODY, "max_completion_tokens": 20}
    job = by_id(lab, api.url, rows, request=body)
    assert lab.go(job).rows == {"incomplete": 1, "blocked": 1}
    by_id(lab, api.url, rows, request=body, output={"accept": ["length"]})
    report = lab.go(job)
    assert (report.run.calls, report.rows) == (1, {"succeeded": 2})


def test_an_edited_turn_runs_with_all_that_follow(lab: Lab, api: Simulator) -> None:
    """P08 A turn's key holds the turns before it: an edited turn runs again with those after it,
    those before it do not; reverting is free."""
    job = by_turns(lab, api.url, [["one", "two", "three"]])
    lab.go(job)
    by_turns(lab, api.url, [["one", "zwei", "three"]])
    assert batchgen.plan(lab.load(job)).calls == 2
    assert lab.go(job).run.calls == 2
    assert [m["content"] for m in json.loads(lab.table()[0]["messages"])[2::2]] == [
        "one",
        "zwei",
        "three",
    ]
    by_turns(lab, api.url, [["one", "two", "three"]])
    assert lab.go(job).run.calls == 0
    by_turns(lab, api.url, [["one", "two", "three", "four"]])
    assert lab.go(job).run.calls == 1


def test_equal_conversations_without_ids_are_told_apart(lab: Lab, api: Simulator) -> None:
    """P13 Two equal threads without ids are two lines with two names, each answered on its own,
    once."""
    threads = [["one", "two"], ["one", "two"], ["one", "three"]]
    job = by_turns(lab, api.url, threads, prompts={"path": "talks.jsonl"})
    report = lab.go(job)
    assert (report.run.calls, report.rows) == (6, {"succeeded": 3})
    assert [row["output"] for row in lab.table()] == ["two", "two", "three"]
    assert lab.go(job).run.calls == 0
    assert maintenance.verify(lab.load(job)) == []


def test_a_matrix_runs_each_conversation_per_combination(lab: Lab) -> None:
    """P13 In a matrix each combination is a conversation of its own, with its own replies."""
    body = {**BODY, "messages": [{"role": "user", "content": "ECHO:{{ text }} {{ tone }}"}]}
    with serving(record=True) as api:
        lab.go(by_id(lab, api.url, ROWS[:3], request=body, matrix={"tone": ["dry", "warm"]}))
        conversations = asked(api)
    longest = sorted(each for each in conversations if len(each) == 3)
    assert longest == [
        ["u:ECHO:one dry", "a:one dry", "u:ECHO:two dry"],
        ["u:ECHO:one warm", "a:one warm", "u:ECHO:two warm"],
    ]
    assert [(row["id"], row["tone"]) for row in lab.table()][:2] == [("a1", "dry"), ("a1", "warm")]


def test_a_limit_may_cut_a_conversation(lab: Lab, api: Simulator) -> None:
    """P13 --limit counts rows: a conversation that it cuts goes on where it was cut when the limit
    grows."""
    job = by_id(lab, api.url, ROWS)
    assert [lab.go(job, limit=limit).run.calls for limit in (1, 3, 3)] == [1, 2, 0]
    assert [row["status"] for row in lab.table()] == ["succeeded"] * 3 + ["pending"] * 2
    assert lab.go(job).run.calls == 2


def test_a_broken_row_blocks_the_later_turns_of_its_conversation(lab: Lab, api: Simulator) -> None:
    """P13 With bad_rows: fail a turn of which no request can be made blocks those after it: nobody
    is answered out of the middle of a conversation. Other conversations go on."""
    body = {
        **BODY,
        "messages": [
            {"role": "user", "content": "ECHO:{{ text }}{{ '' if id != 'a2' else 1 // 0 }}"}
        ],
    }
    prompts = {"path": "prompts.csv", "id": "id", "bad_rows": "fail"}
    job = by_id(lab, api.url, ROWS, request=body, prompts=prompts)
    assert lab.go(job).rows == {"succeeded": 3, "failed": 1, "blocked": 1}
    assert [row["status"] for row in lab.table()] == [
        "succeeded",
        "succeeded",
        "failed",
        "blocked",
        "succeeded",
    ]
    with open(lab.folder / "prompts.csv", "w", encoding="utf-8") as file:
        file.write("id,thread,text\na1,a,one\na2,a,two,ragged\na3,a,three\nb1,b,eins\n")
    lab.go(
        lab.job(
            api.url,
            name="ragged",
            rows=None,
            conversation={"id": "thread"},
            request=BODY,
            prompts=prompts,
        )
    )
    assert [row["status"] for row in lab.table("ragged")] == [
        "succeeded",
        "failed",
        "blocked",
        "succeeded",
    ]


def test_a_redone_turn_sees_the_turns_before_it(lab: Lab) -> None:
    """P13 redo of a turn in the middle asks it after the recorded replies before it, and then the
    turns after it, whose answers spoke of a reply that is gone; until then each keeps its own. No
    other conversation is asked anything."""
    with serving(record=True) as api:
        job = by_id(lab, api.url, [*ROWS, ("a4", "a", "four")])
        lab.go(job)
        sent = len(api.log)
        assert maintenance.redo(lab.load(job), ["a2"]) == 3
        maintenance.export(lab.load(job))
        assert [
            (row["id"], row["status"]) for row in lab.table() if row["status"] != "succeeded"
        ] == [(name, "outdated") for name in ("a2", "a3", "a4")]
        assert [row["output"] for row in lab.table()] == [
            "one",
            "eins",
            "two",
            "three",
            "zwei",
            "four",
        ]
        assert batchgen.plan(lab.load(job)).calls == lab.go(job).run.calls == 3
        two = ["s:Be brief.", "u:ECHO:one", "a:one", "u:ECHO:two"]
        three = [*two, "a:two", "u:ECHO:three"]
        assert asked(api)[sent:] == [two, three, [*three, "a:three", "u:ECHO:four"]]


def test_redo_by_status_marks_the_later_turns_of_each_combination(lab: Lab) -> None:
    """P13 The turns after a redone one are marked in its own combination of the matrix, and in no
    other."""

    def script(request: RequestInfo) -> str | None:
        return "400_policy" if refused and refused[0] in str(request.body["messages"][-1]) else None

    refused = ["one dry"]
    body = {**BODY, "messages": [{"role": "user", "content": "ECHO:{{ text }} {{ tone }}"}]}
    rows = [("a1", "a", "one"), ("a2", "a", "two")]
    with serving(script=script) as api:
        job = by_id(lab, api.url, rows, request=body, matrix={"tone": ["dry", "warm"]})
        assert lab.go(job).rows == {"failed": 1, "blocked": 1, "succeeded": 2}
        refused.clear()
        assert maintenance.redo(lab.load(job), statuses=["failed"]) == 1
        assert lab.go(job).run.calls == 2
        assert maintenance.redo(lab.load(job), ["a1"]) == 4
        assert lab.go(job).run.calls == 4
        assert maintenance.redo(lab.load(job), ["a2"]) == 2


@pytest.mark.parametrize("make", ["id", "turns"])
def test_a_conversation_keeps_its_answers_under_another_name(
    lab: Lab, api: Simulator, make: str
) -> None:
    """P08 Where the rows of a conversation get other ids, its turns keep their answers, together:
    of two that begin with the same request the one that was recorded keeps all of it, and the other
    is asked as a whole."""
    if make == "id":
        rows = [("a1", "a", "one"), ("a2", "a", "two"), ("b1", "b", "eins")]
        job = by_id(lab, api.url, rows)
        lab.go(job)
        by_id(lab, api.url, [(f"new {name}", f"new {thread}", text) for name, thread, text in rows])
        same = [("x1", "x", "one"), ("x2", "x", "two"), ("y1", "y", "one"), ("y2", "y", "three")]
        assert batchgen.plan(lab.load(job)).calls == lab.go(job).run.calls == 0
        by_id(lab, api.url, same)
        assert batchgen.plan(lab.load(job)).calls == lab.go(job).run.calls == 2
    else:
        job = by_turns(lab, api.url, [["one", "two"], ["eins"]])
        lab.go(job)
        by_turns(lab, api.url, [["one", "two"], ["eins"]], prompts={"path": "talks.jsonl"})
        assert batchgen.plan(lab.load(job)).calls == lab.go(job).run.calls == 0
        assert [row["output"] for row in lab.table()] == ["two", "eins"]
        by_turns(lab, api.url, [["one", "three"], ["one", "two"]], prompts={"path": "talks.jsonl"})
        assert batchgen.plan(lab.load(job)).calls == lab.go(job).run.calls == 2
        assert [row["output"] for row in lab.table()] == ["three", "two"]
    assert maintenance.verify(lab.load(job)) == []


def test_a_long_conversation_renders_each_turn_a_bounded_number_of_times(
    lab: Lab, api: Simulator, renderings: list[str]
) -> None:
    """P31 A conversation of many turns is rendered a few times a turn, not once for every pair of
    turns."""
    job = by_turns(lab, api.url, [[f"turn {n}" for n in range(60)]])
    assert lab.go(job).run.calls == 60
    assert len(renderings) <= 5 * 60


def test_an_undone_edit_brings_back_no_answer_to_a_reply_that_is_gone(
    lab: Lab, api: Simulator
) -> None:
    """P13 An answer belongs to the reply that it followed: after a redo of the turn before it, an
    answer under an older text of its turn is asked anew when the old text returns."""
    job = by_id(lab, api.url, [("a1", "a", "one"), ("a2", "a", "two")])
    lab.go(job)
    by_id(lab, api.url, [("a1", "a", "one"), ("a2", "a", "deux")])
    assert lab.go(job).run.calls == 1
    assert maintenance.redo(lab.load(job), ["a1"]) == 2
    assert lab.go(job).run.calls == 2
    by_id(lab, api.url, [("a1", "a", "one"), ("a2", "a", "two")])
    assert lab.go(job).run.calls == 1
    assert lab.go(job).run.calls == 0


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_a_picture_that_is_not_there_any_more_fails_its_conversation_only(
    lab: Lab, change: str
) -> None:
    """P13 A picture that is deleted or altered while the run goes on fails the next turn of its
    conversation, which cannot be told what was said before; every other row is answered."""
    picture = lab.folder / "a.png"

    def script(request: RequestInfo) -> None:
        if request.n == 1:
            picture.unlink() if change == "removed" else picture.write_bytes(drawn("blue"))

    picture.write_bytes(drawn("red"))
    (lab.folder / "b.png").write_bytes(drawn("red"))
    parts = [
        {"type": "text", "text": "{{ text }}"},
        {"type": "image_url", "image_url": {"url": "{{ (thread ~ '.png') | data_url }}"}},
    ]
    body = {**BODY, "messages": [{"role": "user", "content": parts}]}
    rows = [("a1", "a", "one"), ("a2", "a", "two"), ("b1", "b", "eins"), ("b2", "b", "zwei")]
    with serving(script=script) as api:
        job = by_id(lab, api.url, rows, request=body, limits={"concurrency": 1})
        report = lab.go(job)
    assert (report.exit_code, report.rows) == (3, {"succeeded": 3, "failed": 1})
    assert [row["id"] for row in lab.table(which="errors")] == ["a2"]


def drawn(colour: str) -> bytes:
    """A small picture."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def test_an_edited_turn_that_fails_keeps_the_old_line(lab: Lab) -> None:
    """P08 With turns, where an edited turn fails the line shows the last reply of before and the
    error; `messages` has the turns that are answered as they are, and no old reply under a new
    question."""
    with serving(script=lambda each: "400_policy" if "zwei" in str(each.body) else None) as api:
        job = by_turns(lab, api.url, [["one", "two", "three"]])
        lab.go(job)
        by_turns(lab, api.url, [["one", "zwei", "three"]])
        assert lab.go(job).rows == {"failed": 1}
        (line,) = lab.table()
        assert (line["status"], line["output"]) == ("failed", "three")
        assert [m["content"] for m in json.loads(line["messages"])[1:]] == ["ECHO:one", "one"]
        assert [(each["id"], each["turn"]) for each in lab.table(which="errors")] == [("t1", "2")]
        by_turns(lab, api.url, [["one", "two", "three"]])
        assert lab.go(job).run.calls == 0
        assert [m["content"] for m in json.loads(lab.table()[0]["messages"])[2::2]] == [
            "one",
            "two",
            "three",
        ]


@pytest.mark.parametrize("ids", [True, False])
def test_a_turn_that_comes_back_after_a_redo_is_asked_anew(
    lab: Lab, api: Simulator, ids: bool
) -> None:
    """P13 An answer belongs to the reply that it followed: turns that were removed while an earlier
    one was redone are asked anew when they come back, and are told the present replies."""
    prompts = {"path": "prompts.csv", **({"id": "id"} if ids else {})}
    rows = [("a1", "a", "one"), ("a2", "a", "two"), ("a3", "a", "three"), ("b1", "b", "one")]
    job = by_id(lab, api.url, rows, prompts=prompts)
    lab.go(job)
    by_id(lab, api.url, [rows[0], rows[3]], prompts=prompts)
    assert lab.go(job).run.calls == 0
    assert maintenance.redo(lab.load(job), statuses=["succeeded"]) == 2
    assert lab.go(job).run.calls == 2
    by_id(lab, api.url, rows, prompts=prompts)
    assert batchgen.plan(lab.load(job)).rows == {"succeeded": 2, "outdated": 2}
    assert lab.go(job).run.calls == 2
    assert {row["run"] for row in lab.table()} == {"3", "4"}
    assert lab.go(job).run.calls == 0


def test_a_changed_history_is_told_before_it_is_paid_for(lab: Lab, api: Simulator) -> None:
    """P08 What runs again because an earlier turn has changed counts as that, in plan and run."""
    rows = [("a1", "a", "one"), ("a2", "a", "two"), ("a3", "a", "three")]
    job = by_id(lab, api.url, rows)
    lab.go(job)
    by_id(lab, api.url, rows[:1])
    lab.go(job)
    maintenance.redo(lab.load(job), ["a1"])
    lab.go(job)
    by_id(lab, api.url, rows)
    plan = batchgen.plan(lab.load(job))
    assert (plan.calls, plan.again) == (2, {"of a change in the job or in an earlier turn": 2})
