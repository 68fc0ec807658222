"""Reads a reply with a success status: as an answer, or as the failure it stands for.

The path of a reply's bytes: `Client.post`, then `read_reply`, then the recorder's `receive`, which
calls the reader of the request's kind (`batchgen.replies`) and stores pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from batchgen.dispatch import Failure, Received, ReplyReader
from batchgen.dispatch.api.error_body import error_in
from batchgen.dispatch.api.errors import QUOTED, classify
from batchgen.dispatch.api.http import Reply
from batchgen.errors import BatchgenError
from batchgen.replies import UnreadableReplyError, Usage, read_usage, word_of
from batchgen.requests import Request


class Transport(Protocol):
    """Sends one request: a dispatch.api.client.Client."""

    async def post(self, request: Request) -> Reply | Failure:
        """Send one request, once; a reply comes parsed. Raises only CancelledError."""

    def redact_failure(self, failure: Failure) -> Failure:
        """The failure with its texts redacted and cut."""

    def release(self) -> None:
        """Note that the reply to the current task's last request is no longer in memory."""


async def read_reply(
    reader: ReplyReader, transport: Transport, request: Request, reply: Reply
) -> Received | Failure:
    """Interpret a reply that the transport has parsed."""
    if not reply.parsed:
        return _unreadable(transport, reply, "the reply is not JSON")
    return await interpret(reader, transport, request, reply.parsed[0], reply)


async def interpret(
    reader: ReplyReader, transport: Transport, request: Request, body: Any, reply: Reply
) -> Received | Failure:
    """The answer in a reply with a success status, or the failure it stands for.

    reader: reads the answer and stores its pictures.
    transport: redacts the failure.
    request: what the reply answers.
    body: the reply's parsed JSON.
    reply: the reply as it was sent.

    Raises OutputError when a picture cannot be stored.
    """
    try:
        if error_in(body) is not None:
            failure = transport.redact_failure(classify(200, reply.body, reply.headers))
        elif not isinstance(body, Mapping):
            raise UnreadableReplyError(f"the reply is {type(body).__name__}, not an object")
        else:
            return await reader.receive(request, body, reply.body)
    except UnreadableReplyError as error:
        failure = _unreadable(transport, reply, str(error), final=error.final)
    except BatchgenError:
        raise
    except Exception as error:
        # Whatever a reply makes the readers raise is its row's failure. Raised, it would end the
        # run and lose the calls in flight, in every run anew.
        failure = _unreadable(
            transport, reply, f"the reply cannot be read ({type(error).__name__}: {error})"
        )
    # An answer that broke off was paid for as far as it came.
    usage = read_usage(body) if isinstance(body, Mapping) else Usage()
    return failure if usage == Usage() else replace(failure, usage=usage)


def _unreadable(
    transport: Transport, reply: Reply, problem: str, *, final: bool = False
) -> Failure:
    """The failure of a reply without an answer; `final` when a retry would bring the same."""
    return transport.redact_failure(
        Failure(
            meaning="row" if final else "transient",
            reason="invalid_response",
            message=f"{problem}: {reply.body[:QUOTED].decode('utf-8', 'replace')}",
            status=200,
            request_id=reply.headers.get("x-request-id"),
            may_be_billed=True,
        )
    )


def attempt_fields(result: Received | Failure, reply: Reply | Failure) -> dict[str, Any]:
    """The fields of an Attempt that follow from its result."""
    if isinstance(result, Failure):
        usage = result.usage or Usage()
        how = {
            "status": result.status,
            "code": result.code,
            "reason": result.reason,
            "request_id": result.request_id,
        }
    else:
        assert isinstance(reply, Reply)
        usage = result.answer.usage
        how = {
            "status": 200,
            "reason": result.answer.finish_reason if result.answer.misfit else None,
            "request_id": word_of(reply.headers.get("x-request-id")),
        }
    return {**how, "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
