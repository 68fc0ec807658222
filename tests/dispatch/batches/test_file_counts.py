"""Result files that have fewer answers than they should: a batch always ends, and nothing that may
still come is paid for twice."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab import Lab
from liar import (
    ROWS,
    Lie,
    about_a_batch,
    assert_done,
    each_line,
    in_files,
    lying,
    paid,
    written,
)

import batchgen
from batchgen import Options
from batchgen.dispatch.batches import client, collect, poll
from batchgen.dispatch.batches.file_counts import FileCounts
from batchgen.dispatch.batches.records import Batch


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches and fetches do not wait."""
    monkeypatch.setattr(client, "BETWEEN_SEARCHES", 0.0)
    monkeypatch.setattr(collect, "BETWEEN_FETCHES", 0.0)


def sentences(lab: Lab, job: Path) -> tuple[int, str]:
    """Run a job: its exit code, and everything that it says."""
    shown: list[str] = []
    report = batchgen.run(lab.load(job), Options(say=shown.append))
    return report.exit_code, "\n".join(shown)


def first_lines(count: int) -> Callable[[bytes], bytes]:
    """A result file that ends early."""
    return lambda data: b"".join(data.splitlines(True)[:count])


def second_line(change: Callable[[bytes], bytes]) -> Lie:
    """The line of the second request is changed, byte by byte."""
    return in_files(
        lambda data: b"".join(
            change(line) if b'"custom_id": "2"' in line else line for line in data.splitlines(True)
        )
    )


def response(status: Any, body: Any) -> Lie:
    """The second request has another response."""
    other = {"response": {"status_code": status, "request_id": "", "body": body}, "error": None}
    return each_line(lambda line: {**line, **other} if line["custom_id"] == "2" else line)


