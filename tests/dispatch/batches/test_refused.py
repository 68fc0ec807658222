"""A batch that is refused as a whole: for some of its lines, for what it is, or for the account."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import Lab
from liar import ROWS, Liar, Lie, about_a_batch, each_line, lying, written

from batchgen.dispatch.batches.refused import named_lines


@pytest.fixture
def api() -> Iterator[Liar]:
    with lying() as api:
        yield api


def states(lab: Lab) -> list[str]:
    return [row["status"] for row in lab.table()]


def ran(lab: Lab, *args: str) -> tuple[int, str]:
    done = lab.run("run", lab.folder / "job.yaml", *args)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def failed_for(error: dict[str, Any]) -> Lie:
    """The batch has failed for this error, and nothing of it was executed."""
    counts = {"total": ROWS, "completed": 0, "failed": 0}
    return about_a_batch(
        status="failed",
        errors={"data": [error]},
        request_counts=counts,
        output_file_id=None,
        error_file_id=None,
    )


@pytest.mark.parametrize("call", ["POST /v1/files", "POST /v1/batches"])
@pytest.mark.parametrize(
    "refusal",
    [
        "Line 3: missing required parameter 'model'",
        "Invalid file: error on line 3, custom_id is required",
        {"errors": [{"line": 3, "message": "no such parameter"}]},
        [{"detail": {"line": 3, "msg": "no such parameter"}}],
    ],
)
def test_a_line_that_is_named_fails_its_row_and_the_others_go_again(
    lab: Lab, api: Liar, call: str, refusal: Any
) -> None:
    """P12 P18 At upload or at create, in words or in a field: one row fails, the rest is answered
    by the same run."""
    written(lab, api)
    # An upload that is refused is tried once more, without an expiry.
    api.refuse, api.refusal, api.refusals = (call, 400), refusal, 1 + ("files" in call)
    code, output = ran(lab, "--wait")
    assert code == 3, output
    assert "; the named rows fail, the others go again" in output
    expected = ["succeeded"] * ROWS
    expected[2] = "failed"
    assert states(lab) == expected
    (error,) = lab.table(which="errors")
    assert (error["id"], error["reason"], error["http_status"]) == ("r3", "bad_request", "400")
    assert "line 3" in error["message"].lower()
    assert api.requests.lines == ROWS - 1


def test_two_lines_are_named(lab: Lab, api: Liar) -> None:
    """P12 Each of the named rows fails; without --wait the rest is in a batch."""
    written(lab, api)
    api.refuse, api.refusals = ("POST /v1/files", 422), 2
    api.refusal = "line 2: bad value; line 5: bad value"
    code, output = ran(lab)
    assert code == 6, output
    assert ran(lab, "--wait")[0] == 3
    assert states(lab) == ["succeeded", "failed", "succeeded", "succeeded", "failed"]


def test_a_server_that_refuses_every_file_stops_the_run(
    lab: Lab, api: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P11 A server that names line 1 for ever does not fail row after row."""
    job = written(lab, api)
    monkeypatch.setattr("batchgen.dispatch.batches.submit.MOST_REFUSALS", 2)
    api.refuse, api.refusal = ("POST /v1/files", 400), "line 1: I do not like it"
    report = lab.go(job)
    assert report.exit_code == 4
    log = (lab.output() / "run.log").read_text("utf-8")
    assert log.count("I do not like it; the named rows fail, the others go again") == 2
    assert states(lab).count("pending") == ROWS - 2


@pytest.mark.parametrize(
    "message", ["Unsupported endpoint /v1/chat/completions", "The purpose is not supported"]
)
def test_an_unsupported_endpoint_in_the_errors_of_a_batch(
    lab: Lab, api: Liar, message: str
) -> None:
    """P18 When it is said only after the batch was made, too: use mode: online; rows stay
    pending."""
    written(lab, api)
    error = {"code": "invalid_request", "line": None, "message": message}
    api.lie = failed_for(error)
    code, output = ran(lab, "--wait")
    assert code == 4, output
    assert f"takes no such batches ({message}); use mode: online" in output
    assert states(lab) == ["pending"] * ROWS


