"""A request as plain data, and the text that its fingerprint is computed from."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from batchgen.requests.bounds import MAX_PICTURE_TOKENS, input_bound
from batchgen.requests.uploads import Upload

# The version of the fingerprint's recipe. A new recipe gets a new number; the journal still looks
# up older ones.
SCHEME = 1

_canonical = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode

Axes = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call to the API, ready to send.

    id: the row's id as people see it.
    outcome_id: the identity of the row's outcome in the journal.
    axes: the row's combination of the matrix.
    turn: the turn's number within its conversation; 0 outside one.
    follows: of a later turn: the outcome id of the turn before, and the run that recorded the reply
        which is sent with it; else None.
    fingerprint: SHA-256 identity; equal fingerprints are the same request, which is never paid for
        twice.
    endpoint: the API's path, such as /chat/completions.
    body: exactly what the API gets; for a later turn, with the conversation so far.
    uploads: the files that are sent with it.
    input_bound: the highest count of input tokens (UTF-8 bytes, 16 a message, 50,000 a picture).
    answer_bound: the highest count of output tokens, of all answers together; None without a cap.
    pictures: how many pictures the request asks for.
    input_pictures: how many pictures the body shows to the model.
    unbounded_by: a field that makes the server read more than the body, without any bound; None if
        there is none.
    """

    id: str = ""
    outcome_id: str = ""
    axes: Axes = field(default_factory=dict)
    turn: int = 0
    follows: tuple[str, int] | None = None
    fingerprint: bytes
    endpoint: str
    body: Mapping[str, Any]
    uploads: tuple[Upload, ...] = ()
    input_bound: int
    answer_bound: int | None
    pictures: int
    input_pictures: int = 0
    unbounded_by: str | None = None

    @property
    def text_bytes(self) -> int:
        """The size of the input without its pictures: bytes, and the overhead of its messages."""
        return self.input_bound - MAX_PICTURE_TOKENS * self.input_pictures


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN. Equal values always give the same text."""
    return _canonical(value)


def combinations(matrix: Mapping[str, Sequence[Any]]) -> list[Axes]:
    """Every combination of the matrix, the last axis changing fastest; one empty combination
    without a matrix.
    """
    return [
        dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())
    ]


def with_history(request: Request, history: Sequence[Mapping[str, Any]]) -> Request:
    """A later turn's request: the conversation so far, then the turn's own messages without its
    system messages.
    """
    messages = [*history, *without_system_messages(request.body["messages"])]
    return _with_body(request, {**request.body, "messages": messages})


def with_correction(request: Request, answer: str, why: str) -> Request:
    """The request of turns, with an answer that does not fit as the assistant's turn, and where and
    why as the user's.
    """
    text = f"This answer does not fit: {why}. Give the answer again, as the corrected JSON alone."
    turns = [{"role": "assistant", "content": answer}, {"role": "user", "content": text}]
    name = "messages" if "messages" in request.body else "input"
    before = request.body[name]
    before = [{"role": "user", "content": before}] if isinstance(before, str) else before
    return _with_body(request, {**request.body, name: [*before, *turns]})


def _with_body(request: Request, body: Mapping[str, Any]) -> Request:
    """The request with a body that only its history makes longer: its fingerprint stays."""
    bound, pictures = input_bound(body, canonical(body))
    return replace(request, body=body, input_bound=bound, input_pictures=pictures)


def without_system_messages(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A turn's messages without the leading system and developer messages, which the first turn
    sends once for all.
    """

    def is_system(message: Mapping[str, Any]) -> bool:
        return message.get("role") in ("system", "developer")

    return list(itertools.dropwhile(is_system, messages))
