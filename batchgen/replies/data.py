"""The replies that are data: pictures, embeddings and moderation results."""

from __future__ import annotations

import base64
import binascii
import json
import math
import sys
from array import array
from typing import Any, TypeAlias

from batchgen.replies.answer import (
    Answer,
    Choice,
    UnreadableReplyError,
    answer_of,
    count_inputs,
    has_fewer_answers,
    items_of,
)
from batchgen.replies.usage import Json, mapping

# The picture formats that image endpoints use: first bytes, an offset, the bytes there, the name.
_MAGIC: tuple[tuple[bytes, int, bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, b"", "png"),
    (b"\xff\xd8\xff", 0, b"", "jpeg"),
    (b"RIFF", 8, b"WEBP", "webp"),
    (b"GIF8", 0, b"", "gif"),
)


def sniff(data: bytes) -> str | None:
    """The picture format that the first 12 bytes stand for: png, jpeg, webp, gif, or None."""
    for start, offset, mark, name in _MAGIC:
        if data.startswith(start) and data[offset : offset + len(mark)] == mark:
            return name
    return None


def drawn_items(response: Json) -> list[Json]:
    """The items of a reply that hold a picture, in base64 or stored as a file.

    Raises UnreadableReplyError if there are none.
    """
    items = items_of(response, "data")
    drawn = [item for item in items if _is_stored(item) or _encoded(item)]
    if drawn:
        return drawn
    if any(item.get("url") for item in items):
        raise UnreadableReplyError(
            "the server sent a link instead of the picture, and batchgen downloads nothing a reply"
            " names: add `response_format: b64_json` to the request",
            final=True,
        )
    raise UnreadableReplyError("the reply's data holds no b64_json")


def _is_stored(item: Json) -> bool:
    return isinstance(item.get("path"), str)


def _encoded(item: Json) -> str:
    value = item.get("b64_json")
    return value if isinstance(value, str) else ""


def read_image(response: Json, body: Json) -> Answer:
    """Generated or edited pictures: https://platform.openai.com/docs/api-reference/images/object"""
    drawn = drawn_items(response)
    texts = [item["path"] if _is_stored(item) else "" for item in drawn]
    choices = [Choice(text=text, finish_reason="stop") for text in texts]
    pictures = [_encoded(item) for item in drawn if not _is_stored(item)]
    is_fewer = has_fewer_answers(choices, body) or len(drawn) < len(response["data"])
    lacking = "fewer_images" if is_fewer else ""
    return answer_of(response, choices, pictures=tuple(pictures), lacking=lacking)


def read_embedding(response: Json, body: Json) -> Answer:
    """Embeddings: https://platform.openai.com/docs/api-reference/embeddings/object"""
    # Encoded one by one: json holds the GIL for a whole value, and other threads must wait.
    texts = [json.dumps(_decimal(each), separators=(",", ":")) for each in _vectors(response, body)]
    text = texts[0] if count_inputs(body.get("input")) == 1 else f"[{','.join(texts)}]"
    return answer_of(response, [Choice(text=text, finish_reason="stop")])


def check_embedding(response: Json, body: Json) -> Answer:
    """What `read_embedding` returns, but for its text, which takes 20 times as long to make."""
    _vectors(response, body)
    return answer_of(response, [Choice(text="", finish_reason="stop")])


def decode_embeddings(response: Json) -> dict[str, Any]:
    """A recorded reply with its embeddings as lists of numbers, in whatever form they were sent."""
    items = [
        {**item, "embedding": _decimal(_numbers(item.get("embedding")))}
        for item in response["data"]
    ]
    return {**response, "data": items}


# Python 3.11 does not subscript arrays.
_Numbers: TypeAlias = "array[float] | list[Any]"


def _vectors(response: Json, body: Json) -> list[_Numbers]:
    """The embeddings of a reply, one for each input. Raises UnreadableReplyError."""
    vectors = [_numbers(item.get("embedding")) for item in items_of(response, "data")]
    asked = count_inputs(body.get("input"))
    if len(vectors) != asked:
        raise UnreadableReplyError(f"the reply has {len(vectors)} embeddings for {asked} inputs")
    return vectors


def _numbers(value: object) -> _Numbers:
    """An embedding as it was sent: a list, or float32 from little-endian base64.

    Raises UnreadableReplyError unless every element is a number in JSON.
    """
    numbers: _Numbers = value if isinstance(value, list) else []
    if isinstance(value, str):
        numbers = array("f")
        try:
            numbers.frombytes(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            raise UnreadableReplyError(
                "the reply's embedding is not base64 of float32 numbers"
            ) from None
        if sys.byteorder == "big":
            numbers.byteswap()
    if not numbers or not _are_numbers(numbers):
        raise UnreadableReplyError("the reply has no embedding")
    return numbers


def _are_numbers(numbers: _Numbers) -> bool:
    """Whether all are numbers in JSON, which has no infinity and no not-a-number."""
    if isinstance(numbers, list) and not set(map(type, numbers)) <= {float, int}:
        return False
    try:
        # A sum is finite only if every part of it is; it may exceed a float without such a part.
        return math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))
    except OverflowError:
        return all(type(number) is int or math.isfinite(number) for number in numbers)


def _decimal(numbers: _Numbers) -> list[float]:
    """The numbers as they are written."""
    if isinstance(numbers, list):
        return numbers
    # Nine significant digits identify every float32; float64's seventeen would double the cell.
    return [float(f"{number:.9g}") for number in numbers]


def read_moderation(response: Json, body: Json) -> Answer:
    """Moderation results: https://platform.openai.com/docs/api-reference/moderations/object"""
    verdicts = []
    for item in items_of(response, "results"):
        if not isinstance(item.get("flagged"), bool):
            raise UnreadableReplyError("the reply's result does not say whether it was flagged")
        categories = [name for name, hit in mapping(item.get("categories")).items() if hit is True]
        verdicts.append({"flagged": item["flagged"], "categories": categories})
    inputs = body.get("input")
    # Parts of one input, such as a text and a picture, have one result.
    texts = [inputs] if isinstance(inputs, str) else inputs
    if (
        isinstance(texts, list)
        and all(isinstance(item, str) for item in texts)
        and len(verdicts) != len(texts)
    ):
        raise UnreadableReplyError(f"the reply has {len(verdicts)} results for {len(texts)} inputs")
    text = json.dumps(verdicts[0] if len(verdicts) == 1 else verdicts)
    return answer_of(response, [Choice(text=text, finish_reason="stop")])
