"""Requests -> the input file of a batch: one endpoint and one model, within the API's bounds.

The bounds are in the API's reference of `batches.create`: requests and bytes in a file, and inputs
for embeddings.
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
from batchgen.kinds import KIND_BY_ENDPOINT
from batchgen.replies import count_inputs
from batchgen.requests import TYPICAL_PICTURE_TOKENS, Request, read_upload

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
MOST_INPUTS = 50_000

# Bytes of text for each token, to estimate what a request takes of its model's queue.
BYTES_PER_TOKEN = 4

_EMBEDDINGS = "/embeddings"


def body_of(request: Request) -> Mapping[str, Any]:
    """The body of a request in a batch: files that an online call uploads are data URLs in it.

    Raises RequestError for a picture that has changed since the request was made.
    """
    if not request.uploads:
        return request.body
    body, lists = dict(request.body), KIND_BY_ENDPOINT[request.endpoint].json_fields
    for upload in request.uploads:
        data = base64.b64encode(read_upload(upload)).decode()
        picture = {"image_url": f"data:{upload.media_type};base64,{data}"}
        name = upload.field.removesuffix("[]")
        if name in lists:
            body.setdefault(lists[name], []).append(picture)
        else:
            body[name] = picture
    return body


def tokens_of(request: Request) -> int:
    """About how many input tokens a request sends; 1 or more."""
    return max(
        1, request.text_bytes // BYTES_PER_TOKEN + request.input_pictures * TYPICAL_PICTURE_TOKENS
    )


def inputs_of(request: Request) -> int:
    """How many inputs of the API's bound on embeddings a request has."""
    return count_inputs(request.body.get("input")) if request.endpoint == _EMBEDDINGS else 0


class BatchInputFile:
    """The input file of one batch at `path`.

    Every method that writes raises OutputError, as on a full disk.

    requests, size, tokens: what is in it, in requests, bytes and input tokens
    unrecorded: the members that are written and not yet on record
    """

    def __init__(self, batch: Batch, path: Path) -> None:
        self.batch, self.path = batch, path
        self.requests = self.size = self.tokens = self._inputs = 0
        self.unrecorded: list[Member] = []
        with translating_errors(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._file = os.fdopen(os.open(path, flags, 0o666), "wb")

    def line(self, request: Request, body: Mapping[str, Any]) -> bytes:
        """The next line of the file, for a request with this body.

        Its number, from 1, is the custom_id.
        """
        return request_line(str(self.requests + 1), request.endpoint, body)

    def never_fits(self, request: Request, line: bytes) -> str | None:
        """Why no input file can take a request, or None."""
        if len(line) > MOST_BYTES:
            return f"it is {len(line):,} bytes, and a batch takes at most {MOST_BYTES:,}"
        if inputs_of(request) > MOST_INPUTS:
            return (
                f"it has {inputs_of(request):,} inputs, and a batch takes at most {MOST_INPUTS:,}"
            )
        return None

    def has_room(self, request: Request, line: bytes) -> bool:
        """Whether this file can still take a request."""
        return (
            self.requests < MOST_REQUESTS
            and self.size + len(line) <= MOST_BYTES
            and self._inputs + inputs_of(request) <= MOST_INPUTS
        )

    def add(self, request: Request, line: bytes, digest: bytes, cost: int | None) -> None:
        """Write a request.

        request: a request that the file has room for
        line: its line
        digest: of the cells that it was made of
        cost: the most that it may cost, in nano-dollars; None without a price
        """
        with translating_errors(self.path):
            self._file.write(line)
        self.requests += 1
        self.size += len(line)
        self.tokens += tokens_of(request)
        self._inputs += inputs_of(request)
        self.unrecorded.append(
            Member(line=self.requests, request=request, cost=cost, columns_digest=digest)
        )

    def finish(self) -> None:
        """Write what is buffered, so that the file can be uploaded."""
        with translating_errors(self.path):
            self._file.close()

    def discard(self) -> None:
        """Remove the file."""
        with translating_errors(self.path):
            self._file.close()
            self.path.unlink(missing_ok=True)
