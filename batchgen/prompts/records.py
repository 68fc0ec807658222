"""Lines -> rows without a header: JSONL and plain text."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator
from typing import Any, NoReturn

from batchgen.prompts.lines import Lines
from batchgen.prompts.options import TableOptions
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
# Python's own bound is about 1,000, less the depth of the calls, which is not the same wherever a
# row is used.
MOST_LEVELS = 200
_KINDS = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def read_txt(lines: Lines, options: TableOptions) -> RawTable:
    """Each line that is not empty is a prompt, in the column `prompt`."""
    rows: Iterator[RawRow] = (
        (number, {"prompt": line}, None) for number, line in lines.plain() if line
    )
    return RawTable(delimiter="", header=("prompt",), rows=rows)


def read_jsonl(lines: Lines, options: TableOptions) -> RawTable:
    """One JSON object, or text, a line; blank lines are skipped. A text is a `prompt`."""
    rows = (json_row(number, line) for number, line in lines.plain() if line.strip(" \t\r"))
    return RawTable(delimiter="", header=None, rows=rows)


def json_row(number: int, line: str, *, texts: bool = True) -> RawRow:
    """The row of a line of JSON; `texts`: whether it may be a text."""
    try:
        return number, _object(line, texts=texts), None
    except RowError as fault:
        return number, {}, fault


def _object(line: str, *, texts: bool) -> dict[str, Any]:
    """The object on the line, with the names at its top level in NFC. Raises RowError."""
    try:
        value = DECODER.decode(line)
        if isinstance(value, list):
            raise RowError(
                "expected a JSON object, found a list (prompts.format: json reads a file that is "
                "one list of objects or texts)"
            )
        return checked(value, line, texts=texts)
    except json.JSONDecodeError as error:
        raise RowError(f"{reason(error)}{_other_format(line)}", error.colno) from None
    except RecursionError:
        raise RowError("the JSON is nested too deeply") from None
    except ValueError:  # Python's own bound on the digits of an int
        raise RowError("a number has too many digits; write it as text") from None


def _other_format(line: str) -> str:
    """What to do about a line that is no JSON because its document goes on in the next lines."""
    begun = {"[": "an array of objects", "{": "an object over several lines"}.get(line.strip())
    if begun is None:
        return ""
    return f"; this is {begun}, and JSONL has one a line; prompts.format: json reads such files"


def reason(error: json.JSONDecodeError) -> str:
    """What is wrong with a JSON text, in plain words."""
    return _REASONS.get(error.msg, f"not JSON: {error.msg}")


def checked(value: Any, text: str, *, texts: bool = True) -> dict[str, Any]:
    """The row that a value is, as it was read from `text`: the names at its top level in NFC.

    With `texts` it may be a text, which is the column `prompt`. Raises RowError.
    """
    if texts and isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, dict):
        raise RowError(
            f'expected a JSON object such as {{"prompt": "…"}}, found {_KINDS[type(value)]}'
        )
    if text.count("[") + text.count("{") > MOST_LEVELS and _levels(value) > MOST_LEVELS:
        raise RowError(f"the JSON is nested too deeply: more than {MOST_LEVELS} levels")
    try:
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RowError(
            r"a \ud800 to \udfff escape is half a character; write both halves, or leave it out"
        ) from None
    if all(map(str.isascii, value)):
        return value
    return unique([(unicodedata.normalize("NFC", name), item) for name, item in value.items()])


def _levels(value: Any) -> int:
    """How deep lists and objects are nested in a value. Without recursion, which has a bound."""
    levels, here = 0, [value]
    while here := [item for item in here if isinstance(item, dict | list)]:
        levels += 1
        here = [
            inner for item in here for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return levels


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object from its pairs; the decoder calls this for every object, nested ones too.

    Raises RowError.
    """
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


DECODER = json.JSONDecoder(object_pairs_hook=unique, parse_float=_finite, parse_constant=_constant)
