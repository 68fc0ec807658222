"""What is wrong with a request: in the job file, whatever the row; and in the body of one row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from batchgen.batch_format import URL_PREFIX
from batchgen.errors import Problem, did_you_mean, listed
from batchgen.job import TEXT_KINDS, Job, KeyPath, dotted, unsendable
from batchgen.kinds import Kind
from batchgen.requests.bounds import is_count
from batchgen.requests.content import missing_texts
from batchgen.requests.faults import RequestError
from batchgen.requests.templates import Templates, Values
from batchgen.schemas import format_problem

_NO_TEXT = "is nothing (null, missing or an empty list), and the API needs a text here"


def field_problems(job: Job, kind: Kind) -> Iterator[Problem]:
    """A problem for each field that the job's request lacks, or that is wrong for every row."""
    for name in kind.required:
        if name not in job.request:
            yield job.problem(("request",), f"request.{name} is missing; kind {kind.name} needs it")
    constant = {
        name: value
        for name, value in job.request.items()
        if not any("{" in text for _, text in strings_in(value, ()))
    }
    for name, message in _wrong_fields(kind, constant):
        yield job.problem(("request", name), f"request.{name}: {message}")
    if kind.text_field in constant:
        for path in missing_texts(kind, constant):
            where = ("request", *path)
            yield job.problem(where, f"{dotted(where)}: {_NO_TEXT}; give it one")


def include_problems(
    job: Job, templates: Templates, texts: Iterable[tuple[KeyPath, str]]
) -> Iterator[Problem]:
    """A problem for each of the texts that includes a file which cannot be read, directly or
    through another file.
    """
    for key_path, text in texts:
        try:
            templates.included(text)
        except Exception as error:
            yield job.problem(key_path, f"{dotted(key_path)}: {error}")


def column_problems(
    job: Job, templates: Templates, header: Sequence[str], by_turns: bool
) -> Iterator[Problem]:
    """A problem for each name in a template of the request that is not a column.

    `header` are the columns of the prompts. `by_turns` says that a column holds the turns of a
    conversation, so that templates may use `turn`.
    """
    columns = list(dict.fromkeys((*header, *job.matrix)))
    known = {"row", *columns, *(("turn",) if by_turns else ())}
    for key_path, text in strings_in(job.request, ("request",)):
        bare, keys = templates.names(text)
        of_row = {key for owner, key in keys if owner == "row"}
        for name in (*sorted(of_row.difference(columns)), *sorted(bare - known)):
            yield job.problem(key_path, f"{dotted(key_path)}: {unknown_column(name, columns)}")
        if "row" in columns and templates.uses_alone(text, "row"):
            yield job.problem(
                key_path,
                f"{dotted(key_path)}: row is the whole row here, and the prompts have a column "
                "'row'; write row[\"row\"] for the column, or rename it",
            )


def unknown_column(name: str, columns: Sequence[str]) -> str:
    """The message for a name that is not a column: the columns that there are, and the nearest of
    them.
    """
    return f"{name!r} is not a column (columns: {listed(columns)}){did_you_mean(name, columns)}"


def check_rendered(kind: Kind, body: Mapping[str, Any]) -> None:
    """Raises RequestError for the first field of a rendered body that is missing or wrong."""
    for name in kind.required:
        if name not in body and name not in kind.file_fields:
            raise RequestError(("request", name), "came out as none, and the API needs it")
    for name, message in _wrong_fields(kind, body):
        raise RequestError(("request", name), message)
    for path in missing_texts(kind, body):
        what_to_do = "give the row one, or set prompts.bad_rows: fail to run the others"
        raise RequestError(("request", *path), f"{_NO_TEXT}; {what_to_do}")


def own_body(kind: Kind, columns: Values) -> dict[str, Any]:
    """The body of a row that is itself a request: sent as it is, without templates and without
    files of this machine.

    Raises RequestError for the first field that is missing, wrong or cannot be sent.
    """
    body: dict[str, Any] = columns["body"]
    for name, message in _wrong_own_fields(kind, body):
        raise RequestError((), f"body.{name}: {message}")
    return body


def _wrong_own_fields(kind: Kind, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in body:
        # false and null ask for the default behaviour and are harmless.
        if body[name] not in (False, None) and (why := unsendable(name, kind.name)):
            yield name, f"{why}; remove it"
        if name in kind.json_fields:
            instead = kind.json_fields[name]
            yield name, f"is a file of a form, and this is JSON; give {instead} instead"
    for name in (kind.json_fields.get(each, each) for each in kind.required):
        if name not in body:
            yield name, f"is missing; {URL_PREFIX}{kind.endpoint} needs it"
    yield from _wrong_fields(kind, body)
    for path in missing_texts(kind, body):
        yield dotted(path), f"{_NO_TEXT}; give it one"


def _wrong_fields(kind: Kind, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields of a body, or of a part of one, whose values are wrong, and what they must be."""
    if "model" in body and not (isinstance(body["model"], str) and body["model"].strip()):
        yield "model", "must be the name of a model"
    if kind.name == "chat" and "messages" in body and not _are_messages(body["messages"]):
        yield "messages", "must be a list of messages, each with a role"
    for name in ("n", "best_of"):
        if body.get(name) is not None and not is_count(body[name]):
            yield name, "must be a whole number above 0"
    if kind.name in TEXT_KINDS and (problem := format_problem(body)):
        yield problem


def _are_messages(messages: Any) -> bool:
    if not isinstance(messages, list) or not messages:
        return False
    return all(
        isinstance(message, Mapping) and isinstance(message.get("role"), str)
        for message in messages
    )


def strings_in(value: Any, key_path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every string below `value`, however deep, with its key path; that of `value` itself is
    `key_path`.
    """
    if isinstance(value, str):
        yield key_path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from strings_in(item, (*key_path, name))
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from strings_in(item, (*key_path, n))
