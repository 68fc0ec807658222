"""The journal: SQLite, the only truth of a job. This docstring is its specification, version 1.

`journal.db` is an SQLite database (application_id 0x62617467, user_version = schema version) in WAL
mode, synchronous FULL. Only the process that holds `.lock` writes. Readers may come at any time.
Times are seconds since 1970 (UTC), money is whole nano-dollars, digests are BLAKE2b of 16 bytes,
JSON is canonical (sorted keys, no spaces).

Every line of every table has a `seal`: the digest of its other cells, `seq` excepted, in their
order: a JSON array of them in ASCII, bytes standing in it as their number and following it as they
are. A line that does not fit its seal is never used.

prompts   the prompts file as pass 1 read it. n: data row from 1. line: physical line. columns: JSON
          object of the cells as they stand. error: why the row is broken, or NULL.
rows      one line per request of the job as it is now, in the file's order (seq). id: the shown
          identity. axes: JSON object. conversation, turn: thread and number from 1, or NULL and 0.
          ident: identity of the outcome: `=` and JSON of [id, axes, turn] with an id column, else
          `#` and the occurrence of the key; or, of a row without an outcome, that of an outcome
          with its key that no row has: one whose identity alone has changed. key: the request's
          key, 32 bytes (scheme in meta.scheme). error: why no request could be made (reason
          `input`), or NULL. tokens, cost, cost_bound: what the call is expected to take, and its
          cost at the worst (NULL: unknown).
outcomes  one line per (ident, key): the answer recorded for it, once. status: succeeded, incomplete
          or failed. passing: the failure says nothing of the row; tries: runs that ended so; from 3
          on it has failed for good. redo: to be asked again, this answer stays until then. lost: a
          picture of it is missing. response: one byte `r` (raw) or `z` (zlib), then the API's JSON
          as it came, pictures replaced by path, sha256, size. columns_digest: of the prompt's
          `columns` when it was asked.
files     pictures that answers own: path below the output folder, sha256, size in bytes, mtime in
          ns.
attempts  one line per call: run, number in that run, http_status, code, reason (NULL: answered),
          tokens, cost (NULL: unknown), seconds waited and elapsed, the batch it was in. reason
          `interrupted`: the process died while the call was in flight.
reserved  calls in flight under a cap on money, at their worst cost; what a dead process left here
          counts as spent.
batches   one line per batch of the Batch API: tag (of its metadata), endpoint, model, how many
          requests it has and about how many tokens they send; file and id as the server names them,
          NULL until that is known; status in the server's words, `made` before; seen: JSON of what
          else the server said last. closed_at: all that it brought is recorded. room: it failed
          because the queue of its model was full, and so many tokens may be in it.
members   one line per request of a batch that is not closed: its line in the batch's file, from 1;
          the row's shown id, axes and columns_digest; outline: JSON of the body as far as an answer
          is read by it; cost: its highest, or NULL.
runs      one line per run: provenance (versions, platform, host, hashes), the job's text, its exit
          code and report.
meta      scheme; `staged`: what the tables prompts and rows were made of (signature, header,
          dialect, ...); `pictures N`: pages of the [path, size, mtime] of the pictures that they
          name. `tables`: how the results and errors tables look that show prompts, rows and
          outcomes as they are; every transaction that may change one of these removes it.

A row of a prompt is answered when outcomes has its (ident, key). Answers under older keys stay:
reverting an edit is free.
"""

from batchgen.journal.attempts import (
    attempts_of,
    call_totals,
    record_attempt,
    reserve_cost,
    spent,
    unpriced_attempts,
)
from batchgen.journal.change import Change, together
from batchgen.journal.counts import RowCounts, count_rows
from batchgen.journal.damage import find_damage
from batchgen.journal.journal import Journal
from batchgen.journal.outcomes import (
    RecordedOutcome,
    all_files,
    answering_models,
    assume_lost,
    files_of,
    last_answer,
    mark_lost,
    mark_redo,
    outcome_of,
    owns_file,
    record_outcome,
    shown_outcome,
    withdraw_failure,
)
from batchgen.journal.rows import (
    Row,
    first_row,
    reread,
    rows_with_id,
    rows_with_outcomes,
    thread_heads,
    turns_of,
)
from batchgen.journal.runs import begin_run, end_run, last_report, last_run
from batchgen.journal.status import STATUSES, WORST_FIRST, Status
from batchgen.journal.writer import Writer

__all__ = [
    "STATUSES",
    "WORST_FIRST",
    "Change",
    "Journal",
    "RecordedOutcome",
    "Row",
    "RowCounts",
    "Status",
    "Writer",
    "all_files",
    "answering_models",
    "assume_lost",
    "attempts_of",
    "begin_run",
    "call_totals",
    "count_rows",
    "end_run",
    "files_of",
    "find_damage",
    "first_row",
    "last_answer",
    "last_report",
    "last_run",
    "mark_lost",
    "mark_redo",
    "outcome_of",
    "owns_file",
    "record_attempt",
    "record_outcome",
    "reread",
    "reserve_cost",
    "rows_with_id",
    "rows_with_outcomes",
    "shown_outcome",
    "spent",
    "thread_heads",
    "together",
    "turns_of",
    "unpriced_attempts",
    "withdraw_failure",
]
