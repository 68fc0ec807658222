"""The error in a reply's JSON: where servers keep it, its words, and the codes that are known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchgen.dispatch.api.codes import CODES, PHRASES

# How deep, and how many in a list, the words of an error are looked for.
MAX_NESTED = 6
MAX_LISTED = 10

# Where servers keep their own words, in errors within errors.
_WORDS = ("message", "msg", "error_description", "detail", "details", "error", "errors")

# Where codes are: the names of fields, and of the objects around them. `input` is not one of them:
# FastAPI returns in it what the row sent.
_CODE_FIELDS = (
    "error_type",
    "error_code",
    "reason",
    "limit_source",
    "quotaId",
    "code",
    "type",
    "status",
)
_CODE_PARENTS = ("details", "detail", "metadata", "innererror", "error", "errors", "violations")

# OpenRouter's metadata of a request that a filter stopped.
_FLAGS = ("flagged_input", "reasons", "patterns")

# Where the answer is, beside which other fields mean no error.
_ANSWERS = frozenset({"choices", "output", "data", "results"})

# A word of this form, such as invalid_request, is a code and no message.
_CODE = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """An error as the server words it.

    known: the code of `codes.CODES` that says what it means; None if it has none.
    code: the code, or else the type, that it names.
    """

    message: str = ""
    code: str | None = None
    param: str | None = None
    known: str | None = None


def error_in(body: Any) -> ErrorBody | None:
    """The error in a reply's JSON; None if there is none.

    It stands at `error`, in the first item of a list, at the top (vLLM), at `detail` (FastAPI), in
    one of the choices (OpenRouter) or in all items of the data.
    """
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        return None
    inner = body.get("error")
    if isinstance(inner, str) and inner:
        # OAuth's code has its words beside it, xAI's words their code.
        return _worded({"code": inner, **body} if _CODE.fullmatch(inner) else body)
    if isinstance(inner, Mapping) and inner:
        # OpenRouter's type of a failed response stands beside the error.
        return _worded({"error_type": body.get("error_type"), **inner})
    if inner:
        return _worded({"error": inner})
    if body.get("object") == "error":
        return _worded(body)
    if body.get("detail") and not body.keys() & _ANSWERS:
        return _worded({"detail": body["detail"]})
    return _error_in_items(body)


def _error_in_items(body: Mapping[str, Any]) -> ErrorBody | None:
    """The error in an answer's parts: one choice that broke off is no answer, and data without any
    sound item is none.
    """
    choices, data = (_errors_of(body.get(name)) for name in ("choices", "data"))
    broken = next(filter(None, choices), None) or (all(data) and next(iter(data), None))
    return error_in({"error": broken}) if broken else None


def _errors_of(items: Any) -> list[Any]:
    """What stands at `error` of each item of a list."""
    items = items if isinstance(items, list) else []
    return [item.get("error") if isinstance(item, Mapping) else None for item in items]


def refusal_in(body: Any) -> ErrorBody | None:
    """The error in the JSON of a reply without a success status, wherever it stands."""
    found = error_in(body)
    if found is None and isinstance(body, Mapping):
        found = _worded(body)
        return found if found.message or found.code else None
    return found


def _words(value: Any, depth: int = 0) -> str:
    """The words in a message, in whatever it is nested; the line of a file and a refused field
    stand before them.

    FastAPI and Mistral: {"detail": [{"loc": ["body", "n"], "msg": "Input should be ..."}]}
    """
    if isinstance(value, str):
        return value
    if depth == MAX_NESTED:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_words(each, depth + 1) for each in value[:MAX_LISTED])))
    if not isinstance(value, Mapping):
        return ""
    words = next((text for name in _WORDS if (text := _words(value.get(name), depth + 1))), "")
    if not words:
        return ""
    loc, line = value.get("loc"), value.get("line")
    if isinstance(loc, list) and loc:
        words = f"{'.'.join(map(str, loc[1:] or loc))}: {words}"
    return f"line {line}: {words}" if type(line) is int else words


def _worded(error: Mapping[str, Any]) -> ErrorBody:
    def text(name: str) -> str | None:
        value = error.get(name)
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None

    message, code = _words(error), text("code") or text("type")
    if _CODE.fullmatch(message):
        message, code = "", code or message
    known = next((word for pattern, word in PHRASES if pattern.match(message)), None)
    known = known or next(_codes(error), None)
    return ErrorBody(message=message, code=code, param=text("param"), known=known)


def _codes(value: Any, depth: int = 0) -> Iterator[str]:
    """The known codes of an error, those of its details first: they say more than its own."""
    if depth == MAX_NESTED:
        return
    if isinstance(value, list):
        for each in value[:MAX_LISTED]:
            yield from _codes(each, depth + 1)
    if not isinstance(value, Mapping):
        return
    for name in _CODE_PARENTS:
        if isinstance(value.get(name), Mapping | list):
            yield from _codes(value[name], depth + 1)
    for name in _CODE_FIELDS:
        word = value.get(name)
        if not isinstance(word, str):
            continue
        if name == "quotaId" and "PerDay" in word:
            # Gemini: a quota of a day is no rate to wait for.
            yield "insufficient_quota"
        # OpenRouter's type "invalid_prompt" is a malformed message, not a flagged one.
        elif word.lower() in CODES and (name, word) != ("error_type", "invalid_prompt"):
            yield word.lower()
    if any(isinstance(value.get(name), str | list) and value[name] for name in _FLAGS):
        yield "flagged"
