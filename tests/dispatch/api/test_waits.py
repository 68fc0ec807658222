"""How long a server asks to wait, in each place and form in which servers say it."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.dispatch.api.errors import classify
from batchgen.dispatch.api.headers import LONGEST_REFILL, refill
from batchgen.dispatch.api.waits import wait_in

DATE = {"date": "Thu, 05 Nov 2026 12:00:00 GMT"}
# The same moment, in seconds since 1970.
NOW = 1793880000


def used_up(value: str, unit: str = "-requests", left: str = "0") -> dict[str, str]:
    return {f"x-ratelimit-remaining{unit}": left, f"x-ratelimit-reset{unit}": value, **DATE}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        (used_up("17ms"), 0.017),
        (used_up("8.64s"), 8.64),
        (used_up("1m2.5s"), LONGEST_REFILL),
        (used_up("6m0s"), LONGEST_REFILL),
        (used_up("20"), 20.0),
        (used_up("59.7"), 59.7),
        (used_up("20", left="-27689"), 20.0),
        (used_up("20", left="1"), None),
        (used_up("-1", left="-1"), None),
        (used_up("0"), None),
        (used_up("soon"), None),
        (used_up("", left=""), None),
        ({**used_up("20"), **used_up("7s", "-tokens")}, 20.0),
        ({**used_up("20", left="3"), **used_up("7s", "-tokens")}, 7.0),
        # OpenRouter: the moment at which the limit that was hit ends, which may be a day's.
        (used_up(f"{NOW + 7200}000", unit=""), 7200.0),
        (used_up(f"{NOW + 30}", unit=""), 30.0),
        (used_up(f"{NOW - 30}", unit=""), None),
        ({f"llm_provider-{name}": value for name, value in used_up("4s").items()}, 4.0),
        (
            {
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-05T12:00:25Z",
                "anthropic-ratelimit-requests-remaining": "7",
                "anthropic-ratelimit-requests-reset": "2026-11-05T12:00:59Z",
                **DATE,
            },
            25.0,
        ),
    ],
)
def test_a_limit_that_is_used_up_says_when_it_has_room(
    headers: dict[str, str], seconds: float | None
) -> None:
    """P22 A 429 without Retry-After waits for the limit that is used up: durations, seconds, times
    since 1970 and RFC 3339; never long for a limit whose reset says when it is full."""
    assert refill(headers) == (None if seconds is None else pytest.approx(seconds))
    assert classify(429, b"", headers).retry_after == refill(headers)
    assert classify(400, b"", headers).retry_after is None


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached for m. Limit: 3 / min. Please try again in 20s. Visit x", 20.0),
        ("Limit 100000, Used 97050, Requested 3619. Please try again in 9m38.016s. Need", 578.016),
        ("Please try again in 120ms.", 0.12),
        ("Please try again in 1h0m1s.", 3601.0),
        ("Please retry in 58.934310785s.", 58.934310785),
        (
            "have exceeded call rate limit of your S0 pricing tier. Please retry after 26 seconds.",
            26,
        ),
        ("Rate limit is exceeded. Try again in 1 second.", 1.0),
        ("try again in 12 s", 12.0),
        ("Please try again in 2 minutes", 120.0),
        ("Please try again in a few seconds", None),
        ("Please try again later", None),
        ("Limit 20s", None),
        (f"Please try again in {'9' * 400}s", 1e9),
    ],
)
def test_a_wait_in_the_words_of_a_message(message: str, seconds: float | None) -> None:
    """P22 The forms in which OpenAI, Groq, Gemini and Azure word it, for a failure that passes."""
    body = json.dumps({"error": {"message": message}}).encode()
    assert classify(429, body, {}).retry_after == seconds
    assert classify(429, body, {"retry-after": "3"}).retry_after == 3
    assert classify(400, body, {}).retry_after is None


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("53s", 53.0), ("45.837906927s", 45.837906927), ("0s", 0.0), (53, None), ("soon", None)],
)
def test_a_wait_in_the_details_of_a_body(delay: Any, seconds: float | None) -> None:
    """P22 Gemini names it in a google.rpc.RetryInfo, and in no header."""
    error = {
        "code": 429,
        "message": "You exceeded your current quota.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
        ],
    }
    for body in ({"error": error}, [{"error": error}]):
        failure = classify(429, json.dumps(body).encode(), {})
        assert (failure.meaning, failure.retry_after) == ("throttled", seconds)


@given(
    value=st.text(max_size=20) | st.integers().map(str) | st.floats().map(str),
    left=st.sampled_from(["0", "-1"]),
    unit=st.sampled_from(["", "-tokens"]),
)
def test_any_reset_is_read(value: str, left: str, unit: str) -> None:
    """P22 No value breaks it, and no wait is negative or endless."""
    for headers in (used_up(value, unit, left), {**used_up(value, unit, left), "date": value}):
        seconds = refill(headers)
        assert seconds is None or 0 <= seconds < math.inf


@given(
    body=st.recursive(
        st.none() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["error", "details", "retryDelay"]), inner)
        ),
    ),
    message=st.text(),
)
def test_any_body_is_searched_for_a_wait(body: Any, message: str) -> None:
    """P22 No body breaks it."""
    wait_in(body, message)


def test_a_clock_that_is_wrong_moves_no_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """P16 A moment counts from the server's own Date."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert refill(used_up(f"{NOW + 30}", unit="")) == 30
