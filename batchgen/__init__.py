"""batchgen: bulk prompts through the OpenAI API, each answer recorded once, in a table.

The public API:

    job = load_job("jobs/product-copy.yaml")      # InputError: each problem as file:line:column
    print(plan(job).cost)                         # reads everything, sends nothing
    report = run(job, Options(simulate=True))     # does what is not done; see Report
    frame = results(job, simulate=True)           # the results table as a pandas DataFrame

Everything that goes wrong is a BatchgenError; see batchgen.errors for the tree.

The words, in the order of the flow:

    row          a line of the prompts file with one combination of axes
    axis         a name of the job's `matrix`, of which each row has one value
    request      what is sent for a row: an endpoint, a body, files; a conversation has several
    fingerprint  SHA-256 of everything in a request that can change its answer
    identity     what a row is known by while its text changes: its id, conversation or position
    thread       requests that must be sent in order: the turns of a conversation, or one request
    run          one `batchgen run` of a job
    attempt      one call for a request, or one request in a batch; a retry is another attempt
    outcome      how a request ended: an answer or a failure; it belongs to a fingerprint
    permit       what one call was admitted with: room in the limits, and money set aside
    circuit      closed is normal; open is an outage, while only probes are sent
    passing      of a failure: it says nothing about the row, so later runs retry it
    incomplete   of a row: its answer was cut off, filtered or refused; only `redo` retries it
    blocked      of a row: an earlier turn of its conversation has not succeeded
    outdated     of a row: it was answered, but its fingerprint has changed, or `redo` marked it
    stale        of a request in a batch: its row has changed since it was sent

The house is the flow; imports point up this list only:

    escapes       foreign texts that control no terminal
    errors        everything that can go wrong, drawn as a tree
    job           job.yaml              -> Job
    batch_format  the lines of the Batch API's files
    replies       a reply's JSON        -> Answer
    kinds         what each kind of request is (data)
    schemas       answers that must be JSON: found in texts, compared with JSON Schemas
    prompts       files                 -> Prompt
    requests      Job + Prompt          -> Request, with its fingerprint
    pricing       usage, bounds         -> money
    disk          files that appear whole or not at all
    dispatch      Request               -> Outcome: api, limits, online, batches
    images        picture bytes         -> images/<id>.png, verified
    journal       rows and outcomes, durable; what is done
    staging       pass 1: prompts       -> the journal's rows
    recorder      what dispatch needs of the journal and the pictures
    tables        journal               -> results and errors tables
    report        journal               -> counts, tokens, money, time
    page          journal               -> report.html
    workspace     one job's folder, lock and journal
    inspection    one row in full: its requests, what they were sent with, answers, attempts
    comparison    a row's answers before and after a change, side by side
    queries       status, show, results
    spend         what all jobs on this machine cost
    planner       what a run would do and cost (`plan` is the public function)
    maintenance   redo, export, verify
    salvage       what is sound of a damaged journal
    view          the page, served to this machine alone
    notify        how a run ended, to a command or an address
    signals       the first ends a run in order, the second at once
    simulator     beside the flow: an OpenAI-compatible server on loopback
    doctor        whether all that a job needs is there: key, server, disk, machine
    session       what one run opens and closes
    runner        the whole flow on one screen
    init          a prompts file        -> a job that runs
    cli           the command line: one call in, words and an exit code out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchgen.errors import (
    AccountError,
    BatchgenError,
    BusyError,
    DamagedError,
    InputError,
    LimitError,
    OutputError,
    Problem,
    RunInterruptedError,
)

if TYPE_CHECKING:
    from batchgen.job import Job, load_job
    from batchgen.planner import Plan, plan
    from batchgen.queries import results
    from batchgen.report import Report
    from batchgen.runner import cancel, run
    from batchgen.session import Options

__version__ = "0.1.0"

# Names that are imported when they are first asked for: `batchgen --help` needs none of them.
_LATE = {
    "Job": "batchgen.job",
    "load_job": "batchgen.job",
    "Plan": "batchgen.planner",
    "plan": "batchgen.planner",
    "results": "batchgen.queries",
    "Options": "batchgen.session",
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
    "Job",
    "LimitError",
    "Options",
    "OutputError",
    "Plan",
    "Problem",
    "Report",
    "RunInterruptedError",
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
