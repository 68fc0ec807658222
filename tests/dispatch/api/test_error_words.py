"""The server's own words are found wherever it keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.dispatch.api.errors import classify

FIELD = {
    "type": "extra_forbidden",
    "loc": ["body", "max_completion_tokens"],
    "msg": "Extra inputs are not permitted",
    "input": 50,
}
SAYS = "max_completion_tokens: Extra inputs are not permitted"


@pytest.mark.parametrize(
    "body",
    [
        {"object": "error", "message": {"detail": [FIELD]}, "type": "invalid_request_error"},
        {"object": "error", "message": [FIELD]},
        {"detail": [FIELD]},
        {"error": {"message": {"detail": [FIELD]}}},
        {"error": {"detail": [FIELD], "code": None}},
        [{"error": {"message": None, "errors": [FIELD]}}],
    ],
)
def test_a_refused_field_is_named(body: Any) -> None:
    """P18 A message that is an object or a list, as FastAPI and Mistral send it, names the field
    and says why."""
    failure = classify(422, json.dumps(body).encode(), {})
    assert (failure.meaning, failure.reason) == ("row", "bad_request")
    assert failure.message == SAYS


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": "invalid_request"}, "HTTP 400 (invalid_request)", "invalid_request"),
        ({"error": {"message": "bad_thing"}}, "HTTP 400 (bad_thing)", "bad_thing"),
        ({"error": {"message": None, "code": "x1"}}, "HTTP 400 (x1)", "x1"),
        (
            {"error": "invalid_grant", "error_description": "It expired"},
            "It expired",
            "invalid_grant",
        ),
        ({"message": "Unauthorized", "request_id": "1"}, "Unauthorized", None),
        ({"errors": [{"message": "n is too large"}]}, "n is too large", None),
        ({"error": [{"msg": "no"}, {"msg": "never"}]}, "no; never", None),
        ({"code": "Invalid argument", "error": "No stop"}, "No stop", "Invalid argument"),
        ({"error": {"errors": [{"line": 3, "message": "no model"}]}}, "line 3: no model", None),
        ({"error": {"foo": 1}}, '{"error": {"foo": 1}}', None),
        ({"x": "y"}, '{"x": "y"}', None),
    ],
)
def test_the_words_are_found_and_a_code_is_no_message(
    body: Any, message: str, code: str | None
) -> None:
    """P18 What a user reads are the server's own words; without any, its code or what it sent."""
    failure = classify(400, json.dumps(body).encode(), {})
    assert (failure.message, failure.code) == (message, code)


def test_no_status_is_made_up() -> None:
    """P18 An error within a reply of status 200, or in the object of a batch, has no other."""
    body = json.dumps({"error": {"code": 429, "message": "slow"}}).encode()
    assert (classify(200, body, {}).status, classify(200, body, {}).meaning) == (200, "throttled")
    bare = json.dumps({"error": {"code": "whatever"}}).encode()
    failure = classify(None, bare, {})
    assert (failure.status, failure.meaning, failure.message) == (None, "row", "whatever")


def test_a_code_in_what_the_row_sent_means_nothing() -> None:
    """P18 FastAPI returns the row's input with its error; a code in it is the row's text."""
    detail = {"loc": ["body"], "msg": "no", "input": {"error": {"code": "insufficient_quota"}}}
    failure = classify(422, json.dumps({"detail": [detail]}).encode(), {})
    assert (failure.meaning, failure.reason) == ("row", "bad_request")
    text = "no 'Your credit balance is too low' here"
    words = classify(400, json.dumps({"error": {"message": text}}).encode(), {})
    assert (words.meaning, words.reason) == ("row", "bad_request")


NESTED = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["message", "detail", "details", "loc", "msg", "reason"]), inner
        )
    ),
)


@given(NESTED)
def test_any_nesting_is_a_message(value: Any) -> None:
    """P18 Whatever an error holds, its message is text."""
    for body in ({"error": value}, {"object": "error", "message": value}, {"detail": value}):
        assert isinstance(classify(400, json.dumps(body).encode(), {}).message, str)
