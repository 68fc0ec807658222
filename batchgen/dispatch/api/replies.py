"""Read a reply with status 200: an answer, or why it is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Protocol

from batchgen.dispatch import LARGE_REPLY, Failure, Received, ReplyReader
from batchgen.dispatch.api.errors import QUOTED, classify, error_in
from batchgen.dispatch.api.http import Reply
from batchgen.replies import UnreadableReplyError
from batchgen.requests import Request


class Transport(Protocol):
    """What sends one request: dispatch.transport.Client."""

    async def post(self, request: Request) -> Reply | Failure:
        """Send one request, once. Raises only CancelledError."""

    def redact_failure(self, failure: Failure) -> Failure:
        """The failure with its message redacted and cut."""


async def read_reply(
    ledger: ReplyReader, client: Transport, request: Request, reply: Reply
) -> Received | Failure:
    """What a reply of status 200 says, its pictures stored: an answer, or why it is none."""
    try:
        large = len(reply.body) > LARGE_REPLY
        body = await asyncio.to_thread(json.loads, reply.body) if large else json.loads(reply.body)
    except (ValueError, RecursionError):
        return _unreadable(client, reply, "the reply is not JSON")
    return await interpret(ledger, client, request, body, reply)


async def interpret(
    ledger: ReplyReader, client: Transport, request: Request, body: Any, reply: Reply
) -> Received | Failure:
    """What a reply of status 200 says, its pictures stored; `body` is its JSON: an answer, or why it is none."""
    try:
        if error_in(body) is not None:
            return client.redact_failure(classify(200, reply.body, reply.headers))
        if not isinstance(body, Mapping):
            raise UnreadableReplyError(f"the reply is {type(body).__name__}, not an object")
        return await ledger.receive(request, body, reply.body)
    except UnreadableReplyError as error:
        return _unreadable(client, reply, str(error), final=error.final)
    except (ValueError, RecursionError):
        return _unreadable(client, reply, "the reply is not JSON")


def _unreadable(client: Transport, reply: Reply, told: str, *, final: bool = False) -> Failure:
    return client.redact_failure(
        Failure(
            meaning="row" if final else "transient",
            reason="invalid_response",
            message=f"{told}: {reply.body[:QUOTED].decode('utf-8', 'replace')}",
            status=200,
            request_id=reply.headers.get("x-request-id"),
            may_be_billed=True,
        )
    )


def attempt_fields(result: Received | Failure, reply: Reply | Failure) -> dict[str, Any]:
    """How a call ended, as its attempt tells it."""
    if isinstance(result, Failure):
        return {
            "status": result.status,
            "code": result.code,
            "reason": result.reason,
            "request_id": result.request_id,
        }
    assert isinstance(reply, Reply)
    usage = result.answer.usage
    return {
        "status": 200,
        "request_id": reply.headers.get("x-request-id"),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
