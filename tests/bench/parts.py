"""µs of CPU of each part of a row's way, one after the other in one process.

`python parts.py prompts.csv job.yaml` writes one JSON object: µs a row by part, each the least of
some rounds over all rows. Alone and warm, a part costs less than in a run, where the other parts
keep evicting its data from the caches.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from batchgen import load_job
from batchgen.dispatch import Attempt, Outcome
from batchgen.dispatch.limits.admission import Admission
from batchgen.dispatch.limits.spending import Spending
from batchgen.journal import (
    Journal,
    Writer,
    begin_run,
    record_attempt,
    record_outcome,
    rows_with_outcomes,
    thread_heads,
)
from batchgen.kinds import KINDS
from batchgen.prompts import open_prompts
from batchgen.replies import Usage
from batchgen.requests import Request
from batchgen.workspace import Workspace

ROUNDS = 5

REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-5.6-luna",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "A calm answer. " * 20},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 60, "completion_tokens": 80, "total_tokens": 140},
    }
).encode()


def least(rows: int, work: Callable[[], object]) -> float:
    """µs a row of work over all rows, at its best."""
    spent = []
    for _ in range(ROUNDS):
        before = time.process_time()
        work()
        spent.append(time.process_time() - before)
    return min(spent) / rows * 1e6


def parts(prompts: Path, workspace: Workspace) -> dict[str, float]:
    """The parts in the order of the flow."""
    costs: dict[str, float] = {}
    with open_prompts(prompts, display_name=prompts.name, bad_rows="refuse") as file:
        rows = [prompt.columns for prompt in file]
    size = len(rows)

    def read() -> None:
        with open_prompts(prompts, display_name=prompts.name, bad_rows="refuse") as file:
            for _ in file:
                pass

    costs["read a row of CSV"] = least(size, read)
    render = workspace.renderer.request
    costs["render a request, and its key"] = least(
        size, lambda: [render(columns, {}) for columns in rows]
    )
    with workspace.locked(), workspace.open() as journal:
        before = time.process_time()
        workspace.stage(journal, capped=False)
        costs["pass 1 as a whole"] = (time.process_time() - before) / size * 1e6
        costs["read a page of rows again"] = least(size, lambda: pages(journal))
        requests = [
            render(row.columns, row.axes, row_id=row.id, outcome_id=row.outcome_id)
            for row, _ in rows_with_outcomes(journal)
        ]
        for name, limit in {"no limit": None, "three limits": 1e9}.items():
            costs[f"admit, {name}"] = least(size, partial(admitted, workspace, requests, limit))
        kind, model = KINDS["chat"], workspace.prices
        costs["read a reply, and its cost"] = least(
            size,
            lambda: [
                model.cost("gpt-5.6-luna", kind.read(json.loads(REPLY), {}).usage) for _ in rows
            ],
        )
        for group in (1, 16, 64):
            before = time.process_time()
            run(record(journal, requests, group))
            costs[f"record an answer and its attempt, {group} at once"] = (
                (time.process_time() - before) / size * 1e6
            )
        costs["read rows and answers for a table"] = least(
            size, lambda: list(rows_with_outcomes(journal))
        )
        costs["tables as a whole"] = least(
            size, lambda: workspace.tables(journal).write(workspace.folder)
        )
    return costs


def admitted(workspace: Workspace, requests: list[Request], limit: float | None) -> None:
    """Admit all requests, and settle them."""
    run(admit(workspace, requests, limit))


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end."""
    asyncio.run(work)


def pages(journal: Journal) -> None:
    """Read everything that is to be sent."""
    after = 0
    while page := thread_heads(journal, after):
        after = page[-1].seq


async def admit(workspace: Workspace, requests: list[Request], limit: float | None) -> None:
    """Admit all requests, and settle them."""
    admission = Admission(
        requests=limit,
        tokens=limit,
        pictures=limit,
        spending=Spending(),
        prices=workspace.prices,
        clock=time.monotonic,
    )
    usage = Usage(input_tokens=60, output_tokens=80)
    for request in requests:
        permit = await admission.admit(request)
        admission.settle(permit, None)
        admission.record_answer(request, permit, usage, 0.0)


async def record(journal: Journal, requests: list[Request], group: int) -> None:
    """Commit an answer and an attempt for every request, so many at once."""
    run = begin_run(journal, {}, "")
    writer = Writer(journal.path)
    answer = KINDS["chat"].read(json.loads(REPLY), {})
    attempt = Attempt(
        number=1,
        started_at=1.0,
        wait=0.0,
        elapsed=0.1,
        status=200,
        input_tokens=60,
        output_tokens=80,
    )
    for at in range(0, len(requests), group):
        waiting = []
        for request in requests[at : at + group]:
            outcome = Outcome(
                request=request,
                attempts=1,
                elapsed=0.1,
                answered_at=1.0,
                answer=answer,
                reply=REPLY,
                request_id="r",
            )
            waiting.append(
                writer.put(
                    record_attempt(request.outcome_id, request.fingerprint, attempt, run=run)
                )
            )
            waiting.append(writer.put(record_outcome(request.outcome_id, b"", outcome, run=run)))
        await asyncio.gather(*waiting)
    await writer.close()


if __name__ == "__main__":
    print(json.dumps(parts(Path(sys.argv[1]), Workspace.of(load_job(Path(sys.argv[2]))))))
