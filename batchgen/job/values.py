"""The values of a job: the checks beyond their types, and what the JSON Schema shows of these.

A check raises ValueError with a sentence that follows the key's name.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from batchgen.job.positions import shorten

MAX_COMBINATIONS = 10_000
# The ending of simulated output folders; a job with real answers must not use it.
SIMULATED = ".simulated"

_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}"
_DURATION = (
    r"(?=.)([0-9]{1,6}(\.[0-9]{1,6})?h)?([0-9]{1,6}(\.[0-9]{1,6})?m)?([0-9]{1,6}(\.[0-9]{1,6})?s)?"
)
_PERCENT = r"[0-9]{1,3}(\.[0-9]{1,6})?%"


def folder_name(name: str) -> str:
    """The name, which must be safe as the name of a folder. Raises ValueError."""
    if not re.fullmatch(_NAME, name):
        raise ValueError(
            "must be 1 to 100 of the letters A-Z and a-z, digits . _ - and must not begin with "
            "a dot"
        )
    if name.lower().endswith(SIMULATED):
        raise ValueError(f"must not end in {SIMULATED}, which marks simulated outputs")
    return name


def _path(text: str) -> str:
    if not text or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("must be a path, without control characters")
    return text


def _folder_path(text: str) -> str:
    last = os.path.basename(os.path.normpath(_path(text)))
    if not last:
        raise ValueError("must be a folder below the root")
    if last.lower().endswith(SIMULATED):
        raise ValueError(f"must not end in {SIMULATED}, which marks simulated outputs")
    return text


def _delimiter(text: str) -> str:
    if len(text) != 1 or text in '"\r\n\0':
        raise ValueError('must be one character and no quote, in quotes: ";" or, for a tab, "\\t"')
    return text


def _encoding(name: str) -> str:
    try:
        "".encode(name)
    except (LookupError, UnicodeError, ValueError):
        raise ValueError(
            "is not a text encoding that Python knows; use one such as utf-8, utf-16, cp1252, "
            "shift_jis"
        ) from None
    return name


def _header(names: Any) -> Any:
    if names is not False:
        if not names:
            raise ValueError("must be false, or a list of names")
        distinct(names)
    return names


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("a value of an axis must be text, a number, true or false")
    return value


def _axis_name(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(
            "an axis is a column in templates, so its name must be letters, digits and _, not "
            "beginning with a digit"
        )
    return name


def _axis(value: Any) -> Any:
    """The values of an axis; a number N stands for 1..N."""
    if isinstance(value, bool) or not isinstance(value, int | list):
        raise ValueError(
            "must be a list of values, such as [German, French], or a number N for 1..N"
        )
    if isinstance(value, list):
        return value
    if not 1 <= value <= MAX_COMBINATIONS:
        raise ValueError(f"must be 1 to {MAX_COMBINATIONS:,}")
    return list(range(1, value + 1))


def distinct(values: list[Any]) -> list[Any]:
    """The values, which must differ as text: ids, tables and templates see only their text.

    Raises ValueError.
    """
    seen: set[str] = set()
    for value in values:
        if str(value) in seen:
            raise ValueError(f"{shorten(str(value))} is listed twice")
        seen.add(str(value))
    return values


def few_combinations(matrix: dict[str, list[Any]]) -> dict[str, list[Any]]:
    total = math.prod(len(values) for values in matrix.values())
    if total > MAX_COMBINATIONS:
        raise ValueError(
            f"every row would run {total:,} times; at most {MAX_COMBINATIONS:,} combinations "
            "are allowed"
        )
    return matrix


def unsendable(name: str, kind: str | None) -> str | None:
    """Why a field of a request's body cannot be sent, whatever its value; None if it can."""
    if name == "stream":
        return "batchgen records whole answers and cannot stream"
    # For image kinds, background is the colour behind the picture; for others, it asks the server
    # to keep the answer.
    if name == "background" and kind not in ("image", "image_edit"):
        return "batchgen waits for each answer itself and cannot fetch it later"
    return None


def _request_key(name: str, info: ValidationInfo) -> str:
    if why := unsendable(name, info.data.get("kind")):
        raise ValueError(f"{why}; remove this line")
    return name


def _usd(value: Any) -> Decimal:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not value > 0
        or math.isinf(value)
    ):
        raise ValueError("must be a number of USD above 0, such as 5.00")
    return Decimal(str(value))


def _seconds(value: Any) -> float:
    """A time such as "4h", "1h30m" or a number of seconds, as seconds. Raises ValueError."""
    seconds = 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and re.fullmatch(_DURATION, value):
        units = {"h": 3600, "m": 60, "s": 1}
        seconds = sum(
            float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)([hms])", value)
        )
    if not 0 < seconds < math.inf:
        raise ValueError(
            'must be a time above 0, such as "4h", "90m", "1h30m", or a number of seconds'
        )
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxFailures:
    """How many rows may fail: a count, or a percentage of the rows in scope."""

    amount: Decimal
    percent: bool

    def allows(self, failures: int, rows: int) -> bool:
        """Whether this many failed and incomplete rows of `rows` in scope are allowed."""
        return failures <= self.most(rows)

    def most(self, rows: int) -> int:
        """How many of `rows` in scope may fail."""
        return int(self.amount * rows / 100) if self.percent else int(self.amount)


def _max_failures(value: Any) -> MaxFailures:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return MaxFailures(amount=Decimal(value), percent=False)
    if isinstance(value, str) and re.fullmatch(_PERCENT, value) and Decimal(value[:-1]) <= 100:
        return MaxFailures(amount=Decimal(value[:-1]), percent=True)
    raise ValueError('must be a percentage up to 100, such as "1%", or a whole number from 0')


Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[str, AfterValidator(_path)]


def path_or_mapping(value: Any) -> Any:
    """A file's path, or a mapping as it is. Raises ValueError."""
    if isinstance(value, str):
        return _path(value)
    if value is None or isinstance(value, dict):
        return value
    raise ValueError("must be the name of a file or a JSON Schema, which is a mapping")


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# USD, for a million tokens or one picture.
Rate = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Scalar = Annotated[
    str | int | float | bool,
    PlainValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
_AXIS_SCHEMA = {
    "anyOf": [
        {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_COMBINATIONS,
            "description": "N: the values 1..N",
        },
        {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}},
    ]
}
Axis = Annotated[
    list[Scalar],
    Field(min_length=1),
    AfterValidator(distinct),
    BeforeValidator(_axis),
    WithJsonSchema(_AXIS_SCHEMA),
]
Name = Annotated[
    str, AfterValidator(folder_name), Field(json_schema_extra={"pattern": f"^{_NAME}$"})
]
FolderPath = Annotated[str, AfterValidator(_folder_path)]
Delimiter = Annotated[
    str, AfterValidator(_delimiter), Field(json_schema_extra={"minLength": 1, "maxLength": 1})
]
Encoding = Annotated[str, AfterValidator(_encoding)]
# The names of the columns of a file without a header, or false.
Header = Annotated[
    Literal[False] | list[Text],
    AfterValidator(_header),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": False},
                {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
            ]
        }
    ),
]
AxisName = Annotated[str, AfterValidator(_axis_name)]
RequestKey = Annotated[str, AfterValidator(_request_key)]
Duration = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": f"^{_DURATION}$"},
            ]
        }
    ),
]
Failures = Annotated[
    MaxFailures,
    BeforeValidator(_max_failures),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": f"^{_PERCENT}$"},
            ]
        }
    ),
]
Usd = Annotated[
    Decimal, BeforeValidator(_usd), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})
]
