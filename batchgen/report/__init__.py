"""The journal -> counts, tokens, money and time.

- `totals`       RunTotals and JobTotals: what calls took, and how rows stand
- `report`       Report: what one run left, as one line for a person and as report.json
- `batches`      how an open batch is shown
- `estimate`     what the rest will probably cost, from the answers so far
- `fit`          a straight line through costs
- `reasons`      why rows failed, in words
- `running`      a run that goes on: its progress, rate and waits
- `wording`      the phrases that plan, run and status share
- `exit_status`  the exit code of a run that nothing stopped
"""

from batchgen.report.batches import batch_json
from batchgen.report.estimate import Estimate, Rates, estimate
from batchgen.report.exit_status import exit_code_of
from batchgen.report.reasons import describe_reason
from batchgen.report.report import Report, as_json, write_report
from batchgen.report.running import (
    LongWaits,
    Pace,
    describe_duration,
    describe_end,
    describe_stop,
    describe_wait,
    progress_json,
)
from batchgen.report.totals import NO_CALLS, JobTotals, RunTotals, job_totals, run_totals
from batchgen.report.wording import (
    describe_answers,
    describe_batches,
    describe_cost,
    describe_dollars,
    describe_empty_cells,
    describe_empty_prompts,
    describe_stale_requests,
    describe_uncertain,
    describe_unclaimed,
    in_dollars,
    left_out_reasons,
    pluralize,
    rerun_reasons,
)

__all__ = [
    "NO_CALLS",
    "Estimate",
    "JobTotals",
    "LongWaits",
    "Pace",
    "Rates",
    "Report",
    "RunTotals",
    "as_json",
    "batch_json",
    "describe_answers",
    "describe_batches",
    "describe_cost",
    "describe_dollars",
    "describe_duration",
    "describe_empty_cells",
    "describe_empty_prompts",
    "describe_end",
    "describe_reason",
    "describe_stale_requests",
    "describe_stop",
    "describe_uncertain",
    "describe_unclaimed",
    "describe_wait",
    "estimate",
    "exit_code_of",
    "in_dollars",
    "job_totals",
    "left_out_reasons",
    "pluralize",
    "progress_json",
    "rerun_reasons",
    "run_totals",
    "write_report",
]
