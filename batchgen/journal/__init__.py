"""The journal: SQLite, the only truth of a job. This docstring specifies its format, version 2.

`journal.db` is an SQLite database (application_id 0x62617467, user_version = schema version) in
WAL mode with synchronous FULL. Only the process that holds `.lock` writes; anybody may read at
any time. Times are seconds since 1970 (UTC), money is whole nano-dollars (10^-9 USD), digests
are BLAKE2b of 16 bytes, JSON is canonical (sorted keys, no spaces).

A record is one line of a table. Each has a `seal`: the digest of its other cells in order,
without `seq`. The digest covers a JSON array of them in ASCII, in which bytes stand as their
number, followed by these bytes. A record that does not fit its seal is never used.

prompts   The prompts file as pass 1 read it. n: data row from 1. line: physical line. columns:
          JSON object of the cells, untouched. error: why the row is broken, or NULL.
rows      One record for each request of the job as it is now, in the file's order (seq). id: as
          it is shown. axes: JSON object. conversation, turn: thread and number from 1, or NULL
          and 0. ident: the outcome id, at first the row's own identity. With an id column that is
          `=` and JSON of [id, axes, turn], else `#` and the occurrence of the fingerprint; turns
          without an id column share `@` and JSON of their conversation. See also adopted. key:
          the request's fingerprint, 32 bytes (scheme in meta.scheme). error: why no request
          could be made (reason `input`), or NULL. tokens, cost, cost_bound: what the call is
          expected to take, and its highest cost (NULL: unknown).
outcomes  One record for each (ident, key): the outcome recorded for it. status: succeeded,
          incomplete or failed. passing: the failure says nothing about the row. tries: runs that
          ended in one; after 3 the row has failed for good. redo: 1 if it is to be sent again, 1 +
          n if its correction n is; this answer stays until then. reason of an answer: it was sent
          again, and that failed. message of an answer without a reason: where and why it does not
          fit. lost: a picture of it is missing. response: one byte, `r` (raw) or `z` (zlib), then
          the API's JSON as it came, pictures replaced by path, sha256 and size. columns_digest:
          of the prompt's `columns` when it was asked.
files     Pictures that answers own: path below the output folder, sha256, size in bytes, mtime
          in ns. ident is empty: no answer owns it any more, and a run moves it away.
attempts  One record for each call: run, its number in that run, http_status, code, reason (NULL:
          answered), tokens, cost (NULL: unknown), seconds waited and elapsed, and the batch it
          was in. reason `interrupted`: the process died while the call was in flight.
reserved  Calls in flight under a cap on money, at their highest cost. What a dead process left
          here counts as spent.
batches   One record for each batch of the Batch API: tag (in its metadata), endpoint, model, how
          many requests it has and about how many tokens they send. file, id: as the server names
          them, NULL until known. status: the server's word, `made` before there is one. seen:
          JSON of what else the server reported last. closed_at: all that it answered is
          recorded. room: it failed because the queue of its model was full, and this many tokens
          fit into that queue.
members   One record for each request of a batch that is not closed. line: in the batch's input
          file, from 1. id, axes, columns_digest: the row's. outline: JSON of the part of the
          body by which an answer is read. cost: the highest, or NULL.
follows   One record for each outcome of a later turn: the ident of the turn before (`previous`),
          and the run that recorded the reply which was sent with it.
adopted   One record for each outcome that a row of another identity, `owner`, took over.
runs      One record for each run: provenance (versions, platform, host, hashes), the job's text,
          the exit code and the report.
meta      `scheme`: of the fingerprints. `staged`: what prompts and rows were made of (signature,
          header, dialect, ...). `pictures N`: a page of [path, size, mtime] of the pictures that
          they name. `judged`: a digest of what recorded answers were judged by. `tables`: the
          stamps of results and errors tables that show the journal as it is. Every transaction
          that may change what they show removes it.

A row is answered when outcomes has its (ident, key), after the present reply of the turn before (or
none of a later run). Answers under older fingerprints stay: reverting an edit costs nothing.
Version 1 lacked `follows` and `adopted`. Opened for writing, a journal is brought to this version.
Functions that take a Journal read it, or write outside a run; the Writer commits Changes of a run.
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
from batchgen.journal.corrections import change_outcomes
from batchgen.journal.counts import RowCounts, count_rows
from batchgen.journal.damage import check_before_sending, find_damage
from batchgen.journal.journal import Journal
from batchgen.journal.marks import assume_lost, mark_lost, mark_redo
from batchgen.journal.outcomes import (
    RecordedOutcome,
    answered_between,
    answering_models,
    outcome_of,
    record_outcome,
    withdraw_failure,
)
from batchgen.journal.rows import (
    Row,
    first_row,
    reread,
    rows_with_id,
    rows_with_outcomes,
    thread_heads,
    thread_with_outcomes,
    turns_of,
)
from batchgen.journal.runs import begin_run, end_run, last_report, last_run
from batchgen.journal.scope import WHOLE, Scope, scope_of
from batchgen.journal.search import Wanted, find_threads
from batchgen.journal.shown import shown_outcome
from batchgen.journal.status import STATUSES, WORST_FIRST, Status
from batchgen.journal.writer import Writer

__all__ = [
    "STATUSES",
    "WHOLE",
    "WORST_FIRST",
    "Change",
    "Journal",
    "RecordedOutcome",
    "Row",
    "RowCounts",
    "Scope",
    "Status",
    "Wanted",
    "Writer",
    "answered_between",
    "answering_models",
    "assume_lost",
    "attempts_of",
    "begin_run",
    "call_totals",
    "change_outcomes",
    "check_before_sending",
    "count_rows",
    "end_run",
    "find_damage",
    "find_threads",
    "first_row",
    "highest_overruns",
    "last_report",
    "last_run",
    "mark_lost",
    "mark_redo",
    "outcome_of",
    "record_attempt",
    "record_outcome",
    "reread",
    "reserve_cost",
    "rows_with_id",
    "rows_with_outcomes",
    "scope_of",
    "shown_outcome",
    "spent",
    "thread_heads",
    "thread_with_outcomes",
    "together",
    "turns_of",
    "unpriced_attempts",
    "withdraw_failure",
]
