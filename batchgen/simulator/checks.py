"""What the API refuses before a model sees the request.

Each check raises RefusalError for the first fault that it finds.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any

from batchgen.simulator.calls import Body
from batchgen.simulator.refusals import invalid, missing, no_model, policy
from batchgen.simulator.texts import POLICY, texts

LONGEST_PROMPT = 32_000  # characters of an image's prompt
MOST_IMAGES = 10
MOST_CHOICES = 128
MOST_INPUTS = 2048
MOST_DIMENSIONS = 3072
LONGEST_SIDE = 3840  # pixels of a picture
PICTURE_FORMATS = ("png", "webp", "jpeg")


def chat(body: Body) -> None:
    """Check a /chat/completions body."""
    _model(body)
    _messages(body)
    for path, part in _parts(body["messages"], "messages"):
        if part.get("type") == "file":
            file = part.get("file")
            if not isinstance(file, dict):
                raise missing(f"{path}.file")
            _file(file, f"{path}.file", ("file_data", "file_id"), pdf=True)
    _sampling(body, ("max_completion_tokens", "max_tokens"))
    _content(body)


def responses(body: Body) -> None:
    """Check a /responses body."""
    _model(body)
    _present(body, "input")
    _kind(body, "input", (str, list), "a text or a list of items")
    for path, part in _parts(body["input"], "input"):
        if part.get("type") == "input_file":
            _file(part, path, ("file_data", "file_id", "file_url"))
    _sampling(body, ("max_output_tokens",))
    _content(body)


def _parts(messages: Any, name: str) -> Iterator[tuple[str, Body]]:
    """The parts of messages that are lists of parts, each with its path below `name`."""
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for position, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict):
                yield f"{name}[{number}].content[{position}]", part


def _file(file: Body, path: str, sources: Sequence[str], *, pdf: bool = False) -> None:
    """Check a file inside a message.

    file: the object that names it
    path: of the object
    sources: the fields of which one must say where its content is
    pdf: whether content that comes along must be a PDF
    """
    if not any(file.get(source) for source in sources):
        raise missing(f"{path}.{sources[0]}")
    data = file.get("file_data")
    if data is None:
        return
    head, _, coded = str(data).partition(",")
    kind = "application/pdf" if pdf else r"[\w.+-]+/[\w.+-]+"
    expected = "a base64 data URL is expected, such as data:application/pdf;base64,JVBERi0x."
    if not re.fullmatch(rf"data:{kind};base64", head):
        raise invalid(f"{path}.file_data", expected)
    try:
        base64.b64decode(coded, validate=True)
    except ValueError:
        raise invalid(f"{path}.file_data", expected) from None


def completions(body: Body) -> None:
    """Check a /completions body."""
    _model(body)
    _present(body, "prompt")
    _kind(body, "prompt", (str, list), "a text or a list")
    _sampling(body, ("max_tokens",))
    _content(body)


def embeddings(body: Body) -> None:
    """Check an /embeddings body."""
    _model(body)
    if body.get("input") is None:
        raise missing("input")
    _kind(body, "input", (str, list), "a text or a list")
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    if not inputs or any(item in ("", []) for item in inputs):
        raise invalid("input", "an input cannot be empty.", "invalid_input")
    if len(inputs) > MOST_INPUTS and not isinstance(inputs[0], int):
        raise invalid("input", f"at most {MOST_INPUTS} inputs are taken.", "array_above_max_length")
    if not all(isinstance(item, (str, int, list)) for item in inputs):
        raise invalid("input", "texts or token ids are expected.", "invalid_type")
    _whole(body, "dimensions", 1, MOST_DIMENSIONS)
    _one_of(body, "encoding_format", ("float", "base64"))
    _content(body)


def moderations(body: Body) -> None:
    """Check a /moderations body; the content is flagged, never refused."""
    _present(body, "input")
    _kind(body, "input", (str, list), "a text or a list")
    if body.get("model") is not None:
        _model(body)


def images(body: Body) -> None:
    """Check an /images/generations body, or the fields of an /images/edits form."""
    _model(body)
    _present(body, "prompt")
    _kind(body, "prompt", (str,), "a text")
    if len(body["prompt"]) > LONGEST_PROMPT:
        raise invalid(
            "prompt", f"at most {LONGEST_PROMPT} characters are taken.", "string_above_max_length"
        )
    _whole(body, "n", 1, MOST_IMAGES)
    _whole(body, "output_compression", 0, 100)
    _one_of(body, "output_format", PICTURE_FORMATS)
    _one_of(body, "background", ("auto", "opaque", "transparent"))
    if body.get("background") == "transparent" and body.get("output_format") == "jpeg":
        raise invalid("background", "a JPEG cannot be transparent; use png or webp.")
    _no_stream(body)
    picture_size(body)
    if POLICY in body["prompt"]:
        raise policy(picture=True)


def picture_size(body: Body) -> tuple[int, int]:
    """Width and height of the requested picture, in pixels; raises RefusalError."""
    size = body.get("size") or "auto"
    if size == "auto":
        return 1024, 1024
    width, _, height = str(size).partition("x")
    if not all(side.isascii() and side.isdigit() and len(side) <= 4 for side in (width, height)):
        raise invalid("size", "WIDTHxHEIGHT in pixels or auto is expected.")
    sides = int(width), int(height)
    if any(side % 16 or not 16 <= side <= LONGEST_SIDE for side in sides) or max(sides) > 3 * min(
        sides
    ):
        message = (
            f"both sides are multiples of 16 up to {LONGEST_SIDE},"
            " neither above three times the other."
        )
        raise invalid("size", message)
    return sides


def _model(body: Body) -> None:
    _present(body, "model")
    _kind(body, "model", (str,), "a text")
    if body["model"].startswith("missing-"):
        raise no_model(body["model"])


def _messages(body: Body) -> None:
    if body.get("messages") is None:
        raise missing("messages")
    _kind(body, "messages", (list,), "a list")
    if not body["messages"]:
        raise invalid("messages", "at least one message is expected.", "empty_array")
    for number, message in enumerate(body["messages"]):
        if not isinstance(message, dict):
            raise invalid(f"messages[{number}]", "an object is expected.", "invalid_type")
        if not message.get("role"):
            raise missing(f"messages[{number}].role")


def _sampling(body: Body, bounds: tuple[str, ...]) -> None:
    _number(body, "temperature", 0, 2)
    _number(body, "top_p", 0, 1)
    _whole(body, "n", 1, MOST_CHOICES)
    for field in bounds:
        _whole(body, field, 1, 10_000_000)
    _no_stream(body)


def _content(body: Body) -> None:
    if any(POLICY in text for text in texts(body)):
        raise policy()


def _no_stream(body: Body) -> None:
    for field in ("stream", "background"):
        if body.get(field) is True:
            raise invalid(field, f"the simulator does not take {field}: true.", "unsupported_value")


def _present(body: Body, field: str) -> None:
    if body.get(field) in (None, "", []):
        raise missing(field)


def _kind(body: Body, field: str, kinds: tuple[type, ...], expected: str) -> None:
    if not isinstance(body[field], kinds):
        raise invalid(field, f"{expected} is expected.", "invalid_type")


def _number(body: Body, field: str, lowest: float, highest: float) -> None:
    value: Any = body.get(field)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise invalid(field, "a number is expected.", "invalid_type")
    if not lowest <= value <= highest:
        side = "below_min" if value < lowest else "above_max"
        raise invalid(
            field, f"a number from {lowest} to {highest} is expected.", f"decimal_{side}_value"
        )


def _whole(body: Body, field: str, lowest: int, highest: int) -> None:
    value: Any = body.get(field)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(field, "a whole number is expected.", "invalid_type")
    if not lowest <= value <= highest:
        side = "below_min" if value < lowest else "above_max"
        raise invalid(
            field,
            f"a whole number from {lowest} to {highest} is expected.",
            f"integer_{side}_value",
        )


def _one_of(body: Body, field: str, known: tuple[str, ...]) -> None:
    if body.get(field) is not None and body[field] not in known:
        raise invalid(field, f"one of {', '.join(known)} is expected.")
