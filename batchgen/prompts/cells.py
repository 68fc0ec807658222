"""Values of typed files (Parquet, spreadsheets) -> values of JSON."""

from __future__ import annotations

import base64
import math
from datetime import date, time
from typing import Any

from batchgen.prompts.rows import RowError


def json_value(value: Any) -> Any:
    """The value as JSON has it.

    Dates and times are texts of ISO 8601, decimals and durations are texts, bytes are base64, NaN
    (as pandas marks what is missing) is null. Raises RowError for an infinite number.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise RowError("a number is infinite, which JSON cannot say")
        return None if math.isnan(value) else value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(name): json_value(item) for name, item in value.items()}
    if isinstance(value, list):
        # Arrow gives a map as a list of pairs.
        if value and all(isinstance(item, tuple) for item in value):
            return {str(name): json_value(item) for name, item in value}
        return [json_value(item) for item in value]
    return str(value)
