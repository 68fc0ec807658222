"""`output.columns`: cells that are computed from an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchgen.errors import Problem, did_you_mean, listed
from batchgen.job import Job, KeyPath, dotted
from batchgen.kinds import KINDS
from batchgen.replies import parse
from batchgen.requests.checks import include_problems, unknown_column
from batchgen.requests.faults import TemplateError
from batchgen.requests.templates import Render, Templates, Values
from batchgen.schemas import find_json

# The names that a template may use.
_NAMES = ("json", "output", "request", "response", "row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """Why a cell is empty.

    Attributes:
        reason: in general words, which hold nothing of the row or its answer.
        detail: what is wrong with this answer.
    """

    reason: str
    detail: str


class Columns:
    """The templates of a job's `output.columns`. Problems in them are kept for `problems`.

    Attributes:
        uses_request: whether a template uses the request's body.
    """

    def __init__(self, job: Job, templates: Templates) -> None:
        self._job, self._templates = job, templates
        self._unreadable: dict[KeyPath, Problem] = {}
        self._texts = {
            ("output", "columns", name): text for name, text in job.output.columns.items()
        }
        self._renders = {key[-1]: self._compiled(key, text) for key, text in self._texts.items()}
        self._of_json = {key[-1] for key, text in self._texts.items() if self._uses(text, "json")}
        self.uses_request = any(self._uses(text, "request") for text in self._texts.values())

    def cells(self, row: Values, request: Values, response: Any, output: str) -> dict[str, Any]:
        """The cells for one answer, by column: JSON values, and a `Blank` for each empty one.

        Args:
            row: the cells of the row and the values of the axes.
            request: the request's body; may be empty unless `uses_request`.
            response: the API's reply.
            output: the text of the answer.
        """
        value, fault = _parsed(output) if self._of_json else (None, "")
        values = {
            "row": row,
            "request": request,
            "response": response,
            "output": output,
            "json": value,
        }
        cells = {name: _cell(render, values) for name, render in self._renders.items()}
        if fault:
            why = Blank(reason="the answer is no JSON", detail=fault)
            blank = {name for name in self._of_json if isinstance(cells[name], Blank)}
            cells |= dict.fromkeys(blank, why)
        return cells

    def problems(self, header: Sequence[str] | None) -> list[Problem]:
        """What keeps a template from ever giving a cell, whatever the answers.

        `header` are the prompts' columns, if known.
        """
        unreadable = dict(self._unreadable)
        for key_path, text in self._texts.items():
            if key_path not in unreadable:
                for problem in include_problems(self._job, self._templates, [(key_path, text)]):
                    unreadable[key_path] = problem
        unknown = [
            self._job.problem(key_path, f"{dotted(key_path)}: {message}")
            for key_path, text in self._texts.items()
            if key_path not in unreadable
            for message in self._unknown_names(text, header)
        ]
        return [*unreadable.values(), *unknown]

    def _compiled(self, key_path: KeyPath, text: str) -> Render:
        try:
            return self._templates.compile(text)
        except TemplateError as error:
            message = f"{dotted(key_path)}: {error}"
            self._unreadable[key_path] = self._job.problem(key_path, message)
            return lambda values: None

    def _uses(self, text: str, name: str) -> bool:
        # `problems` reports what cannot be read.
        with suppress(Exception):
            return name in self._templates.names(text)[0]
        return False

    def _unknown_names(self, text: str, header: Sequence[str] | None) -> Iterator[str]:
        """A message for each name in a template, and each field of one, that there never is."""
        columns = [] if header is None else [*header, *self._job.matrix]
        bare, keys = self._templates.names(text)
        for name in sorted(bare.difference(_NAMES)):
            # A bare name is part of the answer; a column is reached through `row` only.
            hint = f'; a column is written row["{name}"]' if name in columns else ""
            yield f"{name!r} is not one of {listed(_NAMES)}{hint or did_you_mean(name, _NAMES)}"
        for owner, key in sorted(keys):
            if owner == "row" and header is not None and key not in columns:
                yield unknown_column(key, columns)
            if owner == "output":
                yield f"output is text and has no {key!r}; a field of JSON is written json.{key}"
            fields = self._request_fields()
            if owner == "request" and fields and key not in fields:
                hint = did_you_mean(key, fields)
                yield f"the request has no field {key!r} (fields: {listed(fields)}){hint}"

    def _request_fields(self) -> list[str]:
        """The fields that a request's body may have; none where each row is itself a request."""
        if self._job.kind is None:
            return []
        kind = KINDS[self._job.kind]
        return sorted({*self._job.request, *kind.defaults}.difference(kind.file_fields))


def _parsed(output: str) -> tuple[Any, str]:
    """An answer's JSON, also out of a fence or a sentence; and why it is none, or ""."""
    if found := find_json(output):
        return found.value, ""
    try:
        # A number that JSON has not, such as NaN, is null.
        return parse(output).value, ""
    except (ValueError, RecursionError) as error:
        return None, f"the answer is no JSON: {str(error)[:200]}"


def _cell(render: Render, values: Mapping[str, Any]) -> Any:
    try:
        value = render(values)
    except TemplateError as error:
        return Blank(reason=error.reason, detail=str(error))
    if value is None:
        return Blank(reason="null", detail="the template gives null")
    if isinstance(value, str):
        return value
    try:
        # A table in JSONL must hold JSON alone.
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        return Blank(reason="a value that is no JSON", detail=str(error)[:200])
    return value
