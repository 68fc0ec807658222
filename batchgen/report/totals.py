"""What the calls of a run or of a job took, and how the rows of a job stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from batchgen.journal import Journal, RowCounts, answering_models, call_totals
from batchgen.pricing import dollars
from batchgen.staging import staged


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTotals:
    """What calls took, of one run or of all.

    Attributes:
        calls: how many were made.
        input_tokens: as the server counted them.
        output_tokens: as the server counted them.
        cost: in USD, of the calls whose cost is known; None when no call is known to have cost
            anything, and that of some is unknown.
        uncertain: how many calls count at their highest cost, because their outcome is unknown.
        uncertain_cost: that cost, in USD; it is not in `cost`.
        unpriced: how many calls have an unknown cost.
        fees_not_included: tools of the server whose fees are in no cost.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    unpriced: int
    uncertain: int = 0
    uncertain_cost: float = 0.0
    fees_not_included: Sequence[str] = field(default_factory=list)


NO_CALLS = RunTotals(calls=0, input_tokens=0, output_tokens=0, cost=0.0, unpriced=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTotals:
    """How a whole job stands, all of its runs together.

    Attributes:
        rows: lines of the results table by status.
        total: the sum of `rows`.
        left_out: rows of the file that are left out, by the key of the job that does it.
        failures: failed and incomplete requests by reason.
        models: the models that answered, as they named themselves.
        totals: what the calls of all runs took.
        columns: the columns of output.columns with empty cells, as the tables count them.
    """

    rows: Mapping[str, int]
    total: int
    left_out: Mapping[str, int]
    failures: Mapping[str, int]
    models: tuple[str, ...]
    totals: RunTotals
    columns: Mapping[str, Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The part `job` of report.json, without the job's name."""
        counts = {"rows": dict(self.rows), "total": self.total, "left_out": dict(self.left_out)}
        counts["failures"] = dict(self.failures)
        columns = {name: dict(each) for name, each in self.columns.items()}
        return {**counts, "models": list(self.models), **asdict(self.totals), "columns": columns}


def job_totals(
    journal: Journal, counts: RowCounts, columns: Mapping[str, Mapping[str, Any]]
) -> JobTotals:
    """How a job stands; `counts` are over all of its rows, `columns` those with empty cells."""
    prompts = staged(journal)
    return JobTotals(
        rows=counts.lines,
        total=sum(counts.lines.values()),
        left_out=prompts.left_out if prompts else {},
        failures=counts.failures,
        models=answering_models(journal),
        totals=run_totals(journal, None),
        columns=columns,
    )


def run_totals(journal: Journal, run: int | None) -> RunTotals:
    """What the calls of a run took, or (None) of all runs."""
    totals, prompts = call_totals(journal, run), staged(journal)
    unknown = totals["unpriced"] or totals["uncertain"]
    return RunTotals(
        calls=totals["calls"],
        input_tokens=totals["input_tokens"],
        output_tokens=totals["output_tokens"],
        cost=None if unknown and not totals["cost"] else dollars(totals["cost"]),
        uncertain=totals["uncertain"],
        uncertain_cost=dollars(totals["uncertain_cost"]) or 0.0,
        unpriced=totals["unpriced"],
        fees_not_included=prompts.fees_not_included if prompts and totals["calls"] else [],
    )
