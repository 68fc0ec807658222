"""Requests -> files of the Batch API: one endpoint and one model each, written as the requests come, within its bounds.

The bounds are those of the API (its reference of `batches.create`): requests and bytes in a file, and inputs for embeddings.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchgen.batch_format import request_line
from batchgen.disk import translating_errors
from batchgen.dispatch.batches.records import Batch, Member
from batchgen.kinds import AT
from batchgen.replies import how_many
from batchgen.requests import USUAL_PICTURE, Request, read_upload

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
MOST_INPUTS = 50_000

# Bytes of a text that make a token, for the queue of a model.
BYTES_PER_TOKEN = 4

_EMBEDDINGS = "/embeddings"


def body_of(request: Request) -> Mapping[str, Any]:
    """A request's body as a line of a batch has it: what would be uploaded beside it stands in it, as data URLs. Raises
    RequestError for a picture that is not what it was."""
    if not request.uploads:
        return request.body
    body, several = dict(request.body), AT[request.endpoint].in_json
    for upload in request.uploads:
        data = base64.b64encode(read_upload(upload)).decode()
        shown = {"image_url": f"data:{upload.media_type};base64,{data}"}
        name = upload.field.removesuffix("[]")
        if name in several:
            body.setdefault(several[name], []).append(shown)
        else:
            body[name] = shown
    return body


def tokens_of(request: Request) -> int:
    """About as many tokens as a request sends."""
    return max(1, request.text_bytes // BYTES_PER_TOKEN + request.shown * USUAL_PICTURE)


def inputs_of(request: Request) -> int:
    """How many inputs of the API's bound a request has."""
    return how_many(request.body.get("input")) if request.endpoint == _EMBEDDINGS else 0


class BatchInputFile:
    """The file of one batch at `path`, and what is in it. Raises OutputError when the disk is full."""

    def __init__(self, batch: Batch, path: Path) -> None:
        self.batch, self.path = batch, path
        self.requests = self.size = self.tokens = self._inputs = 0
        # What is written and not yet enlisted.
        self.held: list[Member] = []
        with translating_errors(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._file = os.fdopen(os.open(path, flags, 0o666), "wb")

    def line(self, request: Request, body: Mapping[str, Any]) -> bytes:
        """A request, whose body in a batch is `body`, as the file's next line: its number, from 1, is its custom_id."""
        return request_line(str(self.requests + 1), request.endpoint, body)

    def never(self, request: Request, line: bytes) -> str | None:
        """Why no file takes a request, or None."""
        if len(line) > MOST_BYTES:
            return f"it is {len(line):,} bytes, and a batch has {MOST_BYTES:,} at the most"
        if inputs_of(request) > MOST_INPUTS:
            return (
                f"it has {inputs_of(request):,} inputs, and a batch has {MOST_INPUTS:,} at the most"
            )
        return None

    def takes(self, request: Request, line: bytes) -> bool:
        """Whether a request has a place in the file."""
        return (
            self.requests < MOST_REQUESTS
            and self.size + len(line) <= MOST_BYTES
            and self._inputs + inputs_of(request) <= MOST_INPUTS
        )

    def add(self, request: Request, line: bytes, digest: bytes, cost: int | None) -> None:
        """Write the line of a request that the file takes; the cells it is made of have `digest`."""
        with translating_errors(self.path):
            self._file.write(line)
        self.requests += 1
        self.size += len(line)
        self.tokens += tokens_of(request)
        self._inputs += inputs_of(request)
        self.held.append(
            Member(line=self.requests, request=request, cost=cost, columns_digest=digest)
        )

    def finish(self) -> None:
        """Have the whole file on disk."""
        with translating_errors(self.path):
            self._file.close()

    def discard(self) -> None:
        """Remove the file."""
        with translating_errors(self.path):
            self._file.close()
            self.path.unlink(missing_ok=True)
