"""The output and error file of a batch, written as the lines of its input file are answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from batchgen.simulator.batches.batch import Batch, Reply
from batchgen.simulator.batches.tasks import task_at

# What the error file says of the lines that were not answered, for each status that leaves some.
UNFINISHED = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": (
        "batch_cancelled",
        "This request was not executed because the batch was cancelled.",
    ),
}


@contextmanager
def opened(batch: Batch) -> Iterator[tuple[BinaryIO, BinaryIO, BinaryIO]]:
    """The input file to read; the output and error file to append to."""
    with ExitStack() as files:
        source = files.enter_context(batch.path("input").open("rb"))
        output = files.enter_context(batch.path("output").open("ab"))
        errors = files.enter_context(batch.path("error").open("ab"))
        yield source, output, errors


def result_line(batch: Batch, number: int, custom_id: str, reply: Reply) -> bytes:
    """A line of an output or error file; `number` is the line of the input file, from 0."""
    name = f"{batch.id.removeprefix('batch_')}_{number + 1}"
    answered = reply.status > 0
    response = (
        {"status_code": reply.status, "request_id": f"req_{name}", "body": reply.body}
        if answered
        else None
    )
    line = {
        "id": f"batch_req_{name}",
        "custom_id": custom_id,
        "response": response,
        "error": None if answered else reply.body,
    }
    return json.dumps(line).encode() + b"\n"


def write_unfinished(batch: Batch, status: str, source: BinaryIO, errors: BinaryIO) -> None:
    """Write the lines without an answer to the error file of a batch that ends as `status`."""
    code, message = UNFINISHED[status]
    reply = Reply(status=0, body={"code": code, "message": message})
    for number in batch.turns[batch.done :]:
        custom_id = task_at(source, batch.tasks.starts[number])["custom_id"]
        errors.write(result_line(batch, number, custom_id, reply))
