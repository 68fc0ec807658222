"""Journals with staged and answered rows, for tests that need no server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from lab import Lab

from batchgen.dispatch import Outcome
from batchgen.journal import (
    Journal,
    Writer,
    begin_run,
    record_outcome,
    rows_with_outcomes,
)
from batchgen.kinds import KINDS
from batchgen.requests import Request
from batchgen.workspace import Workspace


def staged(lab: Lab, rows: int, **parts: Any) -> Workspace:
    """A workspace with a journal in which `rows` rows are staged."""
    workspace = Workspace.of(lab.load(lab.job("http://127.0.0.1:9/v1", rows=rows, **parts)))
    with workspace.locked(), workspace.open() as journal:
        workspace.stage(journal, capped=False)
    return workspace


def record(workspace: Workspace, which: Callable[[int], bool]) -> None:
    """Record an answer for each row whose number satisfies `which`."""

    async def fill(journal: Journal) -> None:
        run = begin_run(journal, {}, "")
        writer = Writer(journal.path)
        waiting = []
        for row, _ in rows_with_outcomes(journal):
            if which(row.n):
                message = {"role": "assistant", "content": row.id}
                reply = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
                request = Request(
                    id=row.id,
                    outcome_id=row.outcome_id,
                    fingerprint=row.fingerprint,
                    endpoint="",
                    body={},
                    input_bound=0,
                    answer_bound=0,
                    pictures=0,
                )
                outcome = Outcome(
                    request=request,
                    attempts=1,
                    elapsed=0.1,
                    answered_at=1.0,
                    answer=KINDS["chat"].read(reply, {}),
                    reply=json.dumps(reply).encode(),
                )
                waiting.append(
                    writer.commit(
                        record_outcome(row.outcome_id, row.columns_digest, outcome, run=run)
                    )
                )
        await asyncio.gather(*waiting)
        await writer.close()

    with workspace.open() as journal:
        asyncio.run(fill(journal))
