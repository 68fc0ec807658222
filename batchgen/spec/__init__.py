"""job.yaml -> Job: read, checked, every problem at once as file:line:column.

- `yaml_nodes`  text -> plain data and the place of every node; the only door to PyYAML
- `values`      the checks of single values
- `model`       what a job may say, section by section: `Job`
- `wording`     pydantic's errors in plain words, and what looks like a key
- `provider`    where requests go and with which key; the environment and `.env`
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batchgen.errors import InputError, Problem
from batchgen.spec.model import (
    Conversation,
    Job,
    Kind,
    Limits,
    Mode,
    Origin,
    Output,
    OutputCsv,
    Price,
    Prompts,
    Provider,
    Retry,
    with_mode,
    with_prompts,
)
from batchgen.spec.provider import Connection, api_key, connection, merged_environment
from batchgen.spec.values import FailureLimit, folder_name
from batchgen.spec.wording import key_problems, problems, redacted
from batchgen.spec.yaml_nodes import Document, Place, parse, read_text

__all__ = [
    "Connection",
    "Conversation",
    "FailureLimit",
    "Job",
    "Kind",
    "Limits",
    "Mode",
    "Output",
    "OutputCsv",
    "Price",
    "Prompts",
    "Provider",
    "Retry",
    "api_key",
    "connection",
    "json_schema",
    "load_job",
    "with_mode",
    "with_prompts",
]


def load_job(path: str | Path, *, environ: Mapping[str, str] | None = None) -> Job:
    """The job of a file. `environ` is the environment to use instead of the process's own.

    Raises InputError with every problem of the file, sorted by line; the path in it is as given here.
    """
    shown = str(path)
    absolute = Path(os.path.abspath(path))
    text = read_text(absolute, shown)
    document, found = parse(text, shown)
    found = [*key_problems(text, shown), *found]
    job = None
    if document is not None:
        taken = {(problem.line, problem.column) for problem in found}
        job, more = _validated(document, absolute.stem, shown, taken)
        found += more
    if job is None or found or document is None:
        ordered = sorted(found, key=lambda problem: (problem.line, problem.column))
        raise InputError([redacted(problem) for problem in ordered])
    merged, note = merged_environment(absolute.parent, os.environ if environ is None else environ)
    job._origin = Origin(
        path=absolute,
        shown=shown,
        text=text,
        document=document,
        prompts_folder=absolute.parent,
        environ=merged,
        env_note=note,
    )
    return job


def _validated(document: Document, stem: str, shown: str, taken: Set[Place]) -> tuple[Job | None, list[Problem]]:
    data, found = document.data, []
    if "name" not in data:
        data, trouble = _named(data, stem)
        if trouble:
            line, column = document.place(())
            found.append(Problem(path=shown, message=trouble, line=line, column=column))
    try:
        return Job.model_validate(data), found
    except ValidationError as error:
        return None, [*found, *problems(error, document, shown, taken)]


def _named(data: dict[str, Any], stem: str) -> tuple[dict[str, Any], str]:
    """The data with the file's stem as name; when that cannot name a folder, with another and why."""
    try:
        return {"name": folder_name(stem), **data}, ""
    except ValueError as error:
        return {
            "name": "unnamed",
            **data,
        }, f"name: add a name, because the file's own cannot name the output: it {error}"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a job file, for editors; what it refuses, `load_job` refuses too."""
    schema = Job.model_json_schema()
    schema["required"].remove("name")  # the file's own name stands in
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
