"""`prompts.where`: which rows a job is about, by an expression over each."""

from __future__ import annotations

from collections.abc import Sequence

from batchgen.errors import Problem
from batchgen.job import Job
from batchgen.requests.checks import unknown_column
from batchgen.requests.faults import RequestError, TemplateError
from batchgen.requests.templates import Render, Templates, Values

_KEY_PATH = ("prompts", "where")


class Where:
    """The expression of a job, if it has one."""

    def __init__(self, job: Job, templates: Templates) -> None:
        """Compile it; a problem of its syntax is kept for `problems`."""
        self._job, self._templates = job, templates
        self._holds: Render | None = None
        self._syntax: list[Problem] = []
        if job.prompts.where is not None:
            try:
                self._holds = templates.compile_expression(job.prompts.where)
            except TemplateError as error:
                self._syntax = [job.problem(_KEY_PATH, f"prompts.where: {error}")]

    def problems(self, header: Sequence[str] | None) -> list[Problem]:
        """What is wrong with it, whatever the row; `header` are the columns, if known."""
        if self._syntax or self._holds is None or header is None:
            return self._syntax
        bare, keys = self._templates.names(f"{{{{ {self._job.prompts.where} }}}}")
        of_row = {key for owner, key in keys if owner == "row"}
        unknown = sorted((of_row | (bare - {"row"})).difference(header))
        return [
            self._job.problem(_KEY_PATH, f"prompts.where: {unknown_column(name, header)}")
            for name in unknown
        ]

    def keeps(self, columns: Values) -> bool:
        """Whether it holds for a row. Raises RequestError where it cannot be evaluated."""
        if self._holds is None:
            return True
        try:
            return bool(self._holds({**columns, "row": columns}))
        except TemplateError as error:
            raise RequestError(_KEY_PATH, str(error)) from None
