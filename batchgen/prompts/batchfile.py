"""Lines -> rows that are themselves requests: an input file of the Batch API.

This module checks what all requests have in common; `batchgen.requests` checks the body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from json import JSONDecoder
from json.decoder import WHITESPACE  # type: ignore[attr-defined]  # the decoder has it, the stubs lack it
from typing import Any

from batchgen.batch_format import URL_PREFIX
from batchgen.errors import did_you_mean
from batchgen.kinds import KIND_BY_ENDPOINT
from batchgen.prompts.lines import Lines
from batchgen.prompts.options import TableOptions
from batchgen.prompts.records import json_row
from batchgen.prompts.rows import RawRow, RawTable, RowError

# The fields of a line; any other field is an ordinary column, and is not sent.
FIELDS = ("custom_id", "method", "url", "body")
URLS = tuple(URL_PREFIX + endpoint for endpoint in KIND_BY_ENDPOINT)

_decode = JSONDecoder().raw_decode


def read_batch(lines: Lines, options: TableOptions) -> RawTable:
    """One request a line; blank lines are skipped."""
    rows = (_request(number, line) for number, line in lines.plain() if line.strip(" \t\r"))
    return RawTable(delimiter="", header=None, rows=rows)


def _request(number: int, line: str) -> RawRow:
    """The row of a line; it has all FIELDS, in this order, even if the line lacks some."""
    _, fields, error = json_row(number, line, texts=False)
    return batch_row(number, fields, error, partial(_column, line))


def batch_row(
    number: int,
    fields: Mapping[str, Any],
    error: RowError | None = None,
    column: Callable[[str], int] = lambda name: 0,
) -> RawRow:
    """The row of a request.

    Args:
        number: of its line.
        fields: what it holds.
        error: why it could not be read whole, or None.
        column: says where on the line the value of a name begins, from 1; 0: unknown.
    """
    columns = {**{name: fields.get(name) for name in FIELDS}, **fields}
    if error is None:
        wrong = next(_wrong_fields(columns), None)
        error = RowError(f"{wrong[0]}: {wrong[1]}", column(wrong[0])) if wrong else None
    return number, columns, error


def _wrong_fields(columns: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields whose values are wrong, and what they must be."""
    custom_id, method, url, body = (columns[name] for name in FIELDS)
    if not isinstance(custom_id, str) or not custom_id:
        yield "custom_id", "must be a text that is not empty; it names the request"
    if method != "POST":
        yield "method", 'must be "POST"'
    if not isinstance(url, str) or url not in URLS:
        near = did_you_mean(url, URLS) if isinstance(url, str) and len(url) <= 60 else ""
        yield "url", f"must be one of {', '.join(URLS)}{near}"
    if not isinstance(body, dict):
        yield "body", "must be an object: the request's own JSON"


def _column(line: str, wanted: str) -> int:
    """Where the value of a name begins in a line that holds an object, from 1; 0 where the object
    has no such name.
    """
    at = line.index("{")
    while line[at] != "}" and line[_past(line, at)] != "}":
        name, at = _decode(line, _past(line, at))
        start = _past(line, _past(line, at, blank=0))
        if name == wanted:
            return start + 1
        _, at = _decode(line, start)
        at = _past(line, at, blank=0)
    return 0


def _past(line: str, at: int, *, blank: int = 1) -> int:
    """Where the next token begins: `at`, plus `blank` characters, plus the white space there."""
    return int(WHITESPACE.match(line, at + blank).end())
