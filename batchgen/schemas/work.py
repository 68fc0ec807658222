"""How much work a JSON Schema makes at most.

A few lines of schema can ask for more evaluations than there are atoms: definitions that name each
other twice double the work with each step, and recursive ones with each level of the answer. The
validator cannot be interrupted, so what it may have to do is counted before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

# Where a count ends: beyond, the exact number does not matter.
ENDLESS = 10**12

# A pattern with look-around or back references, which the engine tries out step by step.
_STEPWISE = ("(?=", "(?!", "(?<", "\\1", "\\2", "\\k")
STEPWISE_WORK = 5_000

# Keywords by what their subschemas are applied to: the same value, or the values in it. Of those in
# _ONE_OF, one is applied to each value.
_SAME = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"}
_REFERENCES = {"$ref", "$dynamicRef", "$recursiveRef"}
_ONE_OF = {"properties", "prefixItems", "items"}
_EACH = {
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "additionalItems",
    "contains",
    "unevaluatedProperties",
    "unevaluatedItems",
}
# Keywords whose value is a mapping of subschemas; that of the others is one, or a list of them.
_MAPPINGS = {"properties", "patternProperties", "dependentSchemas", "dependencies"}


class Work:
    """Counts the work of one schema."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._all = list(_objects(schema))
        self._names = {
            str(each[word]).rpartition("/")[2]: each
            for each in self._all
            for word in ("$id", "id", "$anchor", "$dynamicAnchor")
            if word in each
        }
        # For each depth, the work of each subschema by its id().
        self._by_depth: list[dict[int, int]] = []

    def most(self, depth: int) -> int:
        """Evaluations for each value of an answer that is `depth` deep, at most.

        Raises RecursionError for a schema that is itself too deep.
        """
        while len(self._by_depth) <= depth:
            before = self._by_depth[-1] if self._by_depth else {}
            counts: dict[int, int] = {}
            for each in self._all:
                self._count(each, before, counts, set())
            if counts == before:
                break
            self._by_depth.append(counts)
        return self._by_depth[min(depth, len(self._by_depth) - 1)].get(id(self._schema), 1)

    def _count(
        self, schema: Any, before: Mapping[int, int], counts: dict[int, int], path: set[int]
    ) -> int:
        """The work of one subschema.

        before: of the values in it; empty at the deepest level.
        counts: of this level, as far as they are known.
        path: the subschemas that are applied to the same value, down to this one.
        """
        key = id(schema)
        if key in path:
            # It refers to itself for the same value.
            return ENDLESS
        if key in counts or not isinstance(schema, dict):
            return counts.get(key, 1)
        path.add(key)
        total = 1
        for word, value in schema.items():
            if word in _REFERENCES:
                total += self._count(self._target(value), before, counts, path)
            elif word in _SAME:
                total += sum(
                    self._count(each, before, counts, path) for each in _parts(word, value)
                )
            elif word in _ONE_OF:
                total += max((before.get(id(each), 1) for each in _parts(word, value)), default=0)
            elif word in _EACH:
                total += sum(before.get(id(each), 1) for each in _parts(word, value))
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            # The others are evaluated once more, to find out what they have evaluated.
            total *= 2
        patterns = [schema.get("pattern"), *(schema.get("patternProperties") or ())]
        total += STEPWISE_WORK * sum(map(_is_stepwise, patterns))
        path.discard(key)
        counts[key] = min(total, ENDLESS)
        return counts[key]

    def _target(self, reference: Any) -> Any:
        """The subschema that a reference names; None for one that is not in this schema."""
        name, _, fragment = str(reference).partition("#")
        found = self._names.get(name.rpartition("/")[2]) if name else self._schema
        if fragment and not fragment.startswith("/"):
            return self._names.get(fragment)
        for part in fragment.split("/")[1:]:
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list):
                found = found[int(part)] if part.isdecimal() and int(part) < len(found) else None
            else:
                found = found.get(part) if isinstance(found, dict) else None
        return found


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object in a schema."""
    pending = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
        if isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value


def _parts(word: str, value: Any) -> Iterable[Any]:
    """The subschemas in the value of a keyword."""
    if word in _MAPPINGS:
        return value.values() if isinstance(value, dict) else ()
    return value if isinstance(value, list) else (value,)


def _is_stepwise(pattern: Any) -> bool:
    return isinstance(pattern, str) and any(each in pattern for each in _STEPWISE)
