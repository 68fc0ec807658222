"""A job file, or the options of run-batch -> Job, with every problem at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batchgen.errors import InputError, Problem
from batchgen.job.env_file import environment
from batchgen.job.model import Job, Origin, known_keys
from batchgen.job.positions import Document, KeyPath, Position, dotted
from batchgen.job.sections import CUSTOM_ID, OPENAI_BATCH, SET_BY_ROWS
from batchgen.job.values import folder_name
from batchgen.job.wording import key_problems, redacted, validation_problems
from batchgen.job.yaml_nodes import parse, read_text

# The command that needs no job file, and the name of its job.
RUN_BATCH = "run-batch"


def load_job(path: str | Path, *, environ: Mapping[str, str] | None = None) -> Job:
    """The job of a file. `environ` replaces the environment of the process.

    Raises InputError with every problem of the file, sorted by line; messages name the file by
    `path` as given.
    """
    display_name = str(path)
    absolute = Path(os.path.abspath(path))
    text = read_text(absolute, display_name)
    document, problems = parse(text, display_name)
    problems = [*key_problems(text, display_name), *problems]
    job = None
    if document is not None:
        reported = {(problem.line, problem.column) for problem in problems}
        job, more = _validated(document, absolute.stem, display_name, reported)
        problems += more
    if job is None or problems or document is None:
        raise _input_error(problems)
    job._origin = Origin(
        path=absolute,
        display_name=display_name,
        text=text,
        document=document,
        prompts_folder=absolute.parent,
        environment=environment(
            absolute.parent, os.environ if environ is None else environ, job_file=absolute
        ),
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
    """A job without a job file, for a file of requests as the Batch API takes them.

    Args:
        source: the file of requests, relative to the working directory; - is stdin.
        target: the file for all results. Everything else goes into the folder `<target>.batchgen`
            beside it.
        base_url: the server's address; by default OPENAI_BASE_URL, else OpenAI's.
        allow_http: allow plain http to another machine.
        api_key_env: the variable that holds the key; by default OPENAI_API_KEY. If that is not set
            and the server is not OpenAI's, requests are sent without a key.
        concurrency: requests in flight at the same time.
        environ: replaces the environment of the process.

    Raises InputError.
    """
    path = Path(os.path.abspath(target))
    prompts_folder = Path.cwd()
    env = environment(prompts_folder, os.environ if environ is None else environ)
    if api_key_env is None and (
        env.values.get("OPENAI_API_KEY", "").strip()
        or not (base_url or env.values.get("OPENAI_BASE_URL"))
    ):
        api_key_env = "OPENAI_API_KEY"
    data: dict[str, Any] = {
        "name": RUN_BATCH,
        "prompts": {"path": source, "format": OPENAI_BATCH},
        "provider": {"base_url": base_url, "allow_http": allow_http, "api_key_env": api_key_env},
        # A line may have fields of any name beside its request; a prefix keeps batchgen's own
        # columns apart from them.
        "output": {"dir": f"{path.name}.batchgen", "prefix": "batchgen_"},
    }
    if concurrency is not None:
        data["limits"] = {"concurrency": concurrency}
    # There is no job file, so problems have no line numbers.
    document = Document(data=data, values={(): (0, 0)}, keys={})
    display_name = f"batchgen {RUN_BATCH}"
    job, problems = _validated(document, RUN_BATCH, display_name, frozenset())
    if job is None:
        raise _input_error([replace(each, message=_as_option(each.message)) for each in problems])
    job._origin = Origin(
        path=path,
        display_name=display_name,
        text=json.dumps(data),
        document=document,
        prompts_folder=prompts_folder,
        environment=env,
        output_file=path,
    )
    return job


# The options of run-batch that set a key of a job.
_OPTIONS = {
    "prompts.path": "--input-file",
    "output.dir": "--output-file",
    "provider.base_url": "--base-url",
    "provider.api_key_env": "--api-key-env",
}


def _as_option(message: str) -> str:
    key, colon, rest = message.partition(": ")
    return f"{_OPTIONS.get(key, key)}{colon}{rest}"


def _input_error(problems: Sequence[Problem]) -> InputError:
    ordered = sorted(problems, key=lambda problem: (problem.line, problem.column))
    return InputError([redacted(problem) for problem in ordered])


def _validated(
    document: Document, stem: str, display_name: str, reported: Set[Position]
) -> tuple[Job | None, list[Problem]]:
    """The job of a document, or (None) the problems why it is not one.

    Args:
        document: the job file.
        stem: the job file's name without .yaml, which is the job's default name.
        display_name: the job file's name in messages.
        reported: positions where a problem was reported before.
    """
    data, problems = document.data, list(_problems_with_format(document, display_name))
    if _rows_are_requests(data):
        # These keys are reported already.
        data = {name: value for name, value in data.items() if name not in SET_BY_ROWS}
    if "name" not in data:
        try:
            data = {"name": folder_name(stem), **data}
        except ValueError as error:
            # With some valid name the other keys can be checked too.
            data = {"name": "unnamed", **data}
            message = f"name: add a name, because the file's own cannot name the output: it {error}"
            line, column = document.position(())
            problems.append(Problem(path=display_name, message=message, line=line, column=column))
    try:
        return Job.model_validate(data), problems
    except ValidationError as error:
        found = validation_problems(error, document, display_name, reported, known_keys)
        return None, [*problems, *found]


def _rows_are_requests(data: Mapping[str, Any]) -> bool:
    """Whether the rows of a job's data are themselves requests, as the Batch API takes them."""
    return isinstance(data.get("prompts"), dict) and data["prompts"].get("format") == OPENAI_BATCH


def _problems_with_format(document: Document, display_name: str) -> Iterator[Problem]:
    """A problem for each key that the format of the prompts needs or forbids.

    Rows that are requests set the kind and the request; for all other rows the job must set them.
    """
    data = document.data

    def problem(key_path: KeyPath, message: str, *, at_key: bool = False) -> Problem:
        line, column = document.position(key_path, key=at_key)
        message = f"{dotted(key_path)}: {message}"
        return Problem(path=display_name, message=message, line=line, column=column)

    if not _rows_are_requests(data):
        for name in ("kind", "request"):
            if name not in data:
                yield problem((name,), "is required")
        if "kind" in data and data["kind"] is None:
            yield problem(("kind",), "is empty; give it a value or remove the line")
        return
    for name in SET_BY_ROWS:
        if name in data:
            message = f"the rows of {OPENAI_BATCH} set it themselves; remove it"
            yield problem((name,), message, at_key=True)
    if data["prompts"].get("id") not in (None, CUSTOM_ID):
        message = f"the rows of {OPENAI_BATCH} are named by {CUSTOM_ID}; remove it"
        yield problem(("prompts", "id"), message)
