"""The lines of the Batch API's files, JSON Lines: a request in the one file, what became of it in the two others.

```text
input           {"custom_id": "7", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
output, errors  {"id": "batch_req_1", "custom_id": "7", "response": {"status_code": 200, "request_id": "r", "body": {...}},
                 "error": null}, or for a request without a response null and {"code": "batch_expired", "message": "..."}
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What the error file says of requests that were never executed.
UNANSWERED = ("batch_expired", "batch_cancelled")

# The statuses of HTTP (RFC 9110, 15).
_STATUSES = range(100, 600)

# What a line's url has before the endpoint, whatever the server's own base is.
URL_PREFIX = "/v1"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one request: an HTTP `status` with its `body`, or an `error` with a code and a message."""

    custom_id: str
    status: int | None = None
    request_id: str | None = None
    body: Any = None
    error: Mapping[str, Any] | None = None

    @property
    def answered(self) -> bool:
        """Whether the request was executed, or tried."""
        return self.error is None or self.error.get("code") not in UNANSWERED


def request_line(custom_id: str, endpoint: str, body: Mapping[str, Any]) -> bytes:
    """A request as a line of an input file; `endpoint` such as /chat/completions."""
    return _line(
        {"custom_id": custom_id, "method": "POST", "url": URL_PREFIX + endpoint, "body": body}
    )


def result_line(name: str, result: Result) -> bytes:
    """What became of a request as a line of an output or error file; `name` is the line's own id."""
    response = None
    if result.status is not None:
        response = {
            "status_code": result.status,
            "request_id": result.request_id or "",
            "body": result.body,
        }
    return _line(
        {"id": name, "custom_id": result.custom_id, "response": response, "error": result.error}
    )


def _line(value: Mapping[str, Any]) -> bytes:
    return encoded(value) + b"\n"


def encoded(value: Any) -> bytes:
    """JSON without spaces, in UTF-8."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, as a reply may hold: JSON's escapes hold what UTF-8 cannot.
        return _encode_ascii(value).encode()


def parse_result(line: bytes) -> Result:
    """A line of an output or error file. Raises ValueError for what is none."""
    try:
        told = json.loads(line)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if not isinstance(told, dict) or not isinstance(told.get("custom_id"), str):
        raise ValueError("is no object with a custom_id")
    response, error = told.get("response"), told.get("error")
    if (
        isinstance(response, dict)
        and type(response.get("status_code")) is int
        and response["status_code"] in _STATUSES
    ):
        named = response.get("request_id")
        return Result(
            custom_id=told["custom_id"],
            status=response["status_code"],
            request_id=named if isinstance(named, str) and named else None,
            body=response.get("body"),
        )
    if isinstance(error, dict):
        return Result(custom_id=told["custom_id"], error=error)
    raise ValueError("has neither a response nor an error")
