"""A JSON Schema, compiled; where and why a value does not fit.

Nothing is fetched: a reference to another file or to the network makes a schema invalid. `format`
is a comment, as the standard has it since 2019-09.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from batchgen.escapes import one_line
from batchgen.schemas.work import Work

# Bounds, so that no answer holds up a run: characters of a schema, levels of an answer, and steps
# of one look-around pattern.
MAX_SCHEMA = 256 * 1024
MAX_DEPTH = 128
MAX_STEPS = 20_000

# Evaluations for one answer: to find out whether it fits, and to find out why not, which takes a
# hundred times as long. Each is a second at the very most, and usually a millisecond.
MAX_WORK = 20_000_000
MAX_EXPLAINED = 100_000

# Characters of a sentence that are kept: of its beginning and of its end, where the reason stands.
_BEGINNING, _END = 100, 180


class SchemaError(Exception):
    """A JSON Schema that is not valid, or not safe to use; the message says where and why."""


class Schema:
    """One compiled JSON Schema."""

    def __init__(self, schema: Any) -> None:
        """Compile a schema, given as JSON. Raises SchemaError."""
        # It takes a moment to import, and most commands judge nothing.
        import jsonschema_rs

        if not isinstance(schema, dict | bool):
            raise SchemaError("it is not an object")
        try:
            if len(json.dumps(schema)) > MAX_SCHEMA:
                raise SchemaError(f"it is longer than {MAX_SCHEMA:,} characters")
            self._work = Work(schema)
            if self._work.most(0) > MAX_WORK:
                raise SchemaError("its references repeat without end")
            self._invalid = jsonschema_rs.ValidationError
            self._validator = jsonschema_rs.validator_for(
                schema,
                offline=True,
                pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=MAX_STEPS),
            )
        except jsonschema_rs.ValidationError as error:
            raise SchemaError(_sentence(error.instance_path, error.message)) from None
        except RecursionError:
            raise SchemaError("it is nested too deep") from None
        except ValueError as error:
            raise SchemaError(one_line(str(error))) from None

    def misfit(self, value: Any) -> str:
        """Where and why a value does not fit, as a sentence; empty if it fits."""
        depth, size = _measured(value)
        work = size * self._work.most(depth) if depth <= MAX_DEPTH else MAX_WORK + 1
        if work > MAX_WORK:
            return "it is nested too deep, or too large, to be compared with the schema"
        try:
            if self._validator.is_valid(value):
                return ""
            if work > MAX_EXPLAINED:
                return "it does not fit the schema, and is too large to say where"
            self._validator.validate(value)
        except self._invalid as error:
            return _sentence(error.instance_path, error.message)
        except UnicodeEncodeError:
            # Half of a surrogate pair, which stands for one character as any other.
            text = json.dumps(value, ensure_ascii=False)
            return self.misfit(json.loads(text.encode("utf-8", "replace")))
        return ""


@lru_cache(maxsize=64)
def schema_of(text: str) -> Schema | SchemaError:
    """The schema of a text of JSON, or why it is none. Rows with equal texts share it."""
    try:
        return Schema(json.loads(text))
    except SchemaError as error:
        return error
    except RecursionError:
        return SchemaError("it is nested too deep")


def _measured(value: Any) -> tuple[int, int]:
    """How many levels a value has, and how many values it is made of."""
    depth = size = 0
    level = [value]
    while level:
        depth, size = depth + 1, size + len(level)
        deeper: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                deeper += each.values()
            elif isinstance(each, list):
                deeper += each
        level = deeper
    return depth, size


def _sentence(path: Sequence[str | int], message: str) -> str:
    """A JSON pointer (RFC 6901) and the validator's sentence, without its middle if it is long."""
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    text = one_line(f"{pointer}: {message}" if pointer else message)
    if len(text) <= _BEGINNING + _END:
        return text
    # A message begins with the value and ends with the reason.
    return f"{text[:_BEGINNING]} ... {text[-_END:]}"