# Lines that have no answer for the second of the requests.
NO_ANSWER: dict[str, Lie] = {
    "a status of nothing": response(0, {}),
    "a status without a body": response(0, None),
    "a status that is a text": response("200", {}),
    "a success without a body": response(200, {}),
    "a success with an empty text": response(200, ""),
    "neither response nor error": each_line(
        lambda line: {**line, "response": None} if line["custom_id"] == "2" else line
    ),
    "half a line": second_line(lambda line: line[: len(line) // 2] + b"\n"),
    "no UTF-8": second_line(lambda line: line[:60] + b"\xff\xfe" + line[60:]),
    "an empty body": second_line(lambda line: line.replace(b'"body": {', b'"body": , "was": {', 1)),
}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_a_line_without_an_answer_goes_out_again(lab: Lab, name: str) -> None:
    """P12 A line without an answer is a request without an answer: the run that collects closes the
    batch and sends this request again, with rows that are new, and no other."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = NO_ANSWER[name]
        with (lab.folder / "prompts.csv").open("a", encoding="utf-8") as file:
            file.write("new,ECHO:answer 6\n")
        code, shown = sentences(lab, job)
        assert code == 6
        assert "2 requests sent" in shown
        api.lie = None
        assert lab.go(job).exit_code == 0
        assert paid(api) == ROWS + 2
        assert [row["output"] for row in lab.table()] == [f"answer {n}" for n in range(1, 7)]


@pytest.mark.parametrize("name", ["a status of nothing", "half a line"])
def test_a_request_without_an_answer_counts_as_paid(lab: Lab, name: str) -> None:
    """P25 What has no answer may have been paid for: it counts at its highest cost under a cap. No
    status is made up for it."""
    pricing = {"gpt-5.6-luna": {"input": 1000, "output": 2000}}
    with lying() as api:
        job = written(lab, api, pricing=pricing, limits={"max_cost": 100})
        most = batchgen.plan(lab.load(job)).cost_at_most or 0.0
        assert lab.go(job).exit_code == 6
        api.lie = NO_ANSWER[name]
        report = lab.go(job)
        answers = sum(float(row["cost"] or 0) for row in lab.table() if row["id"] != "r2")
        totals = report.job.totals
        assert totals.cost == pytest.approx(answers)
        assert totals.uncertain == 1
        assert totals.uncertain_cost == pytest.approx(most / ROWS)
        (error,) = lab.table(which="errors")
        assert (error["id"], error["reason"], error["http_status"]) == (
            "r2",
            "invalid_response",
            "",
        )


def test_an_error_does_not_stand_for_an_answer(lab: Lab) -> None:
    """P12 Successes are compared with `completed`, failures with `failed`: an output file that
    lacks answers is fetched again, also when the lines of both files are as many as `completed`."""
    with lying() as api:
        job = written(lab, api)
        prompts = lab.folder / "prompts.csv"
        prompts.write_text(
            "id,text\n"
            + "".join(f"r{n},ECHO:{n}\n" for n in range(1, 4))
            + "b,[policy]\nc,[policy]\n",
            encoding="utf-8",
        )
        assert lab.go(job).exit_code == 6
        contents = itertools.count()

        def lie(asked: str, reply: Any) -> Any:
            # Of the two files the output file is fetched first.
            if "/content" in asked and b'"status_code": 200' in reply and next(contents) < 3:
                return first_lines(1)(reply)
            return reply

        api.lie = lie
        assert lab.go(job).exit_code == 6
        assert api.requests.batches == 1
        assert lab.go(job).exit_code == 3
        assert api.requests.lines == ROWS
        assert [row["output"] for row in lab.table()] == ["1", "2", "3", "", ""]


def test_answers_that_do_not_come_are_sent_again_in_the_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12 While a result file lacks answers that the server counts, it is fetched again by each
    run, which says so, and nothing of the batch is sent. After some time the batch ends with what
    there is, and the rest goes out again."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = in_files(first_lines(2))
        for _ in range(3):
            code, shown = sentences(lab, job)
            assert code == 6
            assert "its files have 2 of 5 answers; they are fetched again for 10 min" in shown
        assert api.requests.batches == 1
        monkeypatch.setattr(poll, "SOME_LACKING", 0.0)
        code, shown = sentences(lab, job)
        assert code == 6
        assert "completed: 2 of 5 answered; 3 without an answer, which a later batch" in shown
        api.lie = None
        assert lab.go(job).exit_code == 0
        assert paid(api) == ROWS + 3


def refused_before(line: bytes) -> bytes:
    """An error for a request, and then its answer."""
    refusal = {"status_code": 500, "request_id": "q", "body": {"error": {"message": "boom"}}}
    return json.dumps({**json.loads(line), "response": refusal}).encode() + b"\n" + line


ANSWERED: dict[str, Lie] = {
    "a number for an id": each_line(lambda line: {**line, "custom_id": int(line["custom_id"])}),
    "a status that is a text": each_line(
        lambda line: {**line, "response": {**line["response"], "status_code": "200"}}
    ),
    "a status of nothing": each_line(
        lambda line: {**line, "response": {**line["response"], "status_code": 0}}
    ),
    "an error before the answer": second_line(refused_before),
    "an error beside the answer": each_line(lambda line: {**line, "error": {"code": "x"}}),
    "a line of no request": in_files(
        lambda data: data + b'{"custom_id": "0", "response": {"status_code": 500}}\n'
    ),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer_counts_whatever_stands_beside_it(lab: Lab, name: str) -> None:
    """P12 An answer that is in the files is taken, and never paid for again."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = ANSWERED[name]
        code, output = sentences(lab, job)
        assert code == 0, output
        assert "5 of 5 answered" in output
        assert_done(lab, api)


def test_rows_that_are_new_do_not_wait_for_lost_answers(lab: Lab) -> None:
    """P12 A batch whose files lack answers keeps no other row from being sent."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = in_files(first_lines(2))
        with (lab.folder / "prompts.csv").open("a", encoding="utf-8") as file:
            file.write("new,ECHO:answer 6\n")
        code, shown = sentences(lab, job)
        assert (code, "1 request sent" in shown) == (6, True)


@pytest.mark.parametrize("content", [b"<!doctype html>", b"", bytes(range(256)) * 40])
def test_files_of_something_else_end_a_batch_in_the_end(
    lab: Lab, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12 Files without a line of the batch are most likely not its files: the run ends with 4 and
    says what to do. After a day even such a batch ends."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = in_files(lambda data: content)
        monkeypatch.setattr(poll, "SOME_LACKING", 0.0)
        stopped = lab.go(job)
        assert (stopped.exit_code, api.requests.batches) == (4, 1)
        assert "batchgen cancel" in (stopped.stopped or "")
        monkeypatch.setattr(poll, "ALL_LACKING", 0.0)
        assert lab.go(job).exit_code == 6
        api.lie = None
        assert lab.go(job).exit_code == 0
        assert paid(api) == 2 * ROWS


def test_an_answer_that_comes_late_is_taken(lab: Lab) -> None:
    """P12 An answer that a later run finds in the file is taken, and is not paid for again."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = in_files(first_lines(2))
        assert lab.go(job).exit_code == 6
        api.lie = None
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


def test_counts_beyond_the_requests_are_not_shown(lab: Lab) -> None:
    """P12 A server that counts failed requests as completed, too: never more are shown as answered
    than there are."""
    with lying() as api:
        job = written(lab, api)
        lab.go(job)
        api.lie = about_a_batch(
            status="in_progress", request_counts={"total": 5, "completed": 5, "failed": 3}
        )
        (batch,) = lab.go(job).batches
        assert (batch["requests"], batch["answered"], batch["failed"]) == (5, 5, 3)


def files(torn: int = 0, **lines: set[int]) -> FileCounts:
    return FileCounts(torn=torn, **lines)


def ended(status: str, error_file: bool = True, **counts: int) -> Batch:
    """A batch of 10 requests that has ended."""
    seen = {"request_counts": counts, **({"error_file_id": "e"} if error_file else {})}
    return Batch(
        number=1,
        tag="t",
        endpoint="/chat/completions",
        model="m",
        made_at=0.0,
        requests=10,
        status=status,
        seen=seen,
    )


def lines(count: int, start: int = 1) -> set[int]:
    return set(range(start, start + count))


@pytest.mark.parametrize(
    ("batch", "found", "lacking"),
    [
        # Everything has a line, whatever the counts say.
        (ended("completed", completed=10), files(succeeded=lines(8), failed=lines(2, 9)), 0),
        # Errors and requests that were not executed stand for no answer.
        (
            ended("completed", completed=8, failed=2),
            files(succeeded=lines(6), failed=lines(2, 9)),
            2,
        ),
        (ended("expired", completed=5), files(succeeded=lines(3), unexecuted=lines(5, 6)), 2),
        # A completed batch has a line for each request, also without counts.
        (ended("completed"), files(succeeded=lines(9)), 1),
        (ended("completed", completed=3), files(succeeded=lines(3)), 7),
        # A line without an answer and a torn one stand for an answer that is lost.
        (ended("completed", completed=10), files(succeeded=lines(8), unanswered={9}, torn=1), 0),
        (ended("expired", completed=5), files(succeeded=lines(4), torn=1), 0),
        # The error file is compared with `failed` where there is one.
        (ended("expired", completed=3, failed=4), files(succeeded=lines(3)), 4),
        (ended("cancelled", error_file=False, completed=3, failed=7), files(succeeded=lines(3)), 0),
        # A batch that ended early need not have more than it counts.
        (ended("expired", completed=3), files(succeeded=lines(3)), 0),
        (ended("failed"), files(), 0),
        (ended("expired", completed=3), files(succeeded=lines(4)), 0),
    ],
)
def test_what_the_files_lack(batch: Batch, found: FileCounts, lacking: int) -> None:
    """P12 What result files lack of what the server counts, each kind of line by itself."""
    assert found.lacking(batch) == lacking


def test_what_may_have_been_executed() -> None:
    """P25 Of a completed batch every request without an answer may have been executed; of one that
    ended early none that its files call unexecuted, and the others only if answers are lost."""
    found = files(succeeded=lines(3), unexecuted=lines(5, 4), unanswered={9})
    assert found.without_answer(ended("completed", completed=3)) == [4, 5, 6, 7, 8, 9, 10]
    assert found.without_answer(ended("expired", completed=4)) == [9]
    assert found.without_answer(ended("expired", completed=5)) == [9, 10]
