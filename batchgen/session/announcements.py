"""What a run says before anything is paid."""

from __future__ import annotations

from collections.abc import Iterator

from batchgen.journal import Journal, RowCounts
from batchgen.journal.attempts import in_flight
from batchgen.journal.batches import stale_requests
from batchgen.journal.outcomes import answers_without_rows
from batchgen.pricing import NANO
from batchgen.report import (
    describe_dollars,
    describe_empty_prompts,
    describe_stale_requests,
    describe_uncertain,
    describe_unclaimed,
    pluralize,
    rerun_reasons,
)
from batchgen.workspace import Workspace, estimated


def announcements(workspace: Workspace, journal: Journal, before: RowCounts) -> Iterator[str]:
    """What a dead run may have cost, what is sent although it is empty, what runs again and what
    that costs, and which answers no row has any more, each in a sentence.

    `before` are the rows in scope as they stand before the run.
    """
    calls, highest = in_flight(journal)
    if calls:
        yield f"the last run died: {describe_uncertain(calls, highest / NANO)}"
    prompts = workspace.staged(journal)
    if before.to_send and prompts.empty:
        yield describe_empty_prompts(prompts.empty)
    changes = [
        f"{pluralize(count, 'answered row')} to run again because {why}"
        for why, count in rerun_reasons(before).items()
    ]
    if before.to_send and changes:
        cost = estimated(workspace, journal, before, prompts).cost
        price = "of unknown cost" if cost is None else f"about {describe_dollars(cost / NANO)}"
        yield f"{'; '.join(changes)}; {pluralize(before.to_send, 'call')}, {price}"
    nameless = before.to_send and workspace.job.prompts.id is None
    if nameless and (unclaimed := answers_without_rows(journal)):
        yield describe_unclaimed(unclaimed)
    if stale := stale_requests(journal):
        yield describe_stale_requests(stale)
