"""pydantic's errors -> problems with a place, in words for someone who wrote a YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import replace
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from batchgen.errors import SHOWN, Problem, did_you_mean
from batchgen.job.model import (
    Conversation,
    Job,
    Limits,
    Output,
    OutputCsv,
    Price,
    Prompts,
    Provider,
    Retry,
)
from batchgen.job.yaml_nodes import Document, KeyPath, Position, shorten, text_position

# What OpenAI's keys, and those of many compatible servers, look like; an escape such as \n may stand right before one.
KEY = re.compile(r"(?:\b|(?<=\\[abefnrtv0_NLP]))sk-[A-Za-z0-9_-]{16,}")

_SECTIONS: dict[KeyPath, type[BaseModel]] = {
    (): Job,
    ("prompts",): Prompts,
    ("conversation",): Conversation,
    ("limits",): Limits,
    ("retry",): Retry,
    ("provider",): Provider,
    ("output",): Output,
    ("output", "csv"): OutputCsv,
}
_WORDING = {
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


def key_problems(text: str, display_name: str) -> Iterator[Problem]:
    """A problem for each thing in the text that looks like a key, as many as errors show."""
    for match in islice(KEY.finditer(text), SHOWN):
        line, column = text_position(text, match.start())
        message = (
            "this looks like an API key; a job file must not hold one: remove it (and replace the key if others "
            "could read the file), and name its environment variable in provider.api_key_env"
        )
        yield Problem(path=display_name, message=message, line=line, column=column)


def problems(
    error: ValidationError, document: Document, display_name: str, taken: Set[Position]
) -> Iterator[Problem]:
    """Every error of a validation where it stands: unknown and refused keys at the key, wrong values at the value,
    missing keys at the mapping that lacks them. What stands at a place of `taken` was said to be wrong before."""
    for detail in error.errors(include_url=False):
        loc: KeyPath = detail["loc"]
        at_key = loc[-1:] == ("[key]",)
        loc = loc[:-1] if at_key else loc
        line, column = document.position(loc, key=at_key or detail["type"] == "extra_forbidden")
        if (line, column) in taken and detail["type"] != "missing":
            continue
        message = f"{_spoken(loc)}: {_sentence(detail, loc)}"
        yield Problem(path=display_name, message=message, line=line, column=column)


def redacted(problem: Problem) -> Problem:
    """The problem without anything in its message that looks like a key."""
    return replace(problem, message=KEY.sub("[key]", problem.message))


def _spoken(loc: KeyPath) -> str:
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{shorten(part)}" for part in loc
    ).lstrip(".")


def _sentence(detail: Any, loc: KeyPath) -> str:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return _unknown(loc)
    if given is None and kind != "missing":
        return "is empty; give it a value or remove the line"
    if kind == "literal_error":
        choices = context["expected"].replace("'", "")
        return f"must be {choices}{_near(given, re.split(', | or ', choices))}"
    if loc == ("prompts",) and kind == "model_type":
        return "must be a mapping, such as {path: rows.csv}"
    quoted = (
        ", without quotes"
        if isinstance(given, str) and kind in ("int_type", "float_type", "bool_type")
        else ""
    )
    return (_WORDING[kind].format(**context) if kind in _WORDING else str(detail["msg"])) + quoted


def _unknown(loc: KeyPath) -> str:
    if loc == ("provider", "api_key"):
        return (
            "a key does not belong in a job file; remove it, put it into the environment variable OPENAI_API_KEY "
            "or a .env file, or name another variable in api_key_env"
        )
    section = Price if loc[0] == "pricing" else _SECTIONS[loc[:-1]]
    return f"unknown key{_near(loc[-1], list(section.model_fields))}"


def _near(word: Any, known: list[str]) -> str:
    # Comparing is quadratic in the length, and no key is that long.
    return did_you_mean(word, known) if isinstance(word, str) and len(word) <= 60 else ""
