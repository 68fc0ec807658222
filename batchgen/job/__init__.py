"""job.yaml -> Job: read, checked, every problem at once as file:line:column.

- `yaml_nodes`  text -> plain data and the place of every node; the only door to PyYAML
- `values`      the checks of single values
- `model`       what a job may say, section by section: `Job`
- `wording`     pydantic's errors in plain words, and what looks like a key
- `provider`    where requests go and with which key; the environment and `.env`
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batchgen.errors import InputError, Problem
from batchgen.job.model import (
    CUSTOM_ID,
    OPENAI_BATCH,
    SET_BY_ROWS,
    Conversation,
    Job,
    KindName,
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
from batchgen.job.provider import Connection, api_key, connection, merged_environment
from batchgen.job.values import MaxFailures, folder_name, unsendable
from batchgen.job.wording import key_problems, problems, redacted
from batchgen.job.yaml_nodes import Document, KeyPath, Position, parse, read_text

__all__ = [
    "OPENAI_BATCH",
    "Connection",
    "Conversation",
    "Job",
    "KindName",
    "Limits",
    "MaxFailures",
    "Mode",
    "Output",
    "OutputCsv",
    "Price",
    "Prompts",
    "Provider",
    "Retry",
    "api_key",
    "connection",
    "job_for_batch_file",
    "json_schema",
    "load_job",
    "unsendable",
    "with_mode",
    "with_prompts",
]

# The command that needs no job file, and the name of its job.
RUN_BATCH = "run-batch"


def load_job(path: str | Path, *, environ: Mapping[str, str] | None = None) -> Job:
    """The job of a file. `environ` is the environment to use instead of the process's own.

    Raises InputError with every problem of the file, sorted by line; the path in it is as given here.
    """
    display_name = str(path)
    absolute = Path(os.path.abspath(path))
    text = read_text(absolute, display_name)
    document, found = parse(text, display_name)
    found = [*key_problems(text, display_name), *found]
    job = None
    if document is not None:
        taken = {(problem.line, problem.column) for problem in found}
        job, more = _validated(document, absolute.stem, display_name, taken)
        found += more
    if job is None or found or document is None:
        raise _refusal(found)
    merged, note = merged_environment(absolute.parent, os.environ if environ is None else environ)
    job._origin = Origin(
        path=absolute,
        display_name=display_name,
        text=text,
        document=document,
        prompts_folder=absolute.parent,
        environ=merged,
        env_note=note,
    )
    return job


def job_for_batch_file(
    source: str,
    target: Path,
    *,
    base_url: str | None = None,
    allow_http: bool = False,
    api_key_env: str | None = None,
    concurrency: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Job:
    """A job without a file: the requests in `source` (relative to the working directory; - is stdin), all their results in
    the file `target`, and all else in the folder `<target>.batchgen` beside it. Where another server than OpenAI's is named
    and OPENAI_API_KEY is not set, it goes without a key, unless `api_key_env` is given.

    Raises InputError.
    """
    path = Path(os.path.abspath(target))
    prompts_folder = Path.cwd()
    merged, note = merged_environment(prompts_folder, os.environ if environ is None else environ)
    if api_key_env is None and (
        "OPENAI_API_KEY" in merged or not (base_url or merged.get("OPENAI_BASE_URL"))
    ):
        api_key_env = "OPENAI_API_KEY"
    data: dict[str, Any] = {
        "name": RUN_BATCH,
        "prompts": {"path": source, "format": OPENAI_BATCH},
        "provider": {"base_url": base_url, "allow_http": allow_http, "api_key_env": api_key_env},
        # What a line has beside a request may have any name.
        "output": {"dir": f"{path.name}.batchgen", "prefix": "batchgen_"},
    }
    if concurrency is not None:
        data["limits"] = {"concurrency": concurrency}
    # Where nothing was written, nothing has a line.
    document = Document(data=data, values={(): (0, 0)}, keys={})
    display_name = f"batchgen {RUN_BATCH}"
    job, found = _validated(document, RUN_BATCH, display_name, frozenset())
    if job is None:
        raise _refusal([replace(each, message=_as_option(each.message)) for each in found])
    job._origin = Origin(
        path=path,
        display_name=display_name,
        text=json.dumps(data),
        document=document,
        prompts_folder=prompts_folder,
        environ=merged,
        env_note=note,
        output_file=path,
    )
    return job


# The options that say what a job file says otherwise.
_OPTIONS = {
    "prompts.path": "--input-file",
    "output.dir": "--output-file",
    "provider.base_url": "--base-url",
    "provider.api_key_env": "--api-key-env",
}


def _as_option(message: str) -> str:
    name, colon, said = message.partition(": ")
    return f"{_OPTIONS.get(name, name)}{colon}{said}"


def _refusal(found: Sequence[Problem]) -> InputError:
    ordered = sorted(found, key=lambda problem: (problem.line, problem.column))
    return InputError([redacted(problem) for problem in ordered])


def _validated(
    document: Document, stem: str, display_name: str, taken: Set[Position]
) -> tuple[Job | None, list[Problem]]:
    data, found = document.data, list(_left_to_rows(document, display_name))
    if _are_requests(data):
        data = {name: value for name, value in data.items() if name not in SET_BY_ROWS}
    if "name" not in data:
        data, trouble = _named(data, stem)
        if trouble:
            line, column = document.position(())
            found.append(Problem(path=display_name, message=trouble, line=line, column=column))
    try:
        return Job.model_validate(data), found
    except ValidationError as error:
        return None, [*found, *problems(error, document, display_name, taken)]


def _are_requests(data: Mapping[str, Any]) -> bool:
    """Whether the rows of a job's data are requests, as the Batch API takes them."""
    return isinstance(data.get("prompts"), dict) and data["prompts"].get("format") == OPENAI_BATCH


def _left_to_rows(document: Document, display_name: str) -> Iterator[Problem]:
    """Rows that are requests say themselves what is sent, and the job does not; of all others the job does."""
    data = document.data

    def problem(loc: KeyPath, message: str, *, key: bool = False) -> Problem:
        line, column = document.position(loc, key=key)
        return Problem(
            path=display_name,
            message=f"{'.'.join(map(str, loc))}: {message}",
            line=line,
            column=column,
        )

    if not _are_requests(data):
        yield from (
            problem((name,), "is required") for name in ("kind", "request") if name not in data
        )
        if "kind" in data and data["kind"] is None:
            yield problem(("kind",), "is empty; give it a value or remove the line")
        return
    for name in SET_BY_ROWS:
        if name in data:
            yield problem(
                (name,), f"the rows of {OPENAI_BATCH} say it themselves; remove it", key=True
            )
    if data["prompts"].get("id") not in (None, CUSTOM_ID):
        yield problem(
            ("prompts", "id"), f"the rows of {OPENAI_BATCH} are named by {CUSTOM_ID}; remove it"
        )


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
    requests = {"properties": {"format": {"const": OPENAI_BATCH}}, "required": ["format"]}
    left = {
        "if": {"properties": {"prompts": requests}, "required": ["prompts"]},
        "then": {"properties": dict.fromkeys(SET_BY_ROWS, False)},
        "else": {"required": ["kind", "request"]},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, **left}
