"""What a failure means and when a row is tried again: tables, without a network."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, get_args

import pytest
from hostile import ERRORS
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseError

from batchgen.dispatch import PASSING, Failure, Meaning
from batchgen.dispatch.api.codes import CODES
from batchgen.dispatch.api.error_body import error_in
from batchgen.dispatch.api.errors import account_error, classify
from batchgen.dispatch.api.waits import retry_after
from batchgen.dispatch.retry import OWN_THROTTLES, Policy, Spent


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@pytest.mark.parametrize(
    ("name", "status", "body", "headers", "meaning", "reason"),
    ERRORS,
    ids=[each[0] for each in ERRORS],
)
def test_every_error_has_its_meaning(
    name: str, status: int, body: Any, headers: dict[str, str], meaning: str, reason: str
) -> None:
    """P18 The code before the status, in every shape that compatible servers send."""
    failure = classify(status, encoded(body), lower(headers))
    assert (failure.meaning, failure.reason) == (meaning, reason)
    assert failure.message


@given(status=st.integers(300, 599), body=st.binary(max_size=300))
def test_any_error_is_classified(status: int, body: bytes) -> None:
    """P18 Whatever the body, it means something."""
    failure = classify(status, body, {})
    assert failure.meaning in get_args(Meaning)
    assert failure.status == status


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "message", "type", "detail", "object", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(value=json_values)
def test_any_json_is_read_for_a_complaint(value: Any) -> None:
    """P18 No shape of JSON breaks the reading of it."""
    error_in(value)
    classify(200, json.dumps(value).encode(), {})


def test_what_a_failed_response_names_is_known() -> None:
    """P18 SDK contract: every code that a response with status "failed" can carry is in the
    table."""
    codes = set(get_args(ResponseError.model_fields["code"].annotation))
    assert codes
    assert codes <= set(CODES)


def test_a_gateway_that_gave_up_may_have_cost_money() -> None:
    """P25 The server behind a 504 may have answered, and billed."""
    assert classify(504, b"", {}).may_be_billed
    assert not classify(500, b"", {}).may_be_billed


def test_details_are_kept() -> None:
    """P46 Status, code, request id, and the requests a minute that the reply names."""
    body = encoded({"error": {"message": "m", "code": 429, "type": "t"}})
    failure = classify(
        429, body, {"x-request-id": "q", "x-ratelimit-limit-requests": "60", "retry-after": "3"}
    )
    assert failure == Failure(
        meaning="throttled",
        reason="throttled",
        message="m",
        status=429,
        code="429",
        request_id="q",
        retry_after=3.0,
        ceiling=60.0,
    )


@pytest.mark.parametrize("value", ["-1", "0", "", "inf", "nan", "1e400", "soon", "1s"])
def test_a_nonsensical_ceiling_is_none(value: str) -> None:
    """P22 Azure sends -1 and 0."""
    assert classify(429, b"", {"x-ratelimit-limit-requests": value}).ceiling is None


# -- Retry-After -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1e9"}, 1e9),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "junk", "retry-after": "1"}, 1.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1m30s"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 99999 07:28:00 GMT"}, None),
        (
            {
                "date": "Wed, 21 Oct 2015 07:28:00 GMT",
                "retry-after": "Wed, 21 Oct 2015 07:28:42 GMT",
            },
            42.0,
        ),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """P22 Retry-After as seconds, milliseconds, date and nonsense; a date by the server's own clock
    where it tells."""
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date_to_come() -> None:
    """P22 An HTTP date without a Date header counts from now."""
    due = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    assert 110 <= (retry_after({"retry-after": due}) or 0) <= 121


@given(value=st.text(max_size=30))
def test_any_retry_after_is_read(value: str) -> None:
    """P22 No value breaks it, and no wait is negative or endless."""
    seconds = retry_after({"retry-after": value, "retry-after-ms": value, "date": value})
    assert seconds is None or (0 <= seconds < math.inf)


# -- the policy ------------------------------------------------------------------------------------


def failed(meaning: Any, reason: str = "x", **parts: Any) -> Failure:
    return Failure(meaning=meaning, reason=reason, message="m", **parts)


@pytest.mark.parametrize(
    ("failure", "attempts"),
    [
        (failed("transient"), 6),
        (failed("network"), 6),
        (failed("timeout"), 2),
        (failed("transient", "invalid_response"), 6),
        (failed("row"), 1),
        (failed("account"), 1),
    ],
)
def test_attempts_by_class(failure: Failure, attempts: int) -> None:
    """P18 How often a row is tried, the first included; throttling always is tried again."""
    policy = Policy(attempts=6, max_wait=60)
    assert (
        next(
            spent
            for spent in range(1, 10)
            if not policy.should_retry(failure, Spent(attempts=spent, timeouts=spent))
        )
        == attempts
    )
    assert policy.should_retry(failed("throttled"), Spent(attempts=1000, timeouts=1000))
    assert failure.is_passing == (failure.meaning in PASSING)


def test_time_outs_count_among_themselves() -> None:
    """P18 A row that met a 502 and a reset has not used up the one time that it is tried again
    after a time-out."""
    policy = Policy(attempts=6, max_wait=60)
    assert policy.should_retry(failed("timeout", "timeout"), Spent(attempts=5, timeouts=1))
    assert not policy.should_retry(failed("timeout", "timeout"), Spent(attempts=6, timeouts=1))
    assert policy.should_retry(failed("transient"), Spent(attempts=5, timeouts=2))


def test_throttling_of_one_row_alone_ends_it() -> None:
    """P11 Throttled while others are answered, a row waits longer each time and ends; throttled
    like all, it never does."""
    policy = Policy(attempts=6, max_wait=60)
    assert policy.should_retry(failed("throttled"), Spent(throttles=OWN_THROTTLES - 1))
    assert not policy.should_retry(failed("throttled"), Spent(throttles=OWN_THROTTLES))
    assert max(policy.delay(failed("throttled"), Spent(throttles=6)) for _ in range(200)) > 10


def test_few_attempts_bound_every_class() -> None:
    """P18 `retry.attempts: 1` is one attempt, whatever happens; throttling spends none."""
    policy = Policy(attempts=1, max_wait=60)
    assert not any(
        policy.should_retry(failed(meaning), Spent(attempts=1, timeouts=1))
        for meaning in ("transient", "network", "timeout", "row", "account")
    )


def test_waits_grow_with_full_jitter() -> None:
    """P24 Exponential, at most max_wait, anything from nothing on; what the server asks for is the
    least."""
    policy = Policy(attempts=100, max_wait=20)
    for spent, most in ((1, 1), (2, 2), (3, 4), (5, 16), (50, 20)):
        waits = [policy.delay(failed("transient"), Spent(attempts=spent)) for _ in range(300)]
        assert 0 <= min(waits) < 0.2 * most
        assert 0.8 * most < max(waits) <= most
    assert policy.delay(failed("transient", retry_after=99.0), Spent(attempts=1)) == 99
    assert policy.delay(failed("throttled"), Spent(attempts=5)) == 0
    assert policy.delay(failed("throttled", retry_after=9.0), Spent()) == 9


@pytest.mark.parametrize(
    "reason", ["key", "quota", "permission", "model", "redirect", "service_tier"]
)
def test_an_account_failure_says_what_to_do(reason: str) -> None:
    """P23 One sentence: who refused what, and what to mend."""
    error = account_error(failed("account", reason), "api.test", "gpt-x")
    assert error.exit_code == 4
    assert str(error).endswith("then run again")


def test_every_account_reason_has_a_sentence() -> None:
    """P23 No reason in the tables is without one."""
    reasons = {each[5] for each in ERRORS if each[4] == "account"} | {
        reason for meaning, reason in CODES.values() if meaning == "account"
    }
    for reason in reasons:
        account_error(failed("account", reason), "h", "m")


def test_wall_time_is_only_read_for_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    """P16 A clock that jumps moves no wait that is given in seconds."""
    monkeypatch.setattr(time, "time", lambda: -1e12)
    assert retry_after({"retry-after": "7"}) == 7
