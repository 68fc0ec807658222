"""The lines of the Batch API's files (JSON Lines): requests in one file, results in two others.

```text
input           {"custom_id": "7", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
output, errors  {"id": "batch_req_1", "custom_id": "7", "error": null,
                 "response": {"status_code": 200, "request_id": "r", "body": {...}}}
                for a request without a response, `response` is null and
                `error` is {"code": "batch_expired", "message": "..."}
```
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# The error codes of requests that were never executed.
UNEXECUTED = ("batch_expired", "batch_cancelled")

# The statuses of HTTP (RFC 9110, 15), as a number or a text.
_STATUS = re.compile(r"([1-5][0-9]{2})(\.0)?")

# What a line's url has before the endpoint, also when the server's own base URL has another path.
URL_PREFIX = "/v1"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one request: an HTTP response, an error, or neither (a line without an answer).

    custom_id: of the request
    status, request_id, body: of the response; status is None without one
    error: an object with a code and a message, or None
    """

    custom_id: str
    status: int | None = None
    request_id: str | None = None
    body: Any = None
    error: Mapping[str, Any] | None = None

    @property
    def executed(self) -> bool:
        """Whether the request may have been executed, successfully or not."""
        return self.error is None or self.error.get("code") not in UNEXECUTED


def request_line(custom_id: str, endpoint: str, body: Mapping[str, Any]) -> bytes:
    """A request as a line of an input file; `endpoint` such as /chat/completions."""
    return _line(
        {"custom_id": custom_id, "method": "POST", "url": URL_PREFIX + endpoint, "body": body}
    )


def result_line(name: str, result: Result) -> bytes:
    """A result as a line of an output or error file; `name` is the id of the line itself."""
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
        # A reply may hold half of a surrogate pair, which UTF-8 cannot encode; JSON's escapes can.
        return _encode_ascii(value).encode()


def parse_result(line: bytes, parse: Callable[[bytes], Any] = json.loads) -> Result:
    """Parse a line of an output or error file, as JSON with `parse`.

    Raises ValueError for any other line.

    A line that names its request, and has neither a body nor an error, is a result too: servers
    write such lines, with status 0, for requests that they lost. A body counts without a status, so
    that no answer is paid for again because a number beside it is wrong. An error counts where
    there is no body.
    """
    try:
        record = parse(line)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    custom_id = record.get("custom_id") if isinstance(record, dict) else None
    if type(custom_id) not in (str, int):
        raise ValueError("is not an object with a custom_id")
    name, error = str(custom_id), record.get("error")
    error = error if isinstance(error, dict) else None
    response = record.get("response")
    status = _status(response) if isinstance(response, dict) else None
    if status is None:
        return Result(custom_id=name, error=error)
    body, request_id = response.get("body"), response.get("request_id")
    if error and not body:
        if status < 300:
            return Result(custom_id=name, error=error)
        body = {"error": error}
    return Result(
        custom_id=name,
        status=status,
        request_id=request_id if isinstance(request_id, str) and request_id else None,
        body=body,
    )


def _status(response: Mapping[str, Any]) -> int | None:
    """The HTTP status of a response; 200 for one that has a body alone, None without either."""
    if match := _STATUS.fullmatch(str(response.get("status_code"))):
        return int(match[1])
    body = response.get("body")
    return 200 if isinstance(body, dict) and body else None
