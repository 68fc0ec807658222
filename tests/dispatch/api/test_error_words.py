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


def test_a_reason_in_the_details_decides() -> None:
    """P23 A key that is refused with 400 and says so in its details stops the job."""
    error = {
        "code": 400,
        "message": "API key not valid.",
        "status": "INVALID_ARGUMENT",
        "details": [{"@type": "type.googleapis.com/x", "reason": "API_KEY_INVALID"}],
    }
    for body in ({"error": error}, [{"error": error}]):
        failure = classify(400, json.dumps(body).encode(), {})
        assert (failure.meaning, failure.reason) == ("account", "key")


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
