"""Lines -> rows without a header: JSONL and plain text."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator
from typing import Any, NoReturn

from batchgen.prompts.lines import Lines
from batchgen.prompts.rows import RawRow, RawTable, RowError

# The json module's reasons in plain words.
_REASONS = {
    "Expecting value": "a value is missing, or is not JSON",
    "Expecting property name enclosed in double quotes": "expected a name in double quotes",
    "Expecting ':' delimiter": "expected a colon after the name",
    "Expecting ',' delimiter": "expected a comma or the closing bracket",
    "Illegal trailing comma before end of object": "a comma stands before the closing bracket",
    "Illegal trailing comma before end of array": "a comma stands before the closing bracket",
    "Unterminated string starting at": "a text that starts here is never closed by a double quote",
    "Invalid control character at": "a control character inside a text must be "
    r"written as an escape, such as \n or \t",
    "Invalid \\escape": r"a backslash must be written as \\",
    "Invalid \\uXXXX escape": r"\u must be followed by four hexadecimal digits",
    "Extra data": "there is more text after the object; each line holds one object",
}
_KINDS = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def read_txt(lines: Lines, delimiter: str | None) -> RawTable:
    """Each line that is not empty is a prompt, in the column `prompt`."""
    rows: Iterator[RawRow] = (
        (number, {"prompt": line}, None) for number, line in lines.plain() if line
    )
    return RawTable(delimiter="", header=("prompt",), rows=rows)


def read_jsonl(lines: Lines, delimiter: str | None) -> RawTable:
    """One JSON object a line; blank lines are skipped."""
    rows = (json_row(number, line) for number, line in lines.plain() if line.strip(" \t\r"))
    return RawTable(delimiter="", header=None, rows=rows)


def json_row(number: int, line: str) -> RawRow:
    """The row of a line of JSON."""
    try:
        return number, _object(line), None
    except RowError as fault:
        return number, {}, fault


def _object(line: str) -> dict[str, Any]:
    """The object on the line, with the names at its top level in NFC. Raises RowError."""
    try:
        value = _DECODER.decode(line)
        if not isinstance(value, dict):
            raise RowError(
                f'expected a JSON object such as {{"prompt": "…"}}, found {_KINDS[type(value)]}'
            )
        if "\\ud" in line or "\\uD" in line:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        # A line with only `[` begins one JSON document over many lines, not one object a line.
        array = (
            "; a .jsonl has one object a line, not one array of them" if line.strip() == "[" else ""
        )
        raise RowError(
            f"{_REASONS.get(error.msg, f'not JSON: {error.msg}')}{array}", error.colno
        ) from None
    except UnicodeEncodeError:
        raise RowError(
            r"a \ud800 to \udfff escape is half a character; write both halves, or leave it out"
        ) from None
    except RecursionError:
        raise RowError("the JSON is nested too deeply") from None
    except ValueError:  # Python's own bound on the digits of an int
        raise RowError("a number has too many digits; write it as text") from None
    if all(map(str.isascii, value)):
        return value
    return _unique([(unicodedata.normalize("NFC", name), item) for name, item in value.items()])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object from its pairs; the decoder calls this for every object, nested ones too."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RowError(f"the name {twice!r} stands twice in one object; remove or rename one")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise RowError(f"the number {text[:40]} is too large")
    return value


def _constant(text: str) -> NoReturn:
    raise RowError(f"{text} is not JSON; write null, or a number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant
)
