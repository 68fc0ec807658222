"""JSON Schemas: where and why a value does not fit, and what no value and no schema can do."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from batchgen.schemas import Schema, SchemaError
from batchgen.schemas.schema import MAX_WORK
from batchgen.schemas.work import Work

PRICE = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}


def doubling(steps: int, word: str) -> dict[str, Any]:
    """A schema whose definitions name the one before twice."""
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(1, steps + 1):
        definitions[f"d{n}"] = {word: [{"$ref": f"#/$defs/d{n - 1}"}] * 2}
    return {"$defs": definitions, "$ref": f"#/$defs/d{steps}"}


def nested(levels: int, key: str | None = None) -> Any:
    """Lists in lists, or objects in objects, each the value of a key."""
    value: Any = {}
    for _ in range(levels):
        value = [value] if key is None else {key: value}
    return value


def test_where_and_why() -> None:
    """P47 A JSON pointer (RFC 6901) and a sentence, in one line."""
    assert Schema(PRICE).misfit({"price": 3}) == ""
    assert Schema(PRICE).misfit({"price": "3"}) == '/price: "3" is not of type "number"'
    assert Schema(PRICE).misfit({}) == '"price" is a required property'
    inside = Schema({"properties": {"a/b": {"items": PRICE}}})
    assert inside.misfit({"a/b": [{"price": 1}, {}]}).startswith("/a~1b/1: ")


def test_the_sentence_is_bounded_and_controls_no_terminal() -> None:
    """P44 An answer's own text in the sentence is cut, and its control characters are escaped."""
    why = Schema(PRICE).misfit({"price": "\x1b[31m\n\u202e" + "x" * 100_000})
    assert len(why) < 300
    assert why.isprintable()
    assert why.endswith('is not of type "number"')


def test_half_of_a_surrogate_pair_is_a_character() -> None:
    """P18 Half of a surrogate pair in an answer does not end the run."""
    assert Schema({"maxLength": 3}).misfit("ab\ud800") == ""
    assert "longer" in Schema({"maxLength": 2}).misfit("ab\ud800")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strng"},
        {"properties": {"a": {"minimum": "3"}}},
        {"pattern": "(["},
        {"$ref": "#/$defs/none"},
        {"$ref": "#"},
        {"$schema": "http://example.com/own"},
        doubling(60, "allOf"),
        doubling(60, "oneOf"),
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}
        | {"$ref": "#/$defs/a"},
        {"description": "x" * 300_000},
        nested(5000, "items"),
        nested(5000, "not"),
        [1],
        "text",
    ],
)
def test_what_is_no_schema(schema: Any) -> None:
    """P47 A schema that is not valid, or that no answer could be compared with, is refused."""
    with pytest.raises(SchemaError):
        Schema(schema)


def test_nothing_is_fetched() -> None:
    """P43 A reference to another address or file is refused, and nobody is asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for reference in (f"http://127.0.0.1:{server.server_port}/a.json", "file:///etc/hosts"):
            with pytest.raises(SchemaError):
                Schema({"properties": {"a": {"$ref": reference}}})
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []


def hard() -> Iterator[tuple[str, Any, Any]]:
    """Schemas that are valid, each with an answer that takes long."""
    tree = {"$ref": "#"}
    yield (
        "recursive twice",
        {"properties": {"a": {"anyOf": [tree, tree]}}, "required": ["b"]},
        nested(100, "a"),
    )
    yield "a backtracking pattern", {"items": {"pattern": r"^(?=a)(a|a)*\1b$"}}, ["a" * 500] * 5000
    yield "a pattern of many steps", {"pattern": "^(a+)+$"}, "a" * 1_000_000 + "!"
    yield "deep", {"items": {"$ref": "#"}}, nested(900)
    yield "large", {"items": {"anyOf": [{"type": "string"}] * 20}}, [1] * 500_000
    yield "doubling", doubling(20, "anyOf"), 5


@pytest.mark.parametrize(("name", "schema", "value"), list(hard()), ids=[n for n, *_ in hard()])
def test_no_answer_holds_up_a_run(name: str, schema: Any, value: Any) -> None:
    """P19 P47 Comparing an answer takes bounded time, and what would take longer does not fit."""
    compiled = Schema(schema)
    started = time.process_time()
    assert compiled.misfit(value)
    assert time.process_time() - started < 3


def test_usual_schemas_are_far_from_the_bounds() -> None:
    """P47 Trees, large lists and many alternatives are compared like anything else."""
    node: dict[str, Any] = {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["name"],
            }
        },
        "$ref": "#/$defs/node",
    }
    tree: dict[str, Any] = {"name": "leaf"}
    for _ in range(50):
        tree = {"name": "n", "children": [tree]}
    assert Schema(node).misfit(tree) == ""
    kinds = [{"properties": {"kind": {"const": n}}, "required": ["kind"]} for n in range(30)]
    items = {"type": "array", "items": {"oneOf": kinds}}
    assert Schema(items).misfit([{"kind": n % 30} for n in range(2000)]) == ""
    assert Work(node).most(50) * 200 < MAX_WORK
