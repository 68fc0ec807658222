"""One row as text for people: what was asked, what came, and what it took."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from batchgen.cli.cells import cut, terminal_width, wrap
from batchgen.cli.preview import without_bytes
from batchgen.cli.terminal import styled
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.inspection import InspectedRow
    from batchgen.journal import Row
    from batchgen.page import Card

# Characters that are shown of a text that was asked, and of one in the turns before.
MOST_ASKED = 1500
MOST_BEFORE = 300

_NAMES = 10
COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "incomplete": "yellow",
    "blocked": "yellow",
    "outdated": "yellow",
}
# The fields of a body that hold what is asked.
_ASKED = ("instructions", "messages", "input", "prompt")


def row_lines(rows: Sequence[InspectedRow]) -> Iterator[str]:
    """The lines about a row that has one combination of axes: its one request, or its turns."""
    for number, each in enumerate(rows):
        if number:
            yield ""
        yield _title(each.row)
        yield from _named("line", f"{each.row.line} of the prompts")
        yield from _request(each)
        # A turn is sent with those before it, which are above it here.
        if each.row.turn > 1 and not number:
            yield from _before(each.history)
        for card in each.asked:
            yield from _named(str(card.get("field", card["role"])), _shortened(card, MOST_ASKED))
        yield from _answers(each)
        yield from _took(each.fields["attempts"])


def combination_lines(rows: Sequence[InspectedRow], command: str) -> Iterator[str]:
    """The combinations of a row that has several, and the command that shows one of them."""
    from batchgen.inspection import axes_text

    groups = [list(group) for _, group in groupby(rows, lambda each: each.row.axes)]
    last = groups[-1][0].row
    yield f"{escape_controls(last.id)} has {len(groups):,} combinations:"
    for group in groups:
        row = group[0].row
        yield f"  {styled(escape_controls(axes_text(row.axes)), bold=True)}  {_status(row.status)}"
        texts = [text for each in group for text in map(_text, each.replies)]
        if texts:
            yield f"    {escape_controls(cut(texts[-1], terminal_width() - 4))}"
    yield "to see one:"
    yield f"  {escape_controls(command)}"


def _title(row: Row) -> str:
    from batchgen.inspection import axes_text

    turn = f"  turn {row.turn}" if row.turn else ""
    axes = f"  {axes_text(row.axes)}" if row.axes else ""
    about = escape_controls(turn + axes)
    return f"{styled(escape_controls(row.id), bold=True)}{about}  {_status(row.status)}"


def _status(status: str) -> str:
    return styled(status, colour=COLOURS.get(status))


def _named(name: str, text: str) -> Iterator[str]:
    """A text behind its name, wrapped to the terminal."""
    head = f"  {cut(escape_controls(name), _NAMES - 1):{_NAMES}}"
    for line in wrap(escape_controls(without_bytes(text)), terminal_width() - len(head)):
        yield (head + line).rstrip()
        head = " " * len(head)


def _before(history: Sequence[Card] | None) -> Iterator[str]:
    if history is None:
        why = "not known: a turn before has no answer, or another one since, or its files changed"
        yield from _named("before", why)
    for message in history or ():
        role = "answer" if message["role"] == "assistant" else message["role"]
        yield from _named(f"({cut(role, _NAMES - 3)})", _shortened(message, MOST_BEFORE))


def _request(each: InspectedRow) -> Iterator[str]:
    from batchgen.report import describe_reason

    request = each.fields["request"] or {}
    if each.row.error is not None:
        yield from _named("why", f"{describe_reason('input')} (input): {each.row.error}")
        return
    if "endpoint" in request:
        settings = [
            f"{name} {cut(_setting(value), 60)}"
            for name, value in request["body"].items()
            if name not in _ASKED
        ]
        yield from _named("request", ", ".join([request["endpoint"], *settings]))


def _setting(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return str(without_bytes(text))


def _answers(each: InspectedRow) -> Iterator[str]:
    from batchgen.replies import explained
    from batchgen.report import describe_reason

    outcome = each.fields["outcome"] or {}
    for card in each.replies:
        yield from _named("old answer" if card.get("old") else "answer", _readable(_text(card)))
    if outcome.get("reason"):
        why = f"{describe_reason(outcome['reason'])} ({outcome['reason']})"
        yield from _named("why", ": ".join(filter(None, [why, outcome["message"]])))
    elif each.row.status == "incomplete":
        reason = outcome["finish_reason"]
        yield from _named("why", f"{describe_reason(reason)} ({explained(reason)})")
    elif outcome.get("message"):
        yield from _named("note", outcome["message"])
    if each.shown is not None and each.shown.model:
        yield from _named("model", each.shown.model)
    if batch := each.fields["batch"]:
        yield from _named("batch", f"{batch['id'] or 'not sent yet'}: {batch['status']}")


def _took(attempts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every attempt, and what all of them took."""
    from batchgen.report import in_dollars, pluralize

    for number, attempt in enumerate(attempts, start=1):
        yield from _named(f"attempt {number}", _attempt(attempt))
    if not attempts:
        yield from _named("took", "no call made")
        return
    costs = [attempt["cost"] for attempt in attempts]
    known = [cost for cost in costs if cost is not None]
    tokens = sum((each["input_tokens"] or 0) + (each["output_tokens"] or 0) for each in attempts)
    unknown = len(costs) - len(known)
    cost = in_dollars(sum(known)) if known else "cost unknown"
    more = f" and {pluralize(unknown, 'attempt')} of unknown cost" if known and unknown else ""
    yield from _named(
        "took", f"{pluralize(len(attempts), 'attempt')}, {tokens:,} tokens, {cost}{more}"
    )


def _attempt(attempt: Mapping[str, Any]) -> str:
    from batchgen.report import describe_reason, in_dollars

    reason, code = attempt["reason"], attempt["code"]
    at = f"{datetime.fromtimestamp(attempt['started_at'], UTC):%Y-%m-%d %H:%M:%S} UTC"
    words = f"{describe_reason(reason)} ({code or reason})" if reason else "answered"
    where = f" in batch {attempt['batch']}" if attempt["batch"] is not None else ""
    status = attempt["http_status"]
    tokens = f"{attempt['input_tokens'] or 0:,} + {attempt['output_tokens'] or 0:,} tokens"
    parts = [
        f"run {attempt['run']}",
        f"{at}: {words}{where}",
        f"HTTP {status}" if reason and status else "",
        f"{attempt['elapsed']:.1f} s" if attempt["elapsed"] is not None else "",
        f"waited {attempt['wait']:.1f} s" if attempt["wait"] >= 0.1 else "",
        tokens if attempt["input_tokens"] is not None else "",
        in_dollars(attempt["cost"]) if attempt["cost"] is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _text(card: Card) -> str:
    return str(card.get("text") or card.get("picture") or card.get("file") or "")


def _shortened(card: Card, most: int) -> str:
    text = without_bytes(_text(card))
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]}… ({more:,} more characters; --json has all)"


def _readable(text: str) -> str:
    """An answer that is a JSON object or list is indented; numbers alone stay on their lines."""
    if text[:1] not in "{[":
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, list) and all(isinstance(each, int | float) for each in value):
        return (
            text if len(text) < MOST_BEFORE else f"{text[:MOST_BEFORE]}… ({len(value):,} numbers)"
        )
    return json.dumps(value, indent=2, ensure_ascii=False)
