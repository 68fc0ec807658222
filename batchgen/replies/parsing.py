"""A reply's bytes -> its JSON, in which every number is one that JSON has."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple


class Parsed(NamedTuple):
    """A reply's JSON; `as_sent`: its numbers are those that were sent."""

    value: Any
    as_sent: bool


class _OddNumberError(Exception):
    """The text holds a number that JSON has not, or one beyond a float."""


def parse(data: bytes | str) -> Parsed:
    """Parse a reply. NaN, Infinity and numbers beyond a float become null.

    Servers send them, such as the logarithm of a probability of 0, but no file of JSON may hold
    them. The answer beside them is sound and paid for. Raises ValueError, RecursionError.
    """
    text = data if isinstance(data, str) else decoded(data)
    try:
        return Parsed(_STRICT.decode(text), True)
    except _OddNumberError:
        return Parsed(_LENIENT.decode(text), False)


def decoded(data: bytes) -> str:
    """The text of JSON's bytes, as json.loads decodes them. Raises ValueError."""
    return data.decode(json.detect_encoding(data), "surrogatepass")


def _refuse(word: str) -> None:
    raise _OddNumberError


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _OddNumberError
    return number


def _finite_or_null(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


_STRICT = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_LENIENT = json.JSONDecoder(parse_constant=lambda word: None, parse_float=_finite_or_null)
