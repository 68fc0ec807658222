"""Whether a row leaves its prompt empty: nothing would be sent but the template's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchgen.job import Job
from batchgen.kinds import Kind
from batchgen.requests.checks import strings_in
from batchgen.requests.templates import Templates, Values


def prompt_columns(job: Job, kind: Kind, templates: Templates) -> frozenset[str]:
    """The columns that the prompt's templates use. None of them: no row can leave it empty.

    The prompt is the kind's text field. A template that uses the whole row counts as one without
    columns, because it decides itself what it shows.
    """
    columns: set[str] = set()
    for _, text in strings_in(job.request.get(kind.text_field), ()):
        if templates.uses_alone(text, "row"):
            return frozenset()
        bare, keys = templates.names(text)
        columns |= bare | {key for owner, key in keys if owner == "row"}
        columns |= templates.optional(text)
    if job.conversation is not None and job.conversation.turns and "turn" in columns:
        columns = {*columns, job.conversation.turns} - {"turn"}
    return frozenset(columns - {"row", *job.matrix})


def are_empty(names: frozenset[str], columns: Values) -> bool:
    """Whether a row has nothing in any of these columns, and there are some."""
    return bool(names) and all(_is_empty(columns.get(name)) for name in names)


def _is_empty(value: Any) -> bool:
    """Whether a cell shows nothing: white space, null, or lists and objects of such."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, Mapping):
        return all(map(_is_empty, value.values()))
    if isinstance(value, list):
        return all(map(_is_empty, value))
    return value is None
