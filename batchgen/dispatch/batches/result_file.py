"""A result file of an ended batch (its output or error file) -> what it says of each request.

The custom_id of a line is the number of its request in the input file. A line that cannot be read,
or that does not belong to a request of the batch, is skipped, so lines that a server adds do no
harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from batchgen.batch_format import Result, encoded, parse_result
from batchgen.disk import translating_errors
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.batches.retrying import Json

# Lines, and bytes of them, that are read and recorded together: a bound on memory.
GROUP = 250
GROUP_BYTES = 4 * 1024 * 1024


class LineResult(NamedTuple):
    """What a line says of its request.

    reply: as the online API would have sent it; None for a request that was never executed
    body: the JSON of the reply
    """

    reply: Reply | None
    body: Any


def read_results(
    path: Path, requests: int, longest: int, parse: Callable[[bytes], Any]
) -> Iterator[dict[int, LineResult]]:
    """Read a result file in groups that are recorded together: input file line -> its result.

    path: the file
    requests: how many the batch has
    longest: bytes of a line; a longer one is skipped
    parse: parses a line, without the API key
    """
    with translating_errors(path), path.open("rb") as file:
        while lines := _next_lines(file, longest):
            group: dict[int, LineResult] = {}
            for line in lines:
                # RecursionError: a body may be nested too deep to be written again.
                with suppress(ValueError, RecursionError):
                    result = parse_result(line, parse)
                    number = _line_number(result.custom_id)
                    if number is not None and number <= requests:
                        group.setdefault(number, _line_result(result))
            yield group


def error_reply(error: Json) -> Reply:
    """The reply that the online API would have sent for an error of the batch's object."""
    return _reply(400, {"error": dict(error)}, None)


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


def _line_number(custom_id: str) -> int | None:
    """The number in a custom_id, written exactly as batchgen writes it; None for any other text."""
    number = int(custom_id) if custom_id.isdecimal() and len(custom_id) < 10 else 0
    return number if str(number) == custom_id else None


def _line_result(result: Result) -> LineResult:
    if result.status is not None:
        return LineResult(_reply(result.status, result.body, result.request_id), result.body)
    if not result.answered:
        return LineResult(None, None)
    body = {"error": result.error}
    return LineResult(_reply(200, body, None), body)


def _reply(status: int, body: Any, request_id: str | None) -> Reply:
    return Reply(
        status=status,
        headers={"x-request-id": request_id} if request_id else {},
        body=encoded(body),
    )
