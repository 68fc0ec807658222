"""What the requests to send cost: probably, and at most. Money is in nano-dollars."""

from __future__ import annotations

import math

from batchgen.journal import Journal, RowCounts
from batchgen.journal.evidence import evidence
from batchgen.report import Estimate, Rates, estimate
from batchgen.staging import StagedPrompts
from batchgen.workspace.workspace import Workspace


def highest_cost(workspace: Workspace, counts: RowCounts, prompts: StagedPrompts) -> int | None:
    """The most that the requests to send can cost in the job's mode; None: unknown.

    Where requests have models with different discounts for batches, all are taken to have the
    smallest.
    """
    if workspace.job.mode != "batch" or counts.cost_bound is None:
        return counts.cost_bound
    return math.ceil(counts.cost_bound * prompts.batch_bound)


def estimated(
    workspace: Workspace, journal: Journal, counts: RowCounts, prompts: StagedPrompts
) -> Estimate:
    """What the requests to send will probably cost in the job's mode, by the answers so far."""
    rates = Rates(
        batch_share=prompts.batch_cost,
        share=prompts.batch_cost if workspace.job.mode == "batch" else 1.0,
        charged_share=prompts.charged_share,
        most=highest_cost(workspace, counts, prompts),
    )
    # A run that sends nothing does not read what answers took.
    return estimate(counts, evidence(journal) if counts.to_send else (), rates)
