"""Python's objects, and those of NumPy and pandas -> values of JSON."""

from __future__ import annotations

import base64
import math
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from batchgen.prompts.records import MOST_LEVELS, unique
from batchgen.prompts.rows import RowError

_AS_THEY_ARE = (str, int, bool, type(None))
# Values that JSON says as texts, and how str writes them is a standard or plain.
_WRITTEN = (Decimal, UUID, PurePath, timedelta)


def plain_object(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """A row of named values as JSON has it, with its names in NFC. Raises RowError."""
    row: list[tuple[str, Any]] = []
    for name, value in pairs:
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise RowError(f"a column is called {name!r}; its name must be a text")
        try:
            # Most are plain already.
            plain = value if type(value) in _AS_THEY_ARE else plain_value(value, 1)
            row.append((unicodedata.normalize("NFC", str(name)), plain))
        except RowError as fault:
            raise RowError(f"column {str(name)!r}: {fault.message}") from None
    return unique(row)


def plain_value(value: Any, levels: int) -> Any:
    """A value as JSON has it, inside this many levels of others.

    What is missing (NaN, NaT, pandas.NA) is null; dates and times are texts of ISO 8601; decimals,
    durations, paths and UUIDs are texts; bytes are base64; arrays and tuples are lists. Raises
    RowError for what has no such form.
    """
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise RowError("a number is infinite, which JSON cannot say")
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping | list | tuple):
        if levels >= MOST_LEVELS:
            raise RowError(f"the value is nested too deeply: more than {MOST_LEVELS} levels")
        if isinstance(value, Mapping):
            return {str(name): plain_value(item, levels + 1) for name, item in value.items()}
        return [plain_value(item, levels + 1) for item in value]
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return plain_value(_listed(value), levels)
    return _scalar(value)


def _listed(value: Any) -> Any:
    """An array or a scalar of NumPy as Python's objects."""
    if value.dtype.kind not in "mM":
        return value.tolist()
    # Times in nanoseconds would come as whole numbers.
    texts = value.astype(str).tolist()
    if isinstance(texts, str):
        return None if texts == "NaT" else texts
    return [None if text == "NaT" else text for text in texts]


def _scalar(value: Any) -> Any:
    # The text or number of an enumeration's member, or of another class made of these.
    for kind in (str, int):
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else int(value)
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, _WRITTEN) or type(value).__module__.partition(".")[0] == "pandas":
        return str(value)
    raise RowError(
        f"{type(value).__name__} has no form in JSON; give a text, a number, a list or a dict "
        "(of a picture: the path of its file)"
    )