def test_the_errors_of_a_batch_name_a_line_in_words(lab: Lab, api: Liar) -> None:
    """P12 P18 Without the field `line`, and without an HTTP status that nobody sent."""
    job = written(lab, api)
    error = {"code": "invalid_request", "message": "Error in line 4: bad value"}
    assert ran(lab)[0] == 6
    api.lie = failed_for(error)
    lab.go(job)
    api.lie = None
    assert ran(lab, "--wait")[0] == 3
    assert states(lab) == ["succeeded", "succeeded", "succeeded", "failed", "succeeded"]
    (row,) = lab.table(which="errors")
    assert (row["http_status"], row["code"]) == ("", "invalid_request")


FORBIDDEN = {"status_code": 403, "request_id": "q", "body": {"error": {"message": "Not you"}}}


def test_a_403_in_a_batch_that_was_answered_is_the_rows(lab: Lab, api: Liar) -> None:
    """P23 One line of a batch is forbidden, the others are answered: the row fails."""
    written(lab, api)
    api.lie = each_line(
        lambda line: {**line, "response": FORBIDDEN} if line["custom_id"] == "2" else line
    )
    code, output = ran(lab, "--wait")
    assert code == 3, output
    assert states(lab).count("failed") == 1
    assert lab.table(which="errors")[0]["reason"] == "forbidden"


@pytest.mark.parametrize("answered", [0, 1])
def test_lines_that_were_all_refused_alike_are_pending(lab: Lab, api: Liar, answered: int) -> None:
    """P23 An account that is refused in words alone, line by line: 4, and the rows are pending;
    with an answer among them, the refusals are the rows'."""

    def refused(line: dict[str, Any]) -> dict[str, Any]:
        number = int(line["custom_id"])
        error = {"type": "invalid_request_error", "message": f"Account {number} has no money"}
        response = {"status_code": 400, "request_id": "q", "body": {"error": error}}
        return line if number <= answered else {**line, "response": response}

    written(lab, api)
    lab.prompts(30)
    api.lie = each_line(refused)
    code, output = ran(lab, "--wait")
    if answered:
        assert code == 3, output
        assert (states(lab).count("succeeded"), states(lab).count("failed")) == (1, 29)
        return
    assert code == 4, output
    assert "all requests of a batch got the same refusal from 127.0.0.1 (HTTP 400: Acc" in output
    assert states(lab) == ["pending"] * 30
    api.lie = None
    assert ran(lab, "--wait")[0] == 0


def test_an_error_without_a_reply_has_no_status(lab: Lab, api: Liar) -> None:
    """P18 A line of a batch that has an error, and no response, was no HTTP reply."""
    written(lab, api)
    failed = {"response": None, "error": {"code": "invalid_prompt", "message": "flagged"}}
    api.lie = each_line(lambda line: {**line, **failed} if line["custom_id"] == "2" else line)
    assert ran(lab, "--wait")[0] == 3
    (row,) = lab.table(which="errors")
    assert (row["reason"], row["http_status"], row["message"]) == ("policy", "", "flagged")


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        ("Line 3: no model", [3]),
        ("error in line number 3", [3]),
        ("line 3, line 4 and line 3", [3, 4]),
        ("line #5", [5]),
        ("Expecting value: line 1 column 5 (char 4)", []),
        ("line 1, column 5", []),
        ("line 0", []),
        ("line 6", []),
        ("line 99999999999999", []),
        ("an outline 3", []),
        ("line 2: the url is not the endpoint of the batch", []),
        ("no line", []),
    ],
)
def test_the_lines_that_a_refusal_names(message: str, lines: list[int]) -> None:
    """P18 Numbers of lines of the file; not those of a text that is no JSON."""
    assert list(named_lines(message, 5)) == lines


@given(st.text(), st.integers(0, 50_000))
def test_any_message_names_only_lines_that_there_are(message: str, requests: int) -> None:
    """P18 No message breaks it."""
    for each in (message, f"line {message}"):
        assert all(0 < line <= requests for line in named_lines(each, requests))
