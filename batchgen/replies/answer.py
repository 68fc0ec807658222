"""What a reply means: `Answer` and its choices; and what all readers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from batchgen.escapes import one_line
from batchgen.replies.finish import broke_off, is_whole
from batchgen.replies.usage import Json, Usage, read_usage

# The fields of a request that say which format its answer has: of a chat, and of a response.
FORMAT_FIELDS = ("response_format", "text")


class UnreadableReplyError(Exception):
    """A reply with status 200 that is not an answer. `final`: a retry would get the same reply."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer; a request with `n` gets several.

    `text` of a picture is the path of its file.

    `finish_reason` is a word of `replies.finish`, such as stop, length or content_filter, for every
    kind; or batchgen's own empty, fewer_choices, fewer_images, picture or schema. A word of the
    server that is not known is kept. None if the server gives none.

    `calls`: the text is the JSON of tool calls. `unwrapped`: what was taken off around the JSON
    that the text is, `fence` or `text`; else empty. `pictures`: the paths of pictures that came
    with a text; where there was none, the text is the first of them.
    """

    text: str
    finish_reason: str | None
    calls: bool = False
    unwrapped: str = ""
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a reply means.

    choices: the answers, at least one.
    ended: False when an answer was cut, filtered, refused or empty, or one is missing.
    finish_reason: why it has not ended, else the finish reason of the first choice.
    model, service_tier: the server's, if it names them.
    usage: the token counts.
    pictures: pictures in base64, to be stored.
    broke_off: the server's word for an answer that broke off, which is none; else empty.
    misfit: where and why it is not the JSON that was asked for; else empty.
    """

    choices: tuple[Choice, ...]
    ended: bool
    finish_reason: str | None
    model: str | None = None
    service_tier: str | None = None
    usage: Usage = field(default_factory=Usage)
    pictures: tuple[str, ...] = ()
    broke_off: str = ""
    misfit: str = ""


def word_of(value: object) -> str | None:
    """A server's word for something, such as a model: one line of at most 200 characters."""
    return one_line(value)[:200] if isinstance(value, str) else None


def count_inputs(value: object) -> int:
    """How many prompts or inputs a field holds. A list of numbers is one input, given as tokens."""
    return len(value) if isinstance(value, list) and value and not isinstance(value[0], int) else 1


def items_of(response: Json, name: str) -> list[Json]:
    """The objects in the reply's list `name`, in the order of `index`.

    Raises UnreadableReplyError if there are none.
    """
    value = response.get(name)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(item, dict) for item in value)
    ):
        raise UnreadableReplyError(f"the reply has no {name}")
    try:
        # Some servers write it as 1.0 or as a text.
        return sorted(value, key=lambda item: int(item["index"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return value


def answer_of(
    response: Json, choices: list[Choice], *, pictures: tuple[str, ...] = (), lacking: str = ""
) -> Answer:
    """The answer that these choices make.

    response: the reply's JSON; its model, tier and token counts are read here.
    choices: at least one.
    pictures: in base64, to be stored.
    lacking: why the answer has not ended although each choice has; empty for no reason.
    """
    words = [choice.finish_reason for choice in choices]
    cut = next((word for word in words if word is not None and not is_whole(word)), lacking)
    return Answer(
        choices=tuple(choices),
        ended=not cut,
        finish_reason=cut or choices[0].finish_reason,
        model=word_of(response.get("model")),
        service_tier=word_of(response.get("service_tier")),
        usage=read_usage(response),
        pictures=pictures,
        broke_off=next((word for word in words if word is not None and broke_off(word)), ""),
    )


def has_fewer_answers(choices: list[Choice], body: Json) -> bool:
    """Whether a reply has fewer choices than the request's `n` for each of its prompts."""
    asked = body.get("n")
    return len(choices) < (asked if isinstance(asked, int) else 1) * count_inputs(
        body.get("prompt")
    )


def outline(body: Json) -> dict[str, Any]:
    """The part of a body that is needed to read its reply.

    It says how many answers the body asks for, for how many inputs, and in which format.
    """
    fields: dict[str, Any] = {"n": body["n"]} if isinstance(body.get("n"), int) else {}
    fields |= {name: body[name] for name in FORMAT_FIELDS if name in body}
    for name in ("prompt", "input"):
        value = body.get(name)
        if isinstance(value, list) and value and not isinstance(value[0], int):
            fields[name] = ["" if isinstance(each, str) else {} for each in value]
    return fields
