"""A result file of an ended batch (its output or error file) -> what it says of each request.

The custom_id of a line is the number of its request in the input file. A line that belongs to no
request of the batch is skipped: the server may add whatever it likes, and it changes no outcome. A
line that begins like an object and cannot be read is counted: it was the line of some request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from batchgen.batch_format import Result, encoded, parse_result
from batchgen.disk import translating_errors
from batchgen.dispatch.api.http import Reply

# Lines, and bytes of them, that are read and recorded together: a bound on memory.
GROUP = 250
GROUP_BYTES = 4 * 1024 * 1024


class LineResult(NamedTuple):
    """What a line says of its request.

    reply: as the online API would have sent it; None for a request without one
    body: the JSON of the reply
    executed: whether the server may have executed the request
    is_http: whether `reply` is an HTTP reply; if not, it is an error that came without one
    """

    reply: Reply | None
    body: Any
    executed: bool = True
    is_http: bool = True

    @property
    def is_success(self) -> bool:
        """Whether there is an HTTP reply with a success status."""
        return self.is_http and self.reply is not None and 200 <= self.reply.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What some lines say, by line of the input file; `torn` is how many cannot be read."""

    by_line: Mapping[int, LineResult]
    torn: int = 0


def read_results(
    path: Path, requests: int, longest: int, parse: Callable[[bytes], Any]
) -> Iterator[Results]:
    """Read a result file in groups that are recorded together.

    path: the file
    requests: how many the batch has
    longest: bytes of a line; a longer one is skipped
    parse: parses a line, without the API key
    """
    with translating_errors(path), path.open("rb") as file:
        while lines := _next_lines(file, longest):
            group: dict[int, LineResult] = {}
            torn = 0
            for line in lines:
                try:
                    result = parse_result(line, parse)
                    number = _line_number(result.custom_id)
                    if number is None or not 0 < number <= requests:
                        continue
                    line_result = _line_result(result)
                    held = group.setdefault(number, line_result)
                    # Of several lines of a request an answer counts: it is paid for.
                    if line_result.is_success and not held.is_success:
                        group[number] = line_result
                # RecursionError: a body may be nested too deep to be written again.
                except (ValueError, RecursionError):
                    torn += _is_torn(line)
            yield Results(by_line=group, torn=torn)


def _next_lines(file: IO[bytes], longest: int) -> list[bytes]:
    """The next lines; none at the end. A line of more than `longest` bytes becomes empty."""
    lines: list[bytes] = []
    size = 0
    while len(lines) < GROUP and size < GROUP_BYTES and (line := file.readline(longest)):
        if len(line) == longest and not line.endswith(b"\n"):
            while (rest := file.readline(longest)) and not rest.endswith(b"\n"):
                pass
            line = b""
        lines.append(line)
        size += len(line)
    return lines


def _is_torn(line: bytes) -> bool:
    """Whether a line begins as an object but is not JSON in UTF-8.

    The last line of a file that was cut off does not count: it is missing, like the lines after it.
    """
    if not (line.startswith(b"{") and line.endswith(b"\n")):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _line_number(custom_id: str) -> int | None:
    """The number in a custom_id, written exactly as batchgen writes it; None for any other text."""
    number = int(custom_id) if custom_id.isdecimal() and len(custom_id) < 10 else 0
    return number if str(number) == custom_id else None


def _line_result(result: Result) -> LineResult:
    if result.status is not None:
        return LineResult(_reply(result.status, result.body, result.request_id), result.body)
    if result.error is None or not result.executed:
        return LineResult(None, None, result.executed)
    body = {"error": result.error}
    return LineResult(_reply(200, body, None), body, is_http=False)


def _reply(status: int, body: Any, request_id: str | None) -> Reply:
    return Reply(
        status=status,
        headers={"x-request-id": request_id} if request_id else {},
        body=encoded(body),
    )
