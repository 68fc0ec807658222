"""Rows and outcomes -> records: one record is one line of a table, its cells as Python values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, groupby
from typing import Any

from batchgen.job import Job
from batchgen.journal import (
    Journal,
    RecordedOutcome,
    Row,
    Status,
    rows_with_outcomes,
    shown_outcome,
)
from batchgen.journal.status import MAX_TRIES, WORST_FIRST
from batchgen.pricing import dollars
from batchgen.recorder import render_row
from batchgen.replies import (
    Answer,
    UnreadableReplyError,
    decode_embeddings,
    explained,
    has_sound,
    parse,
)
from batchgen.requests import Renderer, RequestError, without_system_messages
from batchgen.schemas import MISFIT, Expectations
from batchgen.tables.answers import read_answer
from batchgen.tables.computed import ComputedCells
from batchgen.tables.formats import Record
from batchgen.tables.layout import TableLayout
from batchgen.tables.wide import side_by_side

# What belongs together in the results table: a request and its outcome, or all turns of a row, each
# with its outcome. It becomes one record, or one record for each choice of its answer.
Turns = list[tuple[Row, RecordedOutcome | None]]

# Amounts that count once for all choices of an answer, so only the first choice shows them.
_USAGE = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost")

# Amounts that are added up where a record stands for all turns of a row.
_SUMMED = (*_USAGE, "attempts", "elapsed")


class Records:
    """Makes the records of a job's tables from its journal.

    Attributes:
        computed: makes the cells of output.columns, and knows which are empty.
        noted: how many answers so far had something that the summary tells: `unwrapped` of text
            around their JSON, with `pictures` beside a text, or with `sound`.
    """

    def __init__(self, job: Job, journal: Journal, renderer: Renderer, layout: TableLayout) -> None:
        self._job, self._journal, self._renderer, self._layout = job, journal, renderer, layout
        self._expectations = Expectations(job)
        self.noted: Counter[str] = Counter()
        self._by_turns = job.conversation is not None and job.conversation.turns is not None
        self.computed = ComputedCells(job, renderer)

    def prompts(self) -> Iterator[list[Turns]]:
        """The requests and outcomes of each row of the prompts file, in its order.

        What follows one another in the journal stands together: combinations, and turns of each.
        """
        for _, requests in groupby(rows_with_outcomes(self._journal), key=lambda each: each[0].n):
            if not self._by_turns:
                yield [[request] for request in requests]
            else:
                by_axes = groupby(requests, key=lambda each: each[0].axes)
                yield [list(turns) for _, turns in by_axes]

    def results(self) -> Iterator[Record]:
        """The records of the results table."""
        for prompt in self.prompts():
            yield from self.lines(prompt)

    def lines(self, prompt: list[Turns]) -> Iterator[Record]:
        """The records of one row of the prompts file."""
        records = chain.from_iterable(map(self.result, prompt))
        return records if self._layout.wide is None else side_by_side(records, self._layout)

    def result(self, turns: Turns) -> Iterator[Record]:
        """The records of a group: one, or one for each choice of its answer."""
        shown = [(row, shown_outcome(self._journal, row, recorded)) for row, recorded in turns]
        row, status = turns[-1][0], _worst([each.status for each, _ in turns])
        last = next((outcome for _, outcome in reversed(shown) if outcome is not None), None)
        inputs = {**{name: row.columns.get(name) for name in self._layout.inputs}, **row.axes}
        own = {"status": status, "error": _error_text(turns), **self._own(shown, last)}
        if last is None or last.status == "failed":
            yield self._joined(inputs, own)
            return
        response = parse(last.response).value
        _, read = read_answer(self._renderer, row.columns, response)
        answer = self._judged(row, read)
        if answer is None:
            yield self._joined(inputs, own)
            return
        vectors = _vectors(response) if "data" in response else None
        self.noted["sound"] += has_sound(response)
        for number, choice in enumerate(answer.choices, 1):
            self.noted["unwrapped"] += bool(choice.unwrapped)
            self.noted["pictures"] += bool(choice.pictures)
            cells = {
                "unwrapped": choice.unwrapped or None,
                "pictures": list(choice.pictures) or None,
                "output": choice.text if vectors is None else vectors,
                **self.computed.of(row, response, choice.text),
                **({"choice": number} if len(answer.choices) > 1 else {}),
                **(dict.fromkeys(_USAGE) if number > 1 else {}),
            }
            yield self._joined(inputs, {**own, **cells})

    def error(self, row: Row, recorded: RecordedOutcome | None) -> Record:
        """The record of the errors table for a failed or incomplete request."""
        cells: Record = {"id": row.id, "turn": row.turn or None, "status": row.status}
        if recorded is None:
            cells |= {"reason": "input", "message": row.input_error}
        else:
            failed = row.status == "failed"
            cells |= {
                "reason": reason_of(recorded) if failed else recorded.finish_reason,
                "http_status": recorded.http_status,
                "code": recorded.code,
                "message": recorded.message,
            }
            # Where `redo` asked for another answer and failed, these are those of the old one.
            if not failed or recorded.status == "failed":
                cells |= {
                    "request_id": recorded.request_id,
                    "attempts": recorded.attempts,
                    "when": _iso_time(int(recorded.answered_at)),
                }
        return {**row.axes, **{self._layout.prefix + name: cell for name, cell in cells.items()}}

    # -- cells -------------------------------------------------------------------------------------

    def _joined(self, inputs: Record, own: Record) -> Record:
        prefix = self._layout.prefix
        if prefix:
            own = {prefix + name: value for name, value in own.items()}
        return {**inputs, **own}

    def _own(self, shown: Turns, last: RecordedOutcome | None) -> Record:
        """The cells that say where the answer that is shown came from."""
        own: Record = {}
        if self._by_turns:
            own["messages"] = self._messages(shown)
        if last is None:
            return own
        total = _total([outcome for _, outcome in shown if outcome is not None])
        return {
            **own,
            "finish_reason": last.finish_reason,
            "answered_by": last.model,
            "input_tokens": total.input_tokens,
            "cached_tokens": total.cached_tokens,
            "output_tokens": total.output_tokens,
            "reasoning_tokens": total.reasoning_tokens,
            "cost": dollars(total.cost),
            "attempts": total.attempts,
            "elapsed_s": round(total.elapsed, 3),
            "answered_at": _iso_time(int(last.answered_at)),
            "request_id": last.request_id,
            "run": last.run,
        }

    def _judged(self, row: Row, answer: Answer | None) -> Answer | None:
        """The answer, as its JSON alone if the row asks for JSON."""
        form = self._renderer.answer_format(row.columns, row.axes)
        expected = self._expectations.of(form) if answer else None
        return expected.judged(answer) if answer and expected else answer

    def _messages(self, shown: Turns) -> list[Mapping[str, Any]] | None:
        """The conversation: every answered turn, up to the first that is not.

        An answer to another request, or to another reply, is no part of it.
        """
        messages: list[Mapping[str, Any]] = []
        for row, outcome in shown:
            if outcome is None or outcome.status == "failed" or row.follows_another:
                break
            if outcome.fingerprint != row.fingerprint:
                break
            try:
                sent = render_row(self._job, self._renderer, row).body["messages"]
            except RequestError:
                break
            _, answer = read_answer(self._renderer, row.columns, parse(outcome.response).value)
            if answer is None:
                break
            reply = {"role": "assistant", "content": answer.choices[0].text}
            messages += [*(without_system_messages(sent) if messages else sent), reply]
        return messages or None


def _vectors(response: Mapping[str, Any]) -> list[Any] | None:
    """The embeddings of a reply: one as its numbers, several as a list; None if there are none."""
    try:
        vectors = [item["embedding"] for item in decode_embeddings(response)["data"]]
    except (UnreadableReplyError, KeyError, TypeError):
        return None
    return vectors[0] if len(vectors) == 1 else vectors


def reason_of(recorded: RecordedOutcome) -> str:
    """Why a row failed: `gave_up` after the last run that retried it, else its own reason."""
    return "gave_up" if recorded.passing and recorded.tries >= MAX_TRIES else str(recorded.reason)


def _error_text(turns: Turns) -> str | None:
    """Why a group's requests have no answer, or an incomplete one: the first reason, or None."""
    for row, outcome in turns:
        if row.error is not None:
            return f"input: {row.input_error}"
        if outcome is not None and row.status == "failed":
            return f"{reason_of(outcome)}: {outcome.message}"
        if outcome is not None and row.status == "incomplete":
            why = f": {outcome.message}" if outcome.finish_reason == MISFIT else ""
            return f"incomplete: {explained(outcome.finish_reason)}{why}"
        if row.status == "blocked":
            return "blocked: an earlier turn of this conversation has not succeeded"
    return None


def _worst(statuses: Sequence[Status]) -> Status:
    return min(statuses, key=WORST_FIRST.index)


def _total(outcomes: list[RecordedOutcome]) -> RecordedOutcome:
    """The last outcome, with the amounts of all of them added up."""
    if len(outcomes) == 1:
        return outcomes[0]
    sums = {name: _sum(getattr(each, name) for each in outcomes) for name in _SUMMED}
    return outcomes[-1]._replace(**sums)


def _sum(values: Iterator[Any]) -> Any:
    """The sum of the known values; None when there are none."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


# Thousands of answers come in one second, and formatting a time is slow.
@lru_cache(maxsize=1024)
def _iso_time(at: int) -> str | None:
    """Seconds since 1970 as `2026-01-31T08:15:00Z`; None for 0."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else None
