"""A reply's JSON -> Answer, for each kind of request.

The readers trust nothing: compatible servers and proxies send login pages, nulls and empty choices with status 200.
Whatever is not a real answer raises `UnreadableReplyError`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


# A count of tokens above this is no count; sums of costs stay within SQLite's whole numbers.
MAX_TOKENS = 1_000_000_000


# First bytes of the picture formats that the image endpoints speak, and the rest of the mark at an offset.
_MAGIC: tuple[tuple[bytes, int, bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, b"", "png"),
    (b"\xff\xd8\xff", 0, b"", "jpeg"),
    (b"RIFF", 8, b"WEBP", "webp"),
    (b"GIF8", 0, b"", "gif"),
)


class UnreadableReplyError(Exception):
    """A reply with status 200 that is no answer. `final` says that asking again would bring the same."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the server counted them; None where it did not say, never 0 for unknown.

    `input_tokens` includes `cached_tokens`, `cache_write_tokens`, `image_tokens` and `audio_tokens`; `output_tokens`
    includes `reasoning_tokens` and `output_audio_tokens`.
    """

    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    image_tokens: int | None = None
    audio_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    output_audio_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer of possibly several (`n`): its text (for a picture its stored path) and why it ended.

    `finish_reason` is in the words of chat completions for every kind: stop, length, content_filter, tool_calls, and
    batchgen's own refusal, empty, incomplete, fewer_choices and fewer_images; a word that none of them says stays the
    server's.
    """

    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a reply says: `ended` is False where the answer was cut, filtered, refused or empty."""

    choices: tuple[Choice, ...]
    ended: bool
    finish_reason: str
    model: str | None = None
    service_tier: str | None = None
    usage: Usage = field(default_factory=Usage)
    pictures: tuple[str, ...] = ()


def sniff(data: bytes) -> str | None:
    """The picture format that the first bytes name (png, jpeg, webp, gif), or None; 12 bytes are enough."""
    for start, offset, mark, name in _MAGIC:
        if data.startswith(start) and data[offset : offset + len(mark)] == mark:
            return name
    return None


_UNCOUNTED = Usage()


def read_usage(response: Json) -> Usage:
    """The reply's token counts in either spelling (prompt/completion or input/output); what is absent is None."""
    usage = _mapping(response.get("usage"))
    if not usage:
        return _UNCOUNTED
    inside = _mapping(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    outside = _mapping(usage.get("completion_tokens_details") or usage.get("output_tokens_details"))
    return Usage(
        input_tokens=_count(usage, "prompt_tokens", "input_tokens"),
        cached_tokens=_count(inside, "cached_tokens"),
        cache_write_tokens=_count(inside, "cache_write_tokens"),
        image_tokens=_count(inside, "image_tokens"),
        audio_tokens=_count(inside, "audio_tokens"),
        output_tokens=_count(usage, "completion_tokens", "output_tokens"),
        reasoning_tokens=_count(outside, "reasoning_tokens"),
        output_audio_tokens=_count(outside, "audio_tokens"),
    )


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _count(source: Json, *names: str) -> int | None:
    for name in names:
        value = source.get(name)
        # True is an int too, and no count.
        if type(value) is int and 0 <= value <= MAX_TOKENS:
            return value
    return None


def count_inputs(given: object) -> int:
    """How many prompts or inputs a field holds: as many as its list has, but a list of numbers is one, in tokens."""
    return len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1


def outline(body: Json) -> dict[str, Any]:
    """A body as far as its reply is read by it: how many answers it asks for, and to how many inputs."""
    found: dict[str, Any] = {"n": body["n"]} if isinstance(body.get("n"), int) else {}
    for name in ("prompt", "input"):
        given = body.get(name)
        if isinstance(given, list) and given and not isinstance(given[0], int):
            found[name] = ["" if isinstance(each, str) else {} for each in given]
    return found


def first_message(response: Json) -> Json:
    """The message of a chat reply's first choice, by its index. Raises UnreadableReplyError."""
    return _message(_choices(response)[0])


def _message(choice: Json) -> Json:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise UnreadableReplyError("the reply's choice has no message")
    return message


def audio_transcript(message: Json) -> str:
    """What a spoken chat message says; empty where it is not spoken."""
    said = _mapping(message.get("audio")).get("transcript")
    return said if isinstance(said, str) else ""


def _items(response: Json, name: str) -> list[Json]:
    """The reply's list `name`, which must hold at least one object and nothing else, in the order of `index`."""
    value = response.get(name)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(item, dict) for item in value)
    ):
        raise UnreadableReplyError(f"the reply has no {name}")
    if len(value) > 1 and all(isinstance(item.get("index"), int) for item in value):
        return sorted(value, key=lambda item: int(item["index"]))
    return value


