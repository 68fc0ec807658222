"""Outcomes -> what the lines of the Batch API's output and error files say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from batchgen.batch_format import Result, result_line
from batchgen.disk import atomic_write
from batchgen.images import restored
from batchgen.job import Job
from batchgen.journal import RecordedOutcome, Row
from batchgen.kinds import Kind
from batchgen.replies import UnreadableReplyError, in_numbers
from batchgen.requests import Renderer, canonical
from batchgen.tables.formats import Note, WriteResult


@contextmanager
def batch_writer(path: Path, *, note: Note | None = None) -> Iterator[WriteResult]:
    """A file of results, one a line."""
    with atomic_write(path, binary=True, on_written=note) as file:

        def write(number: int, result: Result) -> None:
            file.write(result_line(f"batch_req_{number}", result))

        yield write


def custom_id(job: Job, row: Row) -> str:
    """What names a row's request in the files, and no other: its id; where the id alone does not, a JSON list of the id,
    the values of the axes in the job's order, and the turn. A broken row whose id could not be read has its line."""
    nameless = (
        job.prompts.id is not None and row.error is not None and row.outcome_id.startswith("#")
    )
    name = f"(line {row.line})" if nameless else row.id
    parts = [row.axes.get(axis) for axis in job.matrix] + ([row.turn] if job.conversation else [])
    return canonical([name, *parts]) if parts else name


def answer_of(
    name: str, row: Row, recorded: RecordedOutcome, renderer: Renderer, folder: Path
) -> Result | None:
    """A recorded answer as the API gave it: what batchgen keeps or asks for otherwise is as if it did not. `folder` holds
    the pictures; None where one of them is not what was written."""
    kind, body = renderer.kind_of(row.columns), json.loads(recorded.response)
    if kind is not None:
        body = _as_given(kind, body, renderer, row, folder)
    return (
        Result(custom_id=name, status=200, request_id=recorded.request_id, body=body)
        if body is not None
        else None
    )


def _as_given(
    kind: Kind, body: dict[str, Any], renderer: Renderer, row: Row, folder: Path
) -> dict[str, Any] | None:
    if kind.draws:
        items = [restored(folder, item) for item in body["data"]]
        return None if None in items else {**body, "data": items}
    if "encoding_format" in kind.defaults and not renderer.says(row.columns, "encoding_format"):
        # What was recorded is told, whoever can read it.
        with suppress(UnreadableReplyError):
            return in_numbers(body)
    return body


def failure_of(name: str, row: Row, recorded: RecordedOutcome | None, reason: str) -> Result:
    """A row that failed: as a response where the server refused it, else as an error, also where it took a reply of status
    200 for none."""
    if recorded is None:
        return Result(custom_id=name, error={"code": reason, "message": row.error})
    status, message = recorded.http_status, recorded.message
    if status is None or 200 <= status < 300:
        return Result(custom_id=name, error={"code": recorded.code or reason, "message": message})
    error = {"message": message, "type": reason, "param": None, "code": recorded.code}
    return Result(
        custom_id=name, status=status, request_id=recorded.request_id, body={"error": error}
    )
