"""Outcomes -> the lines of the Batch API's output and error files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from batchgen.batch_format import Result, result_line
from batchgen.disk import atomic_write
from batchgen.images import restored
from batchgen.job import TEXT_KINDS, Job
from batchgen.journal import RecordedOutcome, Row
from batchgen.kinds import Kind
from batchgen.replies import (
    UnreadableReplyError,
    decode_embeddings,
    parse,
    picture_slots,
    with_pictures,
)
from batchgen.requests import Renderer, canonical
from batchgen.tables.formats import OnWritten

WriteResult = Callable[[int, Result], None]


@contextmanager
def batch_writer(path: Path, *, on_written: OnWritten | None = None) -> Iterator[WriteResult]:
    """Write a file of results, one a line."""
    with atomic_write(path, binary=True, on_written=on_written) as file:

        def write(number: int, result: Result) -> None:
            file.write(result_line(f"batch_req_{number}", result))

        yield write


def custom_id(job: Job, row: Row) -> str:
    """The name of a row's request in the files, which no other request has.

    It is the row's id. In a job with axes or conversations it is a JSON list: the id, the values of
    the axes in the job's order, and the turn. A broken row whose id could not be read has its line
    number instead of an id.
    """
    nameless = (
        job.prompts.id is not None and row.error is not None and row.outcome_id.startswith("#")
    )
    name = f"(line {row.line})" if nameless else row.id
    parts = [row.axes.get(axis) for axis in job.matrix] + ([row.turn] if job.conversation else [])
    return canonical([name, *parts]) if parts else name


def answer_of(
    name: str, row: Row, recorded: RecordedOutcome, renderer: Renderer, folder: Path
) -> Result | None:
    """A recorded answer as the API gives it to other clients.

    Args:
        name: the `custom_id`.
        row: the row that was answered.
        recorded: its outcome.
        renderer: knows the kind of the row's request.
        folder: the job's output folder, which holds the pictures.

    Returns None when one of its pictures is gone or was changed.
    """
    kind = renderer.kind_of(row.columns)
    body: dict[str, Any] | None = parse(recorded.response).value
    if kind is not None and body is not None:
        body = _as_the_api_gives_it(kind, body, renderer, row, folder)
    if body is None:
        return None
    return Result(custom_id=name, status=200, request_id=recorded.request_id, body=body)


def _as_the_api_gives_it(
    kind: Kind, body: dict[str, Any], renderer: Renderer, row: Row, folder: Path
) -> dict[str, Any] | None:
    """Undo what batchgen did to a response: pictures kept as files, embeddings asked for in base64.

    Args:
        kind: the kind of the row's request.
        body: the recorded response.
        renderer: knows what the job or the row asked for.
        row: the row that was answered.
        folder: the job's output folder, which holds the pictures.

    Returns None when a picture is gone or was changed.
    """
    if kind.makes_images:
        items = [restored(folder, item) for item in body["data"]]
        return None if None in items else {**body, "data": items}
    if kind.name in TEXT_KINDS:
        return _with_pictures(body, folder)
    if "encoding_format" in kind.defaults and not renderer.sets_field(
        row.columns, "encoding_format"
    ):
        # Only batchgen asked for base64; programs that read the file expect numbers.
        with suppress(UnreadableReplyError):
            return decode_embeddings(body)
    return body


def _with_pictures(body: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """A text's response with the pictures that were stored; None when one is gone or changed."""
    values = {}
    for slot in picture_slots(body):
        if slot.path:
            picture = restored(folder, slot.value)
            if picture is None:
                return None
            values[slot.keys] = picture["head"] + picture["b64_json"]
    return with_pictures(body, values)


def failure_of(name: str, row: Row, recorded: RecordedOutcome | None, reason: str) -> Result:
    """A failed row: a response where the server refused it, else an error.

    A reply of status 200 that was not an answer is an error too.
    """
    if recorded is None:
        return Result(custom_id=name, error={"code": reason, "message": row.input_error})
    status, message = recorded.http_status, recorded.message
    if status is None or 200 <= status < 300:
        return Result(custom_id=name, error={"code": recorded.code or reason, "message": message})
    error = {"message": message, "type": reason, "param": None, "code": recorded.code}
    return Result(
        custom_id=name, status=status, request_id=recorded.request_id, body={"error": error}
    )
