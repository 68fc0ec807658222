"""How much a run may still spend, and how many rows may still fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchgen.dispatch import Progress
from batchgen.job import Job
from batchgen.journal import Journal, RowCounts, spent, unpriced_attempts
from batchgen.journal.attempts import highest_overruns
from batchgen.journal.batches import committed, set_aside
from batchgen.pricing import NANO, Prices
from batchgen.replies import Usage
from batchgen.session.options import Options
from batchgen.staging import staged

if TYPE_CHECKING:
    from batchgen.dispatch.limits.shared_budget import SharedBudget
    from batchgen.dispatch.limits.spending import Spending


def is_capped(job: Job, options: Options) -> bool:
    """Whether the job or its caller caps what a run may spend."""
    return bool(job.limits.on_cost) or options.max_cost is not None


def spending(
    job: Job,
    options: Options,
    journal: Journal,
    prices: Prices,
    run: int,
    progress: Progress,
    shared: SharedBudget | None = None,
) -> Spending:
    """What a run may spend: the money that is left now, and how bills exceeded bounds before.

    Args:
        job: its `limits.max_cost` counts over all runs.
        options: their `max_cost` counts over this run alone.
        journal: knows what was spent, and what open batches may still cost.
        prices: today's prices, for calls that had none when they were made.
        run: the number of this run.
        progress: is given the cap of which the least is left.
        shared: what all jobs of the key may spend; None where nothing is shared.
    """
    from batchgen.dispatch.limits.budgets import CostBudget
    from batchgen.dispatch.limits.spending import Overrun, Spending

    caps = []
    if job.limits.max_cost is not None:
        caps.append((int(job.limits.max_cost * NANO), _spent(journal, prices), "limits.max_cost"))
    if options.max_cost is not None:
        caps.append((int(options.max_cost * NANO), committed(journal, run) or 0, "--max-cost"))
    budgets = [CostBudget(cap - before, name=name) for cap, before, name in caps]
    counted = [(cap, before) for cap, before, _ in caps]
    if shared is not None:
        budgets.append(shared)
        counted += shared.caps()
    if counted:
        cap, before = min(counted, key=lambda each: each[0] - each[1])
        progress.cap, progress.spent_before = cap, before - progress.cost
    overrun, prompts = Overrun(), staged(journal)
    share = prompts.batch_bound if prompts else 1.0
    for bound, cost in highest_overruns(journal, share) if is_capped(job, options) else ():
        overrun = overrun.after(bound, cost)
    return Spending(budgets, overrun)


def _spent(journal: Journal, prices: Prices) -> int:
    """What all runs spent and what their batches may still cost, in nano-dollars.

    A call that had no price when it was made counts at today's price, or else at its worst case.
    """
    # Open batches are read first: a call that moves from them to the spent ones meanwhile counts
    # twice, which is safe, and is never missed.
    total = set_aside(journal) or 0
    for call in unpriced_attempts(journal):
        usage = Usage(input_tokens=call["input_tokens"], output_tokens=call["output_tokens"])
        batch = call["batch"] is not None
        cost = prices.cost(call["model"] or "", usage, tier=call["service_tier"], batch=batch)
        # The bound of a row is that of a call outside a batch, which costs more.
        total += (call["cost_bound"] or 0) if cost is None else cost
    return total + spent(journal)


def failures_left(job: Job, before: RowCounts) -> int | None:
    """How many more rows may fail before `limits.max_failures` stops the job (None: no limit).

    `before` are the row counts from before the run. Failed rows that the run sends again do not
    count until they have failed again.
    """
    allowed = job.limits.max_failures
    if allowed is None:
        return None
    rows = before.lines
    failed = rows.get("failed", 0) + rows.get("incomplete", 0) - before.retried
    return allowed.most(sum(rows.values())) - failed
