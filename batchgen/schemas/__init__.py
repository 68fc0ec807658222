"""Answers that are to be JSON: the value found in a text, and whether it fits a JSON Schema.

- `found`        a text -> the one JSON value in it, without a code fence or a sentence around it
- `schema`       a JSON Schema, compiled; where and why a value does not fit
- `work`         how much work a schema makes at most
- `expectation`  job + request -> what its answer must be; answers are judged by it
"""

from batchgen.schemas.expectation import (
    MISFIT,
    Expectation,
    Expectations,
    format_problem,
    may_expect_json,
)
from batchgen.schemas.found import Found, find_json
from batchgen.schemas.schema import Schema, SchemaError

__all__ = [
    "MISFIT",
    "Expectation",
    "Expectations",
    "Found",
    "Schema",
    "SchemaError",
    "find_json",
    "format_problem",
    "may_expect_json",
]
