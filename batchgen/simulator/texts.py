"""Words: those of a request, their tokens, and those of its simulated answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

LABEL = "[simulated]"
ECHO = "ECHO:"
POLICY = "[policy]"

# The tokens that the API reserves for an answer without a bound.
UNBOUNDED_ANSWER = 16

_QUOTED = 200
# A schema is filled to this many levels, and its arrays to this many items: enough for any that a
# real model gets.
_DEEPEST = 8
_LONGEST = 20
_SENTENCES = (
    "No model was asked, so nothing here is true.",
    "The words stand in for those that a model would write.",
    "It is as long as a short answer often is.",
    "The same request gets the same answer again.",
    "Only the shape of this reply is worth a look.",
    "Nothing was paid for it.",
    "A real answer will read differently.",
    "It is made to rehearse a job before money is spent.",
)


def texts(body: dict[str, Any]) -> Iterator[str]:
    """Every text that a request sends to the model, in order."""
    for message in _list(body.get("messages")):
        if isinstance(message, dict):
            yield from _text_of(message.get("content"))
    for field in ("instructions", "input", "prompt"):
        yield from _text_of(body.get(field))


def last_user_text(body: dict[str, Any]) -> str:
    """The text of the last user message, input or prompt; empty if there is none."""
    for field in ("messages", "input"):
        for item in reversed(_list(body.get(field))):
            if isinstance(item, dict) and item.get("role") == "user":
                return "\n".join(_text_of(item.get("content")))
    return "\n".join(_text_of(body.get("prompt") or body.get("input")))


def tokens(text: str) -> int:
    """The tokens that the simulator counts in a text: its UTF-8 bytes / 4, rounded up."""
    return -(-_size(text) // 4)


def prompt_tokens(body: dict[str, Any]) -> int:
    """Tokens that a request sends, pictures not counted; token ids count as one each."""
    ids = _token_ids(body.get("prompt")) + _token_ids(body.get("input"))
    return -(-sum(map(_size, texts(body))) // 4) + ids


def most_tokens(body: dict[str, Any]) -> int | None:
    """The bound on the tokens of the answer, under any of its names; None without one."""
    for field in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        if isinstance(body.get(field), int):
            return max(0, int(body[field]))
    return None


def cut(text: str, most: int | None) -> tuple[str, bool]:
    """`text` bounded to `most` tokens, at a whole character, and whether anything was cut."""
    if most is None or _size(text) <= most * 4:
        return text, False
    return text.encode("utf-8", "surrogatepass")[: most * 4].decode("utf-8", "ignore"), True


def reply(body: dict[str, Any], digest: str, *, prompt: str | None = None, number: int = 0) -> str:
    """The simulated answer, uncut.

    body: the request
    digest: of the call; chooses the words
    prompt: answered in place of the last user text
    number: of the choice, from 0
    """
    asked = last_user_text(body) if prompt is None else prompt
    if asked.startswith(ECHO):
        return asked[len(ECHO) :]
    form = _format(body)
    if form.get("type") == "json_schema":
        return json.dumps(_filled_schema(form, asked), ensure_ascii=False)
    if form.get("type") == "json_object":
        return json.dumps(
            {"simulated": True, "answers_to": asked[:_QUOTED], "choice": number + 1},
            ensure_ascii=False,
        )
    return _prose(body["model"], asked, digest, number)


def _prose(model: str, asked: str, digest: str, number: int) -> str:
    start = int(digest[:8], 16) + number
    chosen = (_SENTENCES[start % len(_SENTENCES)], _SENTENCES[(start + 3) % len(_SENTENCES)])
    choice = f" (choice {number + 1})" if number else ""
    return f"{LABEL} {model} answers to: {asked[:_QUOTED]}\n\n{' '.join(chosen)}{choice}"


def _format(body: dict[str, Any]) -> dict[str, Any]:
    """The requested answer format; chat and responses name it differently."""
    form = body.get("response_format")
    if form is None and isinstance(body.get("text"), dict):
        form = body["text"].get("format")
    return form if isinstance(form, dict) else {}


def _filled_schema(form: dict[str, Any], asked: str) -> Any:
    inner = form.get("json_schema")
    schema = (inner if isinstance(inner, dict) else form).get("schema")
    root = schema if isinstance(schema, dict) else {}
    value = _fill(root, root, f"{LABEL} {asked[:40]}", 0)
    # A closed schema must not get a field it does not know: its texts carry the label alone.
    if isinstance(value, dict) and root.get("additionalProperties") is not False:
        value["simulated"] = True
    return value


def _fill(schema: Any, root: dict[str, Any], words: str, depth: int) -> Any:
    """A value that fits the schema simply: the first allowed one, else the plainest of its type."""
    schema = _resolved(schema, root) if isinstance(schema, dict) else {}
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if isinstance(schema.get(union), list) and schema[union]:
            # Beyond the deepest level the last branch is taken. In a schema that contains itself,
            # the last branch is usually null.
            return _fill(schema[union][0 if depth < _DEEPEST else -1], root, words, depth + 1)
    return _plainest(schema, root, words, depth)


def _plainest(schema: dict[str, Any], root: dict[str, Any], words: str, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema or depth == 0 else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null") if depth < _DEEPEST else "null"
    if kind == "object":
        return _object(schema, root, words, depth)
    if kind == "array":
        least = schema.get("minItems")
        length = max(least if isinstance(least, int) else 0, 1 if depth < _DEEPEST else 0)
        return [
            _fill(schema.get("items"), root, words, depth + 1) for _ in range(min(length, _LONGEST))
        ]
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": True, "null": None}.get(kind, words)


def _object(schema: dict[str, Any], root: dict[str, Any], words: str, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or depth > 2 * _DEEPEST:
        return {}
    required = [name for name in _list(schema.get("required")) if isinstance(name, str)]
    return {name: _fill(properties.get(name), root, words, depth + 1) for name in required}


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Follow `$ref` within the schema itself, a bounded number of times."""
    for _ in range(_DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            break
        target: Any = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            target = target.get(step) if isinstance(target, dict) and step else target
        schema = target if isinstance(target, dict) else {}
    return schema


def _text_of(content: Any) -> Iterator[str]:
    """The texts in a message's content: a text, a list of texts or parts, or items with content."""
    if isinstance(content, str):
        yield content
        return
    for part in _list(content):
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            yield from _text_of(part.get("text") or part.get("content"))


def _token_ids(content: Any) -> int:
    """How many token ids are in a prompt or input of ids instead of text."""
    return sum(
        _token_ids(part) if isinstance(part, list) else isinstance(part, int)
        for part in _list(content)
    )


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