def _choices(response: Json) -> list[Json]:
    """The reply's choices, none of which broke off: some servers put an error into a choice of status 200."""
    choices = _items(response, "choices")
    if any(item.get("error") or item.get("finish_reason") == "error" for item in choices):
        raise UnreadableReplyError("the reply's choice broke off with an error")
    return choices


def _answer(
    response: Json, choices: list[Choice], *, pictures: tuple[str, ...] = (), lacking: str = ""
) -> Answer:
    cut = next((choice.finish_reason for choice in choices if choice.finish_reason in CUT), lacking)
    model, tier = response.get("model"), response.get("service_tier")
    return Answer(
        choices=tuple(choices),
        ended=not cut,
        finish_reason=cut or choices[0].finish_reason,
        model=model if isinstance(model, str) else None,
        service_tier=tier if isinstance(tier, str) else None,
        usage=read_usage(response),
        pictures=pictures,
    )


# Finish reasons that leave a row incomplete unless output.accept names them.
CUT = frozenset({"length", "content_filter", "refusal", "empty", "fewer_choices", "fewer_images"})


def _choice(text: str, reason: object, *, refused: bool = False) -> Choice:
    """A text choice; an empty or refused one says so whatever the server calls it."""
    if refused:
        return Choice(text=text, finish_reason="refusal")
    word = reason if isinstance(reason, str) and reason else "stop"
    return Choice(text=text, finish_reason=word if text or word in CUT else "empty")


def read_chat(response: Json, body: Json) -> Answer:
    choices = []
    for item in _choices(response):
        message = _message(item)
        refusal = message.get("refusal")
        text = _content(message.get("content")) or audio_transcript(message) or _called(message)
        refused = isinstance(refusal, str) and bool(refusal)
        told = str(refusal) if refused else text
        choices.append(_choice(told, item.get("finish_reason"), refused=refused))
    return _answer(response, choices, lacking="fewer_choices" if _fewer(choices, body) else "")


def _called(message: Json) -> str:
    """The calls of tools in a message as JSON, today's or the one function of old; empty without any."""
    for calls in (message.get("tool_calls"), message.get("function_call")):
        if isinstance(calls, list | Mapping) and calls:
            return json.dumps(calls, ensure_ascii=False)
    return ""


def _fewer(choices: list[Choice], body: Json) -> bool:
    """Whether a reply has fewer choices than the request's `n`, for each of its prompts."""
    asked = body.get("n")
    return len(choices) < (asked if isinstance(asked, int) else 1) * count_inputs(
        body.get("prompt")
    )


