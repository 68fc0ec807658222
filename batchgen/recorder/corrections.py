"""Which requests are sent again because their answer does not fit, and how."""

from __future__ import annotations

import asyncio

from batchgen.dispatch import Outcome
from batchgen.job import TURN_KINDS, Job
from batchgen.journal import Journal, RecordedOutcome, Row, outcome_of
from batchgen.journal.records import encodable
from batchgen.kinds import KIND_BY_ENDPOINT
from batchgen.recorder.reader import judged_answer
from batchgen.replies import parse
from batchgen.requests import Request, with_correction
from batchgen.schemas import MISFIT, Expectations


class Corrections:
    """The corrections of one run of one job.

    `expectations` are the job's; `journal` says which correction of a row is to be sent.
    """

    def __init__(self, job: Job, expectations: Expectations, journal: Journal) -> None:
        self._most, self._expectations, self._journal = job.retry.validation, expectations, journal
        # The requests whose correction follows in this run.
        self._due: set[tuple[str, bytes]] = set()

    def most(self, outcome: Outcome) -> int:
        """How often a request may be sent again because its answers do not fit."""
        kind = KIND_BY_ENDPOINT.get(outcome.request.endpoint)
        return self._most if kind is not None and kind.name in TURN_KINDS else 0

    async def follows(self, outcome: Outcome) -> bool:
        """Whether a correction follows an outcome, which is on record."""
        if outcome.answer is None or not outcome.answer.misfit or not self.most(outcome):
            return False
        identity = (outcome.request.outcome_id, outcome.request.fingerprint)
        if await self._pending(*identity) is None:
            return False
        self._due.add(identity)
        return True

    def take_due(self, row: Row) -> bool:
        """Whether a correction of a row follows in this run, asked once for each."""
        identity = (row.outcome_id, row.fingerprint)
        due = identity in self._due
        self._due.discard(identity)
        return due

    async def applied(self, row: Row, request: Request) -> Request:
        """The request of a row, as the correction that is to be sent; as it is if there is none."""
        # Such a row is answered, and to be sent again; not because an earlier turn has changed.
        if not self._most or row.status != "outdated" or row.follows_another:
            return request
        recorded = await self._pending(row.outcome_id, row.fingerprint)
        if recorded is None:
            return request
        kind, reply = KIND_BY_ENDPOINT[request.endpoint], parse(recorded.response).value
        answer = judged_answer(kind, reply, request.body, self._expectations)
        for choice in answer.choices:
            if choice.finish_reason == MISFIT:
                return with_correction(request, encodable(choice.text), answer.misfit)
        return request

    async def _pending(self, outcome_id: str, fingerprint: bytes) -> RecordedOutcome | None:
        """The outcome of a request of which a correction is to be sent, or None."""
        recorded = await asyncio.to_thread(outcome_of, self._journal, outcome_id, fingerprint)
        return recorded if recorded is not None and recorded.redo > 1 else None
