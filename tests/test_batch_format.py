"""The lines of the Batch API's files, in and out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.batch_format import Result, parse_result, request_line, result_line

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)
_TEXT = st.text(st.characters(codec="utf-8"))


@given(_TEXT, st.dictionaries(_TEXT, _JSON))
def test_a_request_is_one_line(custom_id: str, body: dict[str, object]) -> None:
    """A request is one line, whatever its body holds, line separators of Unicode included."""
    line = request_line(custom_id, "/chat/completions", body)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    expected = {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }
    assert json.loads(line) == expected


@given(
    st.builds(
        Result,
        custom_id=_TEXT,
        status=st.integers(100, 599),
        request_id=st.text("ab1", min_size=1),
        body=_JSON,
    )
    | st.builds(
        Result, custom_id=_TEXT, error=st.fixed_dictionaries({"code": _TEXT, "message": _TEXT})
    )
)
def test_a_result_comes_back_as_it_was(result: Result) -> None:
    """A line of an output or error file is read as it was written."""
    assert parse_result(result_line("batch_req_1", result)) == result


def test_half_a_character_stays_half() -> None:
    """P28 Half of a surrogate pair is written as JSON's escape: the file stays UTF-8."""
    line = result_line("x", Result(custom_id="é", status=200, body={"text": "\ud83d"}))
    assert parse_result(line.decode().encode()).body == {"text": "\ud83d"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"custom_id": true, "response": {"status_code": 200, "body": {}}}',
        b'{"custom_id": "7", "response": {"status_code": 200, "bo',
        b'{"custom_id": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_result(line: bytes) -> None:
    """P18 A line that is not a result raises ValueError."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_result(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id": "7"}',
        b'{"custom_id": "7", "response": null, "error": null}',
        b'{"custom_id": "7", "response": {"status_code": true, "body": {}}}',
        b'{"custom_id": "7", "response": {"status_code": "ok", "body": {}}}',
        b'{"custom_id": "7", "response": [{"status_code": 200, "body": {"x": 1}}]}',
        b'{"custom_id": "7", "response": {"body": {}}, "error": "text"}',
        b'{"custom_id": "7", "response": {"status_code": 0, "body": {}}, "error": null}',
        b'{"custom_id": "7", "response": {"status_code": 600, "body": {}}}',
    ],
)
def test_a_line_without_an_answer(line: bytes) -> None:
    """P18 A line with neither an HTTP response nor an error names its request all the same."""
    assert parse_result(line) == Result(custom_id="7")


@pytest.mark.parametrize("status", ['"200"', "200.0", "null", "0", "true", '"OK"', "10000"])
def test_a_body_counts_whatever_stands_beside_it(status: str) -> None:
    """P12 P18 An answer is not paid for again because its status or its id has another type."""
    line = '{"custom_id": 7, "response": {"status_code": STATUS, "body": {"x": 1}}}'
    read = parse_result(line.replace("STATUS", status).encode())
    assert read == Result(custom_id="7", status=200, body={"x": 1})


@pytest.mark.parametrize("body", ["null", "{}", '""'])
def test_an_error_counts_where_there_is_no_body(body: str) -> None:
    """P18 The server's words beside an empty body are the row's; beside an answer they are not."""
    line = (
        '{"custom_id": "7", "response": {"status_code": 400, "body": BODY}, "error": {"code": "c"}}'
    )
    error = {"code": "c"}
    refused = parse_result(line.replace("BODY", body).encode())
    assert refused == Result(custom_id="7", status=400, body={"error": error})
    empty = parse_result(line.replace("BODY", body).replace("400", "200").encode())
    assert empty == Result(custom_id="7", error=error)
    answered = parse_result(line.replace("BODY", '{"x": 1}').replace("400", "200").encode())
    assert answered == Result(custom_id="7", status=200, body={"x": 1})