def _content(content: object) -> str:
    """A message's text: a string, null, or a list of text parts as some servers send it."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    raise UnreadableReplyError(f"the reply's content is {type(content).__name__}, not text")


def read_completion(response: Json, body: Json) -> Answer:
    choices = []
    for item in _choices(response):
        text = item.get("text")
        if not isinstance(text, str):
            raise UnreadableReplyError("the reply's choice has no text")
        choices.append(_choice(text, item.get("finish_reason")))
    return _answer(response, choices, lacking="fewer_choices" if _fewer(choices, body) else "")


# Items of a response that ask the caller to do something: they are the answer, as tool_calls are in a chat.
_CALLS = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "computer_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
    }
)


def read_text(response: Json, body: Json) -> Answer:
    status = response.get("status")
    if status not in ("completed", "incomplete"):
        raise UnreadableReplyError(f"the reply's status is {status!r}")
    # A model that was cut before its first word leaves the list empty, or out; one that ended by itself leaves its thoughts.
    silent = status == "incomplete" and not response.get("output")
    output = [] if silent else _items(response, "output")
    parts = [part for item in output for part in _parts(item)]
    text = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    refusal = "".join(part["refusal"] for part in parts if isinstance(part.get("refusal"), str))
    calls = [item for item in output if item.get("type") in _CALLS]
    if calls and not text:
        text = json.dumps(calls, ensure_ascii=False)
    refused = bool(refusal) and not text
    if status == "incomplete" and not refused:
        reason = _why_incomplete(response)
        return _answer(response, [Choice(text=text, finish_reason=reason)], lacking=reason)
    return _answer(
        response, [_choice(text or refusal, "tool_calls" if calls else "stop", refused=refused)]
    )


def _parts(item: object) -> list[Json]:
    content = _mapping(item).get("content") if _mapping(item).get("type") == "message" else None
    return (
        [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    )


def _why_incomplete(response: Json) -> str:
    """In the words of chat completions, where they have one."""
    reason = _mapping(response.get("incomplete_details")).get("reason")
    if reason == "max_output_tokens":
        return "length"
    return reason if isinstance(reason, str) and reason else "incomplete"


def read_image(response: Json, body: Json) -> Answer:
    pictures, choices = [], []
    for item in _items(response, "data"):
        stored, encoded = item.get("path"), item.get("b64_json")
        if isinstance(stored, str):
            choices.append(Choice(text=stored, finish_reason="stop"))
        elif isinstance(encoded, str) and encoded:
            pictures.append(encoded)
            choices.append(Choice(text="", finish_reason="stop"))
        elif item.get("url"):
            hint = "the server sent a link instead of the picture, and batchgen downloads nothing a reply names"
            raise UnreadableReplyError(
                f"{hint}: add `response_format: b64_json` to the request", final=True
            )
        else:
            raise UnreadableReplyError("the reply's data holds no b64_json")
    lacking = "fewer_images" if _fewer(choices, body) else ""
    return _answer(response, choices, pictures=tuple(pictures), lacking=lacking)


def read_embedding(response: Json, body: Json) -> Answer:
    vectors = [_vector(item.get("embedding")) for item in _items(response, "data")]
    asked = count_inputs(body.get("input"))
    if len(vectors) != asked:
        raise UnreadableReplyError(f"the reply has {len(vectors)} embeddings for {asked} inputs")
    # One by one: json holds Python's lock for the whole of what it is given, and other threads with it.
    texts = [json.dumps(vector, separators=(",", ":")) for vector in vectors]
    text = texts[0] if asked == 1 else f"[{','.join(texts)}]"
    return _answer(response, [Choice(text=text, finish_reason="stop")])


def decode_embeddings(response: Json) -> dict[str, Any]:
    """A recorded reply of embeddings, each as a list of numbers however it came."""
    items = [{**item, "embedding": _vector(item.get("embedding"))} for item in response["data"]]
    return {**response, "data": items}


def _vector(value: object) -> list[float]:
    """An embedding as numbers: a list of them, or little-endian float32 in base64 as the API sends on request."""
    numbers: Sequence[object] = value if isinstance(value, list) else ()
    if isinstance(value, str):
        try:
            data = base64.b64decode(value, validate=True)
            # Nine significant digits name every float32 exactly; float64's seventeen would only double the cell.
            numbers = [
                float(f"{number:.9g}") for number in struct.unpack(f"<{len(data) // 4}f", data)
            ]
        except (binascii.Error, struct.error, ValueError):
            raise UnreadableReplyError(
                "the reply's embedding is not base64 of float32 numbers"
            ) from None
    if not numbers or not all(map(_is_number, numbers)):
        raise UnreadableReplyError("the reply has no embedding")
    return [number for number in numbers if isinstance(number, int | float)]


def _is_number(value: object) -> bool:
    """Whether a value is a number of JSON; infinity and not-a-number are none."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def read_moderation(response: Json, body: Json) -> Answer:
    verdicts = []
    for item in _items(response, "results"):
        if not isinstance(item.get("flagged"), bool):
            raise UnreadableReplyError("the reply's result does not say whether it was flagged")
        categories = [name for name, hit in _mapping(item.get("categories")).items() if hit is True]
        verdicts.append({"flagged": item["flagged"], "categories": categories})
    given = body.get("input")
    if (
        isinstance(given, list)
        and all(isinstance(item, str) for item in given)
        and len(verdicts) != len(given)
    ):
        raise UnreadableReplyError(f"the reply has {len(verdicts)} results for {len(given)} inputs")
    text = json.dumps(verdicts[0] if len(verdicts) == 1 else verdicts)
    return _answer(response, [Choice(text=text, finish_reason="stop")])
