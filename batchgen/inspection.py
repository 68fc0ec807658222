"""One row in full: its requests, what they were sent with, their answers and attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.errors import InputError, Problem, did_you_mean
from batchgen.job import Job
from batchgen.journal import (
    Journal,
    RecordedOutcome,
    Row,
    attempts_of,
    outcome_of,
    rows_with_id,
    shown_outcome,
    turns_of,
)
from batchgen.journal.batches import batch_of
from batchgen.page import Card, asked_cards, history_cards, reply_cards
from batchgen.pricing import dollars
from batchgen.recorder import NO_PAST, past_after, render_row
from batchgen.replies import parse
from batchgen.report import batch_json
from batchgen.requests import RequestError
from batchgen.workspace import Workspace

# The fields of an outcome, and of an attempt, that are of use to batchgen alone.
_PRIVATE_OUTCOME = ("outcome_id", "fingerprint", "columns_digest", "packed", "redo", "lost")
_PRIVATE_ATTEMPT = ("ident", "key", "seq", "seal")

# How many ids a misspelt one is compared with.
_COMPARED = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedRow:
    """One request of a row.

    Attributes:
        row: as it is staged.
        fields: what `show --json` prints of it.
        history: the messages of the turns before; None if they are not known.
        asked: what it asks, as the page has it.
        replies: its answers, also one to an earlier text that it shows meanwhile.
        shown: the outcome that those are of; None without one.
    """

    row: Row
    fields: Mapping[str, Any]
    history: Sequence[Card] | None
    asked: Sequence[Card]
    replies: Sequence[Card]
    shown: RecordedOutcome | None


def inspect(
    job: Job,
    identity: str,
    *,
    axes: Mapping[str, str] | None = None,
    simulate: bool = False,
    output: Path | None = None,
) -> list[InspectedRow]:
    """The requests of the row with this id: its combinations of the matrix, and its turns.

    Args:
        job: the job.
        identity: the id, as the tables show it.
        axes: only combinations with these values, each as text.
        simulate: look at what the simulated API answered.
        output: the folder that replaces the job's outputs folder.

    Raises InputError when the job has no such row, or no such combination of it.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with workspace.peek() as journal, journal.snapshot():
        workspace.staged(journal)
        rows = _with_axes(find_rows(journal, [identity]), axes or {})
        attempts = defaultdict(list)
        for attempt in attempts_of(journal, {row.outcome_id for row in rows}):
            fields = {name: attempt[name] for name in attempt if name not in _PRIVATE_ATTEMPT}
            fields["cost"] = dollars(attempt["cost"])
            attempts[attempt["ident"], attempt["key"]].append(fields)
        return [
            _inspected(workspace, journal, row, attempts[row.outcome_id, row.fingerprint])
            for row in rows
        ]


def find_rows(journal: Journal, identities: Sequence[str]) -> list[Row]:
    """The rows with these ids. Raises InputError that names every id which no row has."""
    rows: list[Row] = []
    problems = []
    for identity in identities:
        matches = rows_with_id(journal, identity)
        rows += matches
        if not matches:
            sample = journal.query(f"SELECT DISTINCT id FROM rows LIMIT {_COMPARED}")
            hint = did_you_mean(identity, [each["id"] for each in sample])
            problems.append(
                Problem(path=identity, message=f"this job has no row with this id{hint}")
            )
    if problems:
        raise InputError(problems)
    return rows


def request_json(workspace: Workspace, row: Row) -> dict[str, Any]:
    """A row's request as it would be sent, or the error that keeps it from being made."""
    try:
        request = render_row(workspace.job, workspace.renderer, row)
    except RequestError as error:
        return {"error": str(error)}
    files = [upload.name for upload in request.uploads]
    return {
        "endpoint": request.endpoint,
        **({"files": files} if files else {}),
        "body": request.body,
    }


def _with_axes(rows: Sequence[Row], axes: Mapping[str, str]) -> list[Row]:
    """The rows that have these values. Raises InputError when none has."""
    kept = [
        row
        for row in rows
        if all(name in row.axes and axis_text(row.axes[name]) == axes[name] for name in axes)
    ]
    if not kept:
        combinations = dict.fromkeys(map(axes_text, (row.axes for row in rows)))
        wanted = ", ".join(f"{name}={value}" for name, value in axes.items())
        raise InputError(
            f"the row {rows[0].id} has no combination with {wanted}; it has: "
            + "; ".join(each or "one without axes" for each in combinations)
        )
    return kept


def axis_text(value: Any) -> str:
    """The value of an axis as a person writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def axes_text(axes: Mapping[str, Any]) -> str:
    """A combination of the matrix: `language=German, sample=2`."""
    return ", ".join(f"{name}={axis_text(value)}" for name, value in axes.items())


def _inspected(
    workspace: Workspace, journal: Journal, row: Row, attempts: Sequence[Mapping[str, Any]]
) -> InspectedRow:
    recorded = outcome_of(journal, row.outcome_id, row.fingerprint)
    history = _history(workspace, journal, row, recorded)
    shown = shown_outcome(journal, row, recorded)
    return InspectedRow(
        row=row,
        fields=_fields(workspace, journal, row, recorded, history, attempts),
        history=None if history is None else list(history_cards(history)),
        asked=list(asked_cards(workspace.job, workspace.renderer, row)),
        replies=list(reply_cards(workspace.renderer, row, shown)),
        shown=shown,
    )


def _history(
    workspace: Workspace, journal: Journal, row: Row, recorded: RecordedOutcome | None
) -> tuple[Mapping[str, Any], ...] | None:
    """The messages of the turns before a row, as it was or would be sent with them.

    None if they are not known: a turn before has no answer, or the row's answer followed another
    reply than is recorded now, or a picture of theirs has changed.
    """
    if row.turn <= 1:
        return ()
    before = [turn for turn in turns_of(journal, row) if turn.turn < row.turn]
    is_known = (
        not row.follows_another
        if recorded is not None
        else all(turn.status == "succeeded" for turn in before)
    )
    past = NO_PAST
    try:
        for turn in before if is_known else ():
            if outcome_of(journal, turn.outcome_id, turn.fingerprint) is None:
                return None
            past = past_after(workspace.job, workspace.renderer, journal, past, turn)
    except RequestError:
        return None
    return past.messages if is_known else None


def _fields(
    workspace: Workspace,
    journal: Journal,
    row: Row,
    recorded: RecordedOutcome | None,
    history: Sequence[Mapping[str, Any]] | None,
    attempts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What `show --json` prints of a `row` of the `workspace` and its `journal`.

    `recorded` is its outcome; `history` and `attempts` are printed as they are.
    """
    batch = batch_of(journal, row.outcome_id, row.fingerprint)
    return {
        "id": row.id,
        "line": row.line,
        "axes": row.axes,
        "turn": row.turn or None,
        "status": row.status,
        "key": row.fingerprint.hex(),
        "error": row.error,
        "history": history,
        "request": request_json(workspace, row) if row.error is None else None,
        "outcome": dict(_outcome_fields(recorded)) if recorded is not None else None,
        "batch": batch_json(batch) if batch else None,
        "attempts": attempts,
    }


def _outcome_fields(recorded: RecordedOutcome) -> Iterator[tuple[str, Any]]:
    for name, value in recorded._asdict().items():
        if name not in _PRIVATE_OUTCOME:
            yield name, dollars(value) if name == "cost" else value
    yield "response", parse(recorded.response or b"null").value
