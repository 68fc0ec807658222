"""A turn and its past: the request of a row, and the conversation that it is sent with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from batchgen.job import Job
from batchgen.journal import Journal, Row, outcome_of
from batchgen.journal.records import encodable
from batchgen.replies import audio_transcript, first_message, parse, sendable_content
from batchgen.requests import Renderer, Request, RequestError, without_system_messages


class Past(NamedTuple):
    """What a turn is sent with: its conversation so far.

    Attributes:
        messages: of the turns before, with their replies.
        fingerprint: of the turn before.
        follows: the outcome id of the turn before, and the run that recorded its reply.
    """

    messages: tuple[Mapping[str, Any], ...] = ()
    fingerprint: bytes = b""
    follows: tuple[str, int] | None = None


NO_PAST = Past()


def past_after(job: Job, renderer: Renderer, journal: Journal, past: Past, row: Row) -> Past:
    """The conversation after an answered turn: with the turn's own messages, and its reply.

    Only the first turn adds the system and developer messages that every turn begins with.

    job: whose row it is.
    renderer: makes its requests.
    journal: holds its answers.
    past: the conversation before the turn.
    row: the turn; it has succeeded.

    Raises RequestError if a picture that the turn was asked with is gone or has changed.
    """
    messages = render_unchanged(job, renderer, row, past.fingerprint).body["messages"]
    outcome = outcome_of(journal, row.outcome_id, row.fingerprint)
    assert outcome is not None  # a turn is sent only after the turns before it have succeeded
    own = without_system_messages(messages) if past.messages else messages
    reply = _reply_message(parse(outcome.response).value)
    return Past((*past.messages, *own, reply), row.fingerprint, (row.outcome_id, outcome.run))


def render_unchanged(job: Job, renderer: Renderer, row: Row, previous: bytes = b"") -> Request:
    """What `render_row` returns. Raises RequestError also if that is not what was staged."""
    request = render_row(job, renderer, row, previous)
    if request.fingerprint != row.fingerprint:
        raise RequestError(
            ("request",), "a file that it is made of has changed since the run began; run again"
        )
    return request


def render_row(job: Job, renderer: Renderer, row: Row, previous: bytes = b"") -> Request:
    """The request of a staged row, without the history of its conversation.

    `previous` is the fingerprint of the turn before. Raises RequestError.
    """
    column = job.conversation.turns if job.conversation else None
    return renderer.request(
        row.columns,
        row.axes,
        turn=_turn(row, column) if column else None,
        previous=previous,
        row_id=row.id,
        outcome_id=row.outcome_id,
        turn_number=row.turn,
    )


def _turn(row: Row, column: str) -> Any:
    """The row's turn, from its column of turns.

    Raises RequestError if the job has changed since.
    """
    turns = row.columns.get(column)
    if not isinstance(turns, list) or not 0 < row.turn <= len(turns):
        raise RequestError(
            ("conversation", "turns"),
            f"the row was read before {column!r} became its turns; run again",
        )
    return turns[row.turn - 1]


def _reply_message(response: Mapping[str, Any]) -> dict[str, Any]:
    """The assistant's message of a recorded response, as a later request sends it."""
    reply = first_message(response)
    sendable = {**reply, "content": sendable_content(reply.get("content"))}
    names = ("content", "tool_calls", "function_call")
    kept = {name: sendable[name] for name in names if sendable.get(name)}
    if not kept and reply.get("refusal"):
        # The API wants content in a message without calls; a refusal is one of its parts.
        kept["content"] = [{"type": "refusal", "refusal": reply["refusal"]}]
    elif not kept:
        # The server forgets recordings, so their transcript is sent. An empty reply is a text.
        kept["content"] = audio_transcript(reply)
    message = {"role": reply.get("role") or "assistant", **kept}
    # A lone surrogate can be received, but not be sent.
    return dict(json.loads(encodable(json.dumps(message, ensure_ascii=False))))
