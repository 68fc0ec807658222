"""The input file of a batch: its lines checked as the API does, and read again one by one."""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.simulator.calls import Body, parse
from batchgen.simulator.texts import prompt_tokens

MOST_TASKS = 50_000  # lines of a file, and inputs of all its lines for embeddings
MOST_ERRORS = 100  # that are listed

# Lines after which other requests get their turn: a large file must not delay them.
BREATH = 64

_EMBEDDINGS = "/v1/embeddings"
_FIELDS = {"custom_id": str, "method": str, "url": str, "body": dict}


@dataclass(slots=True, kw_only=True)
class Tasks:
    """An input file: where its lines begin, and its errors.

    starts: offsets in bytes; errors: official batch errors, MOST_ERRORS at most, empty when the
        file is sound
    model: of all lines; tokens: that they send; inputs: texts to embed
    """

    starts: array[int] = field(default_factory=lambda: array("Q"))
    errors: list[Body] = field(default_factory=list)
    model: str | None = None
    tokens: int = 0
    inputs: int = 0
    seen: set[bytes] = field(default_factory=set)

    def add_error(
        self, code: str, message: str, *, line: int | None = None, param: str | None = None
    ) -> None:
        """Note an error of the file, or of its `line` (from 1)."""
        if len(self.errors) < MOST_ERRORS:
            self.errors.append({"code": code, "line": line, "message": message, "param": param})


def task_at(source: BinaryIO, start: int) -> Body:
    """The checked line that begins at `start`."""
    source.seek(start)
    task: Body = parse(source.readline())
    return task


async def read_tasks(path: Path, endpoint: str) -> Tasks:
    """Check the file at `path`, line by line, for a batch of `endpoint`."""
    tasks = Tasks()
    with _opened(path) as source:
        for number, (start, raw) in enumerate(_lines(source), start=1):
            if number > MOST_TASKS:
                tasks.add_error("too_many_tasks", f"The batch has more than {MOST_TASKS} requests.")
                break
            tasks.starts.append(start)
            _check(tasks, number, raw, endpoint)
            if number % BREATH == 0:
                await asyncio.sleep(0)
    if not tasks.starts:
        tasks.add_error("empty_file", "The input file has no requests.")
    if tasks.inputs > MOST_TASKS:
        tasks.add_error("too_many_tasks", f"The batch has more than {MOST_TASKS} embedding inputs.")
    # Only the check needs these, and a batch may stay in memory for long.
    tasks.seen.clear()
    return tasks


def _lines(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    start = 0
    for raw in source:
        yield start, raw
        start += len(raw)


def _check(tasks: Tasks, number: int, raw: bytes, endpoint: str) -> None:
    """Add the errors of one line."""
    try:
        task = parse(raw)
    except ValueError:
        task = None
    if not isinstance(task, dict):
        tasks.add_error(
            "invalid_json_line", "This line is not parseable as valid JSON.", line=number
        )
        return
    for name, kind in _FIELDS.items():
        if task.get(name) in (None, ""):
            message = f"Missing required parameter: '{name}'."
            tasks.add_error("missing_required_parameter", message, line=number, param=name)
            return
        if not isinstance(task[name], kind):
            expected = "an object" if kind is dict else "a string"
            message = f"Invalid type for '{name}': {expected} is expected."
            tasks.add_error("invalid_type", message, line=number, param=name)
            return
    _check_envelope(tasks, number, task, endpoint)
    _check_body(tasks, number, task["body"], endpoint)


def _check_envelope(tasks: Tasks, number: int, task: Body, endpoint: str) -> None:
    custom_id = hashlib.blake2b(
        task["custom_id"].encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()
    if custom_id in tasks.seen:
        message = (
            f"The custom_id '{task['custom_id'][:64]}' is used by another request of this file."
        )
        tasks.add_error("duplicate_custom_id", message, line=number, param="custom_id")
    tasks.seen.add(custom_id)
    if task["method"] != "POST":
        tasks.add_error(
            "invalid_method",
            "Only POST requests are taken in a batch.",
            line=number,
            param="method",
        )
    if task["url"] != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        tasks.add_error("url_mismatch", message, line=number, param="url")


def _check_body(tasks: Tasks, number: int, body: Body, endpoint: str) -> None:
    model: Any = body.get("model")
    if isinstance(model, str):
        tasks.model = tasks.model or model
        if model != tasks.model:
            message = "The model of this request does not match the rest of the batch."
            tasks.add_error("model_mismatch", message, line=number, param="body.model")
    tasks.tokens += prompt_tokens(body)
    if endpoint == _EMBEDDINGS:
        texts = body.get("input")
        tasks.inputs += (
            len(texts)
            if isinstance(texts, list) and not isinstance(next(iter(texts), None), int)
            else 1
        )


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")
