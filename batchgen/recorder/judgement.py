"""Recorded answers are judged again when what they must be has changed. Nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from batchgen.job import TEXT_KINDS, Job
from batchgen.journal import Journal, RecordedOutcome, change_outcomes, rows_with_outcomes
from batchgen.journal.records import digest_of
from batchgen.recorder.reader import judged_answer
from batchgen.replies import Answer, UnreadableReplyError, parse
from batchgen.requests import Renderer, canonical
from batchgen.schemas import MISFIT, Expectations, may_expect_json
from batchgen.staging import staged

# Raise this number when answers are judged otherwise, so that recorded ones are judged again.
VERSION = 1


def judge_again(job: Job, renderer: Renderer, expectations: Expectations, journal: Journal) -> str:
    """Judge the recorded answers of the staged rows, unless that is done already.

    Returns what came of it as a sentence; empty if nothing did. Raises DamagedError.
    """
    recipe = _recipe(job, expectations, journal)
    if (journal.meta("judged") or "") == recipe:
        return ""
    changes = list(_changes(job, renderer, expectations, journal))
    with journal.transaction(changes_tables=bool(changes)) as connection:
        for identity, cells in changes:
            change_outcomes(connection, [identity], cells)
        journal.keep("judged", recipe)
    statuses = [change["status"] for _, change in changes if "status" in change]
    if not statuses:
        return ""
    misfits, fits = statuses.count("incomplete"), statuses.count("succeeded")
    return (
        "recorded answers compared with the JSON that the job asks for now: "
        f"{misfits:,} do not fit it any more, {fits:,} fit it now; nothing is sent for that"
    )


def _recipe(job: Job, expectations: Expectations, journal: Journal) -> str:
    """A digest of everything that the judgement of the staged rows depends on.

    Empty for a job that takes every text: then nothing is judged.
    """
    if not may_expect_json(job):
        return ""
    rows = staged(journal)
    parts = [
        VERSION,
        job.output.json_,
        expectations.schema_text,
        job.retry.validation,
        [rows.signature, rows.digest] if rows else None,
    ]
    return digest_of(canonical(parts)).hex()


def _changes(
    job: Job, renderer: Renderer, expectations: Expectations, journal: Journal
) -> Iterator[tuple[tuple[str, bytes], dict[str, Any]]]:
    """The outcomes that are judged otherwise now, each with the cells that change."""
    if not journal.query("SELECT 1 FROM outcomes LIMIT 1"):
        return
    for row, recorded in rows_with_outcomes(journal):
        kind = renderer.kind_of(row.columns)
        if recorded is None or kind is None or kind.name not in TEXT_KINDS:
            continue
        # What was cut, refused or empty stays what it is.
        if recorded.status != "succeeded" and recorded.finish_reason != MISFIT:
            continue
        body, reply = renderer.answer_format(row.columns, row.axes), parse(recorded.response).value
        with suppress(UnreadableReplyError):
            answer = judged_answer(kind, reply, body, expectations)
            if change := _change(recorded, answer, job.retry.validation):
                yield (recorded.outcome_id, recorded.fingerprint), change


def _change(recorded: RecordedOutcome, answer: Answer, corrections: int) -> dict[str, Any]:
    """The cells of an outcome that are others now that its answer is judged anew.

    `corrections`: how often the job asks again; none is sent for an answer that has become a
    misfit, because that one was paid for as it is.
    """
    due = recorded.redo > 1 and answer.misfit and recorded.redo <= corrections + 1
    cells = {
        "status": "succeeded" if answer.ended else "incomplete",
        "finish_reason": answer.finish_reason,
        # With a reason, the message is that of a `redo` which failed.
        "message": recorded.message if recorded.reason is not None else answer.misfit or None,
        "redo": recorded.redo if recorded.redo <= 1 or due else 0,
    }
    return {name: cell for name, cell in cells.items() if cell != getattr(recorded, name)}
