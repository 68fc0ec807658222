"""batchgen: bulk prompts from a CSV or JSONL through the OpenAI API, each answer recorded once, in a table.

The public API:

    job = load_job("jobs/product-copy.yaml")      # InputError: every problem as file:line:column
    print(plan(job).cost)                         # reads everything, sends nothing
    report = run(job, Options(simulate=True))     # does what is not done; report.exit_code, report.rows, ...
    frame = results(job, simulate=True)           # the results table as a pandas DataFrame

Everything that goes wrong is a BatchgenError; see batchgen.errors for the tree.

The house is the flow; imports point up this list only:

    errors      everything that can go wrong, drawn as a tree
    spec        job.yaml              -> Job
    batchlines  the lines of the Batch API's files
    kinds       what each kind of request is, and how to read its answer
    prompts     CSV, TSV, TXT, JSONL  -> Prompt
    requests    Job + row             -> Request, with its key
    pricing     usage, bounds         -> money
    disk        files that appear whole or not at all
    dispatch    Request               -> Outcome: online over admission, retry, transport, wire; or in batches
    images      picture bytes         -> images/<id>.png, verified
    journal     rows and outcomes, durable; what is done
    ledger      what dispatch needs of the journal and the pictures
    tables      journal               -> results and errors tables
    intake      pass 1: prompts       -> the journal's rows
    report      journal               -> counts, tokens, money, time
    place       one job's folder, lock and journal
    review      plan, status, show, redo, export, verify: everything without sending
    signals     the first ends a run in order, the second on the spot
    simulator   an OpenAI-compatible server on loopback
    sending     what one run puts together to send
    runner      the whole flow on one screen
    init        a prompts file        -> a job that runs
    cli         words for people and scripts in, one call, exit code out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchgen.errors import (
    AccountError,
    BatchgenError,
    BusyError,
    DamagedError,
    InputError,
    Interrupted,
    LimitError,
    OutputError,
    Problem,
)

if TYPE_CHECKING:
    from batchgen.report import Report
    from batchgen.review import Plan, plan, results
    from batchgen.runner import Options, cancel, run
    from batchgen.spec import Job, load_job

__version__ = "0.1.0"

# Names that are imported when they are first asked for: `batchgen --help` needs none of them.
_LATE = {
    "Job": "batchgen.spec",
    "load_job": "batchgen.spec",
    "Plan": "batchgen.review",
    "plan": "batchgen.review",
    "results": "batchgen.review",
    "Options": "batchgen.runner",
    "Report": "batchgen.report",
    "run": "batchgen.runner",
    "cancel": "batchgen.runner",
}

__all__ = [
    "AccountError",
    "BatchgenError",
    "BusyError",
    "DamagedError",
    "InputError",
    "Interrupted",
    "Job",
    "LimitError",
    "Options",
    "OutputError",
    "Plan",
    "Problem",
    "Report",
    "__version__",
    "cancel",
    "load_job",
    "plan",
    "results",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'batchgen' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
