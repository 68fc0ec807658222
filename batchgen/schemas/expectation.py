"""What the answer to a request must be, and the judgement of answers by it.

A request asks for JSON by its own fields: `response_format` of a chat, `text.format` of a response.
The job does by `output.json` and `output.schema`. An answer must fit all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from batchgen.errors import Problem
from batchgen.job import Job
from batchgen.replies import FORMAT_FIELDS, Answer, Choice, is_whole
from batchgen.schemas.found import find_json
from batchgen.schemas.schema import Schema, SchemaError, schema_of

# The finish reason of an answer that is not what was asked for.
MISFIT = "schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What an answer must be: JSON that fits these schemas.

    is_object: it must be an object.
    """

    schemas: tuple[Schema, ...] = ()
    is_object: bool = False

    def judged(self, answer: Answer) -> Answer:
        """The answer, each text of it as its JSON alone, or incomplete if one does not fit."""
        choices, misfits = [], []
        for choice in answer.choices:
            judged, why = self._judged(choice)
            choices.append(judged)
            misfits += [why] if why else []
        judged_answer = replace(answer, choices=tuple(choices))
        if not misfits or not answer.ended:
            return judged_answer
        return replace(judged_answer, ended=False, finish_reason=MISFIT, misfit=misfits[0])

    def _judged(self, choice: Choice) -> tuple[Choice, str]:
        """A choice, and why it does not fit. One that was cut or refused, or is a call, is kept."""
        if choice.calls or not is_whole(choice.finish_reason):
            return choice, ""
        found = find_json(choice.text)
        if found is None:
            return replace(choice, finish_reason=MISFIT), "the answer is not one JSON value"
        if self.is_object and not isinstance(found.value, dict):
            return replace(choice, finish_reason=MISFIT), "the answer is not a JSON object"
        for schema in self.schemas:
            if why := schema.misfit(found.value):
                return replace(choice, finish_reason=MISFIT), why
        return replace(choice, text=found.text, unwrapped=found.wrapping), ""


class Expectations:
    """What the answers of a job must be."""

    def __init__(self, job: Job) -> None:
        """Read and compile nothing yet."""
        self._job = job

    def of(self, body: Mapping[str, Any]) -> Expectation | None:
        """What the answer to a request with this body must be; None for any text.

        A schema that is not valid is no part of it: staging refuses the job.
        """
        form = _format_of(body)
        own = schema_of(text) if (text := _schema_text(form)) else None
        schemas = [each for each in (self._of_job, own) if isinstance(each, Schema)]
        is_json = form.get("type") in ("json_schema", "json_object")
        if not (schemas or is_json or self._job.output.expects_json):
            return None
        return Expectation(schemas=tuple(schemas), is_object=form.get("type") == "json_object")

    def problems(self) -> list[Problem]:
        """What is wrong with the job's own schema."""
        return [self._of_job] if isinstance(self._of_job, Problem) else []

    @cached_property
    def schema_text(self) -> str | Problem | None:
        """The JSON of the job's own schema, or why it cannot be read; None without one."""
        given = self._job.output.schema_
        if not isinstance(given, str):
            return None if given is None else json.dumps(given, sort_keys=True)
        try:
            text = (self._job.folder / given).read_text(encoding="utf-8-sig")
            json.loads(text)
        except json.JSONDecodeError as error:
            return Problem(
                path=given, line=error.lineno, column=error.colno, message=f"not JSON: {error.msg}"
            )
        except (OSError, ValueError, RecursionError) as error:
            why = getattr(error, "strerror", None) or "is not a JSON Schema in UTF-8"
            return self._job.problem(("output", "schema"), f"output.schema: {given}: {why}")
        return text

    @cached_property
    def _of_job(self) -> Schema | Problem | None:
        text = self.schema_text
        if not isinstance(text, str):
            return text
        schema = schema_of(text)
        if isinstance(schema, Schema):
            return schema
        message = f"output.schema: it is not a valid JSON Schema: {schema}"
        return self._job.problem(("output", "schema"), message)


def may_expect_json(job: Job) -> bool:
    """Whether the answers of some rows of a job must be JSON."""
    requests = job.kind is None or any(name in job.request for name in FORMAT_FIELDS)
    return requests or job.output.expects_json


def format_problem(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """The field of a body whose JSON Schema is not valid, and why; None if there is none."""
    text = _schema_text(_format_of(body))
    schema = schema_of(text) if text else None
    if not isinstance(schema, SchemaError):
        return None
    field = next(name for name in FORMAT_FIELDS if name in body)
    return field, f"its JSON Schema is not valid: {schema}"


def _format_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The form that a request asks for; chat completions and responses name it differently."""
    text = body.get("text")
    form = body.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    return form if isinstance(form, dict) else {}


def _schema_text(form: Mapping[str, Any]) -> str:
    """The JSON of a form's schema; empty without one.

    Some servers take a schema with json_object, too.
    """
    inner = form.get("json_schema")
    schema = (inner if isinstance(inner, dict) else form).get("schema")
    return "" if schema is None else json.dumps(schema, sort_keys=True)
