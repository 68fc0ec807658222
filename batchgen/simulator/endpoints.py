"""The endpoints: how a call to each is read, checked, charged and answered."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from batchgen.simulator import answers, checks
from batchgen.simulator.batches.resources import methods
from batchgen.simulator.calls import (
    Body,
    Call,
    Pictures,
    call_of,
    open_pictures,
    read_form,
    read_json,
    read_references,
)
from batchgen.simulator.limits import Cost
from batchgen.simulator.refusals import INVALID, RefusalError, no_key, wrong_key
from batchgen.simulator.texts import UNBOUNDED_ANSWER, most_tokens, prompt_tokens

MODELS = "/v1/models"

_TEXT = "text"
_PICTURE = "picture"
_EDIT = "edit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint.

    kind: text, picture or edit, which decide how it is charged and answered; empty for others
    check: raises RefusalError for a body that the API refuses
    respond: makes the answer
    """

    kind: str
    check: Callable[[Body], None]
    respond: Callable[[Call], Body]

    async def read(self, request: web.Request) -> Call:
        """Read a call: JSON, for an edit of pictures a form or JSON; raises RefusalError."""
        if self.kind == _EDIT and request.content_type != "application/json":
            return await read_form(request.path, request)
        call = read_json(request.path, await request.read())
        return read_references(request.path, call.body) if self.kind == _EDIT else call

    def from_line(self, path: str, body: Body) -> Call:
        """The call that a line of a batch makes; raises RefusalError."""
        return read_references(path, body) if self.kind == _EDIT else call_of(path, body)

    async def checked(self, call: Call) -> Pictures | None:
        """Check a call, and return the pictures of an edit; raises RefusalError."""
        self.check(call.body)
        return await open_pictures(call) if self.kind == _EDIT else None

    async def answer(self, call: Call, uploads: Pictures | None) -> Body:
        """The true answer to a checked call; pictures are drawn in a thread."""
        if self.kind in (_PICTURE, _EDIT):
            return await asyncio.to_thread(answers.images, call, uploads)
        return self.respond(call)

    def cost(self, call: Call | None) -> Cost:
        """What the limits charge; a body that cannot be read costs one request and no tokens."""
        if call is None:
            return Cost(model="unknown", tokens=0)
        n: Any = call.body.get("n")
        choices = n if isinstance(n, int) and 0 < n <= checks.MOST_CHOICES else 1
        tokens = prompt_tokens(call.body)
        if self.kind == _TEXT:
            bound = most_tokens(call.body)
            tokens += (UNBOUNDED_ANSWER if bound is None else bound) * choices
        images = choices if self.kind in (_PICTURE, _EDIT) else 0
        return Cost(model=str(call.body.get("model")), tokens=tokens, images=images)


ENDPOINTS = {
    "/v1/chat/completions": Endpoint(kind=_TEXT, check=checks.chat, respond=answers.chat),
    "/v1/responses": Endpoint(kind=_TEXT, check=checks.responses, respond=answers.responses),
    "/v1/completions": Endpoint(kind=_TEXT, check=checks.completions, respond=answers.completions),
    "/v1/embeddings": Endpoint(kind="", check=checks.embeddings, respond=answers.embeddings),
    "/v1/moderations": Endpoint(kind="", check=checks.moderations, respond=answers.moderations),
    "/v1/images/generations": Endpoint(kind=_PICTURE, check=checks.images, respond=answers.images),
    "/v1/images/edits": Endpoint(kind=_EDIT, check=checks.images, respond=answers.images),
}


def route(request: web.Request) -> Endpoint | None:
    """The endpoint of a request; None for models, files and batches.

    Raises RefusalError for any other path or method.
    """
    path, method = request.path, request.method
    endpoint = ENDPOINTS.get(path)
    allowed = ("POST",) if endpoint is not None else ("GET",) if path == MODELS else methods(path)
    if not allowed:
        raise RefusalError(404, f"Invalid URL ({method} {path})")
    if method not in allowed:
        raise RefusalError(
            405,
            f"Not allowed to {method} on {path} (HINT: use {' or '.join(allowed)})",
            kind=INVALID,
        )
    return endpoint


def checked_key(request: web.Request, expected: str | None) -> str:
    """The bearer key of a request, '' without one; raises RefusalError if another is expected."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    key = key.strip() if scheme.lower() == "bearer" else ""
    if expected is None or secrets.compare_digest(
        key.encode("utf-8", "replace"), expected.encode()
    ):
        return key
    raise wrong_key(key) if key else no_key()
