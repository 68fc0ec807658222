"""What the rows of a prompts file are: requests, conversations, or texts in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from batchgen.init.survey import Column


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the rows are, and how the prompt is made of them.

    found: what was found, for a person.
    requests: whether each row is itself a request.
    columns: those that the prompt is made of.
    lines: the lines of the user's text, a template.
    messages: an expression that gives the messages; then there are no lines.
    turns: the column that lists the user's turns.
    system: the column that holds the system message.
    picture: the column that holds a picture's path or URL.
    passed: other fields of the request, each with its expression.
    unsure: what may be wrong, for a person.
    """

    found: str
    requests: bool = False
    columns: tuple[str, ...] = ()
    lines: Sequence[str] = ()
    messages: str | None = None
    turns: str | None = None
    system: str | None = None
    picture: Column | None = None
    passed: dict[str, str] = field(default_factory=dict)
    unsure: tuple[str, ...] = ()
