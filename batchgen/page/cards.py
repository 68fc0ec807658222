"""One thread of a job -> a card: what the page shows of its requests and answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchgen.job import Job
from batchgen.journal import Journal, RecordedOutcome, Row, shown_outcome
from batchgen.journal.status import WORST_FIRST
from batchgen.pricing import dollars
from batchgen.recorder import render_row
from batchgen.replies import explained, parse
from batchgen.requests import Renderer, Request, RequestError, without_system_messages
from batchgen.tables import read_answer, reason_of

# Characters of one text. The tables have the whole.
MOST_TEXT = 4000

Card = dict[str, Any]
Turns = Sequence[tuple[Row, RecordedOutcome | None]]


class Cards:
    """Makes the cards of a job."""

    def __init__(self, job: Job, journal: Journal, renderer: Renderer) -> None:
        self._job, self._journal, self._renderer = job, journal, renderer

    def card(self, turns: Turns) -> Card:
        """The card of a thread: one request, or the turns of a conversation.

        Keys without a value are left out. Texts are whole: see `cut`.
        """
        first = turns[0][0]
        shown = [(row, shown_outcome(self._journal, row, recorded)) for row, recorded in turns]
        status = min((row.status for row, _ in turns), key=WORST_FIRST.index)
        card = {
            "id": first.id,
            "line": first.line,
            "axes": first.axes,
            "status": status,
            "thread": first.conversation if first.turn else None,
            "turns": [turn for row, outcome in shown for turn in self._turn(row, outcome)],
            **self._problem(turns),
            **_measures([outcome for _, outcome in shown if outcome is not None]),
        }
        return {name: value for name, value in card.items() if value not in (None, {}, [])}

    def _turn(self, row: Row, outcome: RecordedOutcome | None) -> Iterator[Card]:
        """What was asked in a turn, and what was answered."""
        yield from asked_cards(self._job, self._renderer, row)
        yield from reply_cards(self._renderer, row, outcome)

    def _problem(self, turns: Turns) -> Card:
        """Why a thread has not succeeded: the reason and the message of its first such turn."""
        for row, recorded in turns:
            if row.error is not None:
                return {"reason": "input", "message": row.error}
            if recorded is not None and row.status == "failed":
                message = recorded.message or ""
                return {"reason": reason_of(recorded), "message": message}
            if recorded is not None and row.status == "incomplete":
                reason = recorded.finish_reason
                return {"reason": reason, "message": explained(reason)}
        return {}


def asked_cards(job: Job, renderer: Renderer, row: Row) -> Iterator[Card]:
    """What is asked in a row's request, without the turns before it."""
    try:
        request = render_row(job, renderer, row)
    except RequestError as error:
        yield {"role": "problem", "text": str(error)}
    else:
        yield from _asked(request, later=row.turn > 1)


def history_cards(messages: Sequence[Mapping[str, Any]]) -> Iterator[Card]:
    """What was asked and answered in the turns before a request."""
    yield from _messages(list(messages), "user")


def reply_cards(renderer: Renderer, row: Row, outcome: RecordedOutcome | None) -> Iterator[Card]:
    """The answers of a row in an outcome; none in a failure."""
    if outcome is None or outcome.status == "failed":
        return
    kind, answer = read_answer(renderer, row.columns, parse(outcome.response).value)
    for choice in answer.choices if answer else ():
        draws = kind is not None and kind.makes_images
        yield {
            "role": "assistant",
            **({"picture": choice.text} if draws else {"text": choice.text}),
            **({"old": True} if row.status == "outdated" else {}),
        }


def _measures(outcomes: list[RecordedOutcome]) -> Card:
    """What the answers of a thread took, all turns together."""
    if not outcomes:
        return {}
    costs = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    last = outcomes[-1]
    return {
        "model": last.model,
        "cost": dollars(sum(costs)) if costs else None,
        "input_tokens": sum(outcome.input_tokens or 0 for outcome in outcomes),
        "output_tokens": sum(outcome.output_tokens or 0 for outcome in outcomes),
        "seconds": round(sum(outcome.elapsed for outcome in outcomes), 3),
        "attempts": sum(outcome.attempts for outcome in outcomes),
        "at": round(last.answered_at),
        "finish_reason": last.finish_reason,
        "run": last.run,
    }


def _asked(request: Request, *, later: bool) -> Iterator[Card]:
    """The messages of a request as they stand in its body, in the form of any endpoint.

    A later turn is sent without its leading system messages.
    """
    body = request.body
    if later:
        body = {**body, "messages": without_system_messages(body["messages"])}
    for name in ("instructions", "messages", "input", "prompt"):
        value = body.get(name)
        role = "system" if name == "instructions" else "user"
        if value is not None:
            yield from _messages(value, role)
    for upload in request.uploads:
        yield {
            "role": "user",
            "file": upload.name,
            "field": upload.field,
            "source": str(upload.path),
        }


def _messages(value: Any, role: str) -> Iterator[Card]:
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        for each in value:
            yield _message(each, role)
    else:
        yield {"role": role, "text": value if isinstance(value, str) else _json(value)}


def _message(message: Mapping[str, Any], role: str) -> Card:
    content = message.get("content", message)
    parts = content if isinstance(content, list) else [content]
    return {
        "role": str(message.get("role", role)),
        "text": "\n".join(map(_part, parts)),
    }


def _part(part: Any) -> str:
    """A part of a message as text; a picture or a sound is only named."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        text = part.get("text")
        if isinstance(text, str):
            return text
        if isinstance(kind := part.get("type"), str):
            return f"[{kind}]"
    return _json(part)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def cut(card: Card) -> Card:
    """The card with texts of at most `MOST_TEXT` characters."""
    turns = [
        {**turn, "text": _cut(turn["text"])} if "text" in turn else turn
        for turn in card.get("turns", ())
    ]
    message = {"message": _cut(card["message"])} if "message" in card else {}
    return {**card, **message, **({"turns": turns} if turns else {})}


def has_words(card: Card, words: Sequence[str]) -> bool:
    """Whether all of these words, in lower case, are in what a card shows."""
    texts = [card.get(name) for name in ("id", "thread", "message", "reason")]
    texts += [turn.get("text") or turn.get("file") for turn in card.get("turns", ())]
    whole = "\n".join(text for text in texts if text).lower()
    return all(word in whole for word in words)


def _cut(text: str) -> str:
    more = len(text) - MOST_TEXT
    return text if more <= 0 else f"{text[:MOST_TEXT]}… ({more:,} more characters)"
