"""PyYAML's and pydantic's errors in words for the author of a job file, and the redaction of what
looks like an API key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from itertools import islice
from typing import Any

from pydantic import ValidationError

from batchgen.errors import SHOWN, Problem, did_you_mean
from batchgen.job.positions import Document, KeyPath, Position, dotted, text_position

# What the keys of OpenAI and of many compatible servers look like. An escape such as \n may stand
# right before one.
KEY = re.compile(r"(?:\b|(?<=\\[abefnrtv0_NLP]))sk-[A-Za-z0-9_-]{16,}")

QUOTE_BRACES = (
    'quote a value that begins with {{ or {%, like "{{ name }}": YAML takes a bare { for a mapping'
)

# A part of PyYAML's message that tells the error apart, and what it means to the author of the
# file. Checked in this order.
_YAML_WORDING = (
    ("got '<stream end>'", "the bracket that opens here is never closed"),
    ("unexpected end of stream", "the quote that opens here is never closed"),
    ("unexpected document separator", "the quote that opens here is never closed"),
    ("could not find expected ':'", "a colon is missing: a line here is `key: value`"),
    (
        "mapping values are not allowed",
        "a colon is not allowed here; check the indentation, and quote text that holds ': '",
    ),
    ("character '\\t'", "a tab cannot indent; use spaces"),
    (
        "that cannot start any token",
        "a value cannot start with this character; put the text in quotes",
    ),
    (
        "sequence entries are not allowed",
        "a list item cannot start here; put each `- item` on a line of its own",
    ),
    (
        "expected <block end>",
        "this does not fit the lines before it; check the indentation, and quote special "
        "characters",
    ),
    (
        "expected ',' or",
        "a comma or the closing bracket is missing; put text with special characters in quotes",
    ),
    (
        "unknown escape character",
        "unknown escape in double quotes; double the backslash or use single quotes",
    ),
    (
        "escape sequence",
        "unfinished escape in double quotes; double the backslash or use single quotes",
    ),
    ("chomping or indentation", "after | or > the text starts on the next line"),
    ("comment or a line break", "after | or > the text starts on the next line"),
    ("expected alphabetic or numeric", "a value cannot start with & or *; put the text in quotes"),
    ("another document", "only one document is allowed; remove the second ---"),
    (
        "undefined tag handle",
        "tags (!name) are not allowed; put the text in quotes if it begins with !",
    ),
)
# These are about a bracket or quote that opened earlier: the message points there.
_OPENS_EARLIER = (
    "got '<stream end>'",
    "unexpected end of stream",
    "unexpected document separator",
    "could not find expected ':'",
)
_PYDANTIC_WORDING = {
    "missing": "is required",
    "string_type": "must be text; put it in quotes",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping: `key: value` lines below it",
    "model_type": "must be a mapping: `key: value` lines below it",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


def yaml_sentence(problem: str) -> str:
    """PyYAML's message in plain words."""
    if problem.startswith("nested deeper"):  # batchgen's own
        return problem
    plain = "this is not valid YAML; check indentation, colons and quotes here"
    return next((sentence for part, sentence in _YAML_WORDING if part in problem), plain)


def opens_earlier(problem: str) -> bool:
    """Whether PyYAML's message is about a bracket or a quote that opened before the position of the
    error.
    """
    return any(part in problem for part in _OPENS_EARLIER)


def key_problems(text: str, display_name: str) -> Iterator[Problem]:
    """A problem for each thing in the text that looks like an API key, at most SHOWN."""
    for match in islice(KEY.finditer(text), SHOWN):
        line, column = text_position(text, match.start())
        message = (
            "this looks like an API key; a job file must not hold one: remove it (and replace "
            "the key if others "
            "could read the file), and name its environment variable in provider.api_key_env"
        )
        yield Problem(path=display_name, message=message, line=line, column=column)


def redacted(problem: Problem) -> Problem:
    """The problem, with [key] in place of whatever in its message looks like an API key."""
    return replace(problem, message=KEY.sub("[key]", problem.message))


def validation_problems(
    error: ValidationError,
    document: Document,
    display_name: str,
    reported: Set[Position],
    known_keys: Callable[[KeyPath], Sequence[str]],
) -> Iterator[Problem]:
    """A problem for each error of a validation: at the key if the key is wrong, at the value if the
    value is wrong, at the mapping that lacks a key.

    Args:
        error: pydantic's error.
        document: the job file.
        display_name: the job file's name in messages.
        reported: positions where a problem was reported before; a second one there is left out.
        known_keys: the keys that the section at a key path may have.
    """
    for detail in error.errors(include_url=False):
        key_path: KeyPath = detail["loc"]
        at_key = key_path[-1:] == ("[key]",)
        key_path = key_path[:-1] if at_key else key_path
        at_key = at_key or detail["type"] == "extra_forbidden"
        line, column = document.position(key_path, key=at_key)
        if (line, column) in reported and detail["type"] != "missing":
            continue
        message = f"{dotted(key_path)}: {_sentence(detail, key_path, known_keys)}"
        yield Problem(path=display_name, message=message, line=line, column=column)


def _sentence(
    detail: Any, key_path: KeyPath, known_keys: Callable[[KeyPath], Sequence[str]]
) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return _unknown_key(key_path, known_keys(key_path[:-1]))
    if value is None and kind != "missing":
        return "is empty; give it a value or remove the line"
    if kind == "literal_error":
        choices = context["expected"].replace("'", "")
        return f"must be {choices}{_hint(value, re.split(', | or ', choices))}"
    if key_path == ("prompts",) and kind == "model_type":
        return "must be a mapping, such as {path: rows.csv}"
    is_quoted = isinstance(value, str) and kind in ("int_type", "float_type", "bool_type")
    wording = _PYDANTIC_WORDING.get(kind)
    sentence = str(detail["msg"]) if wording is None else wording.format(**context)
    return sentence + (", without quotes" if is_quoted else "")


def _unknown_key(key_path: KeyPath, known: Sequence[str]) -> str:
    if key_path == ("provider", "api_key"):
        return (
            "a key does not belong in a job file; remove it, put it into the environment "
            "variable OPENAI_API_KEY "
            "or a .env file, or name another variable in api_key_env"
        )
    return f"unknown key{_hint(key_path[-1], known)}"


def _hint(word: Any, known: Sequence[str]) -> str:
    # The comparison is quadratic in the length, and no key is longer than this.
    return did_you_mean(word, known) if isinstance(word, str) and len(word) <= 60 else ""
