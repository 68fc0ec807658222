"""How long a server asks to wait: by Retry-After, or in the body of an error.

Sources: Retry-After, RFC 9110, 10.2.3; retry-after-ms, OpenAI and Azure; RetryInfo, Google's
google/rpc/error_details.proto; words, see `_WORDS`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

# Numbers above these are times: seconds, and milliseconds, since 1970.
_SECONDS_SINCE_1970 = 1e9
_MILLISECONDS_SINCE_1970 = 1e12

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"\d+(?:\.\d+)?(?:ms|us|µs|ns|h|m|s)"
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
_DURATION = re.compile(rf"(?:{_PART})+")

# OpenAI, Groq: "Please try again in 1m12.5s"; Gemini: "Please retry in 58.9s"; Azure: "Please retry
# after 26 seconds", "Try again in 2 seconds".
_WORDS = re.compile(
    rf"\b(?:try again in|retry in|retry after) (?:(?P<duration>(?:{_PART})+)\b"
    r"|(?P<number>\d+(?:\.\d+)?) (?P<unit>ms|s|m|h)(?:ec|econd|in|inute|our)?s?\b)",
    re.IGNORECASE,
)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the headers Retry-After and retry-after-ms; None if they name none, or
    nonsense.
    """
    milliseconds = number_in(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds * 0.001
    value = headers.get("retry-after")
    seconds = number_in(value)
    if seconds is not None or value is None:
        return seconds
    due = _date(value)
    return None if due is None else max(0.0, due - _now(headers))


def wait_in(body: Any, message: str) -> float | None:
    """Seconds to wait by the body of an error: Google's RetryInfo, or the words of its message."""
    delay = _retry_delay(body)
    if delay is not None:
        return delay
    match = _WORDS.search(message)
    if match is None:
        return None
    return _duration(match["duration"] or match["number"] + match["unit"].lower())


def _retry_delay(body: Any) -> float | None:
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error") if isinstance(body, Mapping) else None
    details = error.get("details") if isinstance(error, Mapping) else None
    for each in details if isinstance(details, list) else ():
        delay = each.get("retryDelay") if isinstance(each, Mapping) else None
        if isinstance(delay, str) and _DURATION.fullmatch(delay):
            return _duration(delay)
    return None


def seconds_until(value: str, headers: Mapping[str, str]) -> float | None:
    """Seconds until a limit's reset, written as a duration such as 6m0s, as seconds, as seconds or
    milliseconds since 1970, or as a date; None for nonsense.
    """
    value = value.strip()
    if _DURATION.fullmatch(value):
        return _duration(value)
    number = number_in(value)
    if number is None:
        due = _date(value)
        return None if due is None else max(0.0, due - _now(headers))
    if number >= _MILLISECONDS_SINCE_1970:
        return max(0.0, number / 1000 - _now(headers))
    return max(0.0, number - _now(headers)) if number >= _SECONDS_SINCE_1970 else number


def _duration(value: str) -> float:
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(value))
    return min(seconds, _SECONDS_SINCE_1970)


def _now(headers: Mapping[str, str]) -> float:
    """The server's own clock if it sends its Date, because this machine's may be wrong."""
    now = _date(headers.get("date"))
    return time.time() if now is None else now


def _date(value: str | None) -> float | None:
    """A date of HTTP or of RFC 3339, in seconds since 1970."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(value or "")
            # A date without a zone is in UTC.
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (TypeError, ValueError, OverflowError):
            continue
    return None


def number_in(value: str | None) -> float | None:
    """A number from 0 on; None for anything else."""
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
