"""The journal -> results and errors tables: CSV, JSONL, Parquet or the Batch API's files, each written whole.

One pass over the journal makes the records of every table; a record is one line, its cells as Python values. Nothing here
needs the network, so every table can be deleted and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from batchgen.disk import FileStamp, file_stamp
from batchgen.errors import InputError, Problem
from batchgen.job import REQUESTS, Job
from batchgen.journal import (
    Journal,
    RecordedOutcome,
    Row,
    Status,
    rows_with_outcomes,
    shown_outcome,
)
from batchgen.journal.records import digest_of
from batchgen.journal.status import LAST_RUN, WORST_FIRST
from batchgen.kinds import KINDS
from batchgen.pricing import dollars
from batchgen.recorder import render_row
from batchgen.replies import Answer, UnreadableReplyError
from batchgen.requests import Renderer, RequestError, canonical, own_messages
from batchgen.tables.batchfiles import answer_of, batch_writer, custom_id, failure_of
from batchgen.tables.formats import (
    Note,
    Record,
    Write,
    WriteResult,
    csv_writer,
    frame,
    jsonl_writer,
    parquet_writer,
)

__all__ = [
    "LEADING",
    "TRAILING",
    "TableLayout",
    "Tables",
    "check_formats",
    "conflicts",
    "frame",
    "layout",
    "reason_of",
]

# batchgen's own columns: before and after those of output.columns, with the Parquet type of each.
LEADING = {"choice": int, "status": str, "output": str}
TRAILING = {
    "messages": str,
    "error": str,
    "finish_reason": str,
    "model": str,
    "input_tokens": int,
    "cached_tokens": int,
    "output_tokens": int,
    "reasoning_tokens": int,
    "cost": float,
    "attempts": int,
    "elapsed_s": float,
    "answered_at": str,
    "request_id": str,
    "run": int,
}
ERRORS = {
    "turn": int,
    "status": str,
    "reason": str,
    "http_status": int,
    "code": str,
    "message": str,
    "request_id": str,
    "attempts": int,
    "when": str,
}
_MONEY = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost")

# What a table's name ends in where that is not its format.
_ENDINGS = {REQUESTS: "batch.jsonl"}

_RUNS_IN_A_SPREADSHEET = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLayout:
    """How the tables of a job look. Of the results `inputs` (the prompts' columns and the axes) come first, of the errors
    `named` (the row's id and the axes); what batchgen adds to either follows (`own`, `errors`). Then the CSV's dialect."""

    inputs: tuple[str, ...]
    own: Mapping[str, type]
    named: tuple[str, ...]
    errors: Mapping[str, type]
    delimiter: str
    bom: bool
    prefix: str
    safe: bool


def layout(
    job: Job, header: Sequence[str], *, delimiter: str = ",", bom: bool = False
) -> TableLayout:
    """The layout of a job's tables over prompts with these columns."""
    absent = {"choice"} if job.request.get("n", 1) == 1 and not job.rows_choose("n") else set()
    # An axis that chooses the model says it already, in the words of the job.
    absent |= {"model"} & set(job.matrix) if not job.output.prefix else set()
    absent |= {"messages"} if not (job.conversation and job.conversation.turns) else set()
    computed = dict.fromkeys(job.output.columns, str)
    columns = {
        name: kind
        for name, kind in {**LEADING, **computed, **TRAILING}.items()
        if name not in absent
    }
    prefix = job.output.prefix
    return TableLayout(
        inputs=(*header, *job.matrix),
        own={prefix + name: kind for name, kind in columns.items()},
        named=(prefix + "id", *job.matrix),
        errors={prefix + name: kind for name, kind in ERRORS.items()},
        delimiter=delimiter or ",",
        bom=bom,
        prefix=prefix,
        safe=job.output.csv.safe,
    )


def conflicts(job: Job, header: Sequence[str]) -> list[Problem]:
    """Columns that both the prompts (or the matrix, or output.columns) and batchgen would name alike."""
    look = layout(job, header)
    named = [name for name in header if name in look.own]
    # The axes stand in the errors table too.
    crossed = [
        name for name in job.matrix if name in {**look.own, **look.errors} or name == look.named[0]
    ]
    doubled = [name for name in job.output.columns if name in (*LEADING, *TRAILING)]
    hint = "set output.prefix, for example `prefix: bg_`"
    return [
        *(
            job.problem(
                ("output",), f"the prompts' column {name!r} is also a column of the table; {hint}"
            )
            for name in named
        ),
        *(
            job.problem(
                ("matrix", name),
                f"matrix.{name}: batchgen's tables have a column of this name; rename it, or {hint}",
            )
            for name in crossed
        ),
        *(
            job.problem(
                ("output", "columns", name),
                f"output.columns.{name}: batchgen has a column of this name; rename it",
            )
            for name in doubled
        ),
    ]


def check_formats(job: Job) -> None:
    """Raise InputError when a table's format needs a package that is not installed."""
    if "parquet" in job.output.tables:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            message = "output.tables: parquet needs pyarrow; install it with: pip install 'batchgen[parquet]'"
            raise InputError([job.problem(("output", "tables"), message)]) from None


def _code() -> str:
    found = hashlib.blake2b(
        canonical([version("batchgen"), version("jinja2")]).encode(), digest_size=16
    )
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


# A digest of batchgen itself: another version, or one that somebody is at work on, may make other tables. Taken as it is
# loaded; it may be replaced while a run goes on for hours.
_CODE = _code()

# What a table line stands for: one request, or all turns of a row, each with its outcome.
Line = list[tuple[Row, RecordedOutcome | None]]


class Tables:
    """Makes a job's records from its journal."""

    def __init__(self, job: Job, journal: Journal, renderer: Renderer, look: TableLayout) -> None:
        self._job, self._journal, self._renderer, self._look = job, journal, renderer, look
        self._by_turns = job.conversation is not None and job.conversation.turns is not None
        self.disarmed = 0
        self._files: dict[str, FileStamp] = {}

    def results(self) -> Iterator[Record]:
        """One record a line of the results table, in the prompts file's order."""
        for line in self._lines():
            yield from self._result(line)

    def _lines(self) -> Iterator[Line]:
        found = rows_with_outcomes(self._journal)
        if not self._by_turns:
            return ([each] for each in found)
        return (
            list(group) for _, group in groupby(found, key=lambda each: (each[0].n, each[0].axes))
        )

    def are_in(self, folder: Path) -> bool:
        """Whether the folder's tables are what would be written: the journal knows them (`known`), and each file is still
        what was written. An edit that leaves both its size and its mtime is not seen."""
        kept = self._journal.meta("tables")
        if (
            kept is None
            or kept["recipe"] != self._recipe()
            or not _are_there(folder, kept["files"])
        ):
            return False
        self.disarmed, self._files = kept["disarmed"], kept["files"]
        return True

    @property
    def known(self) -> dict[str, Any] | None:
        """What the journal is to keep, until it changes, of the tables that were written or found: what they were made of
        beside it, how each file looks, and how many cells were disarmed. None where that cannot be told."""
        recipe = self._recipe()
        return (
            {"recipe": recipe, "files": self._files, "disarmed": self.disarmed}
            if recipe and self._files
            else None
        )

    def _recipe(self) -> str | None:
        """A digest of everything that tables are made of, the journal excepted; None where that cannot be told."""
        columns = self._renderer.columns_signature()
        if columns is None:
            return None
        return digest_of(
            canonical([_CODE, columns, self._job.output.model_dump(), repr(self._look)])
        ).hex()

    def paths(self, folder: Path, which: str = "results") -> list[Path]:
        """Where the results tables are, or the errors tables."""
        if self._job.together is not None:
            return [self._job.together] if which == "results" else []
        return [folder / _name(which, form) for form in self._job.output.tables]

    def _note(self, folder: Path, path: Path, look: FileStamp) -> None:
        self._files[os.path.relpath(path, folder)] = look

    def write(self, folder: Path) -> list[Path]:
        """Write every table of the job, whole, and return the results tables' paths."""
        look = self._look
        note = partial(self._note, folder)
        with ExitStack() as stack:
            forms = [
                form
                for form in self._job.output.tables
                if form != REQUESTS and self._job.together is None
            ]
            results, errors = (
                [
                    stack.enter_context(self._writer(folder / _name(which, form), form, *of, note))
                    for form in forms
                ]
                for which, of in (
                    ("results", (look.inputs, look.own)),
                    ("errors", (look.named, look.errors)),
                )
            )
            answers, failures = self._batch_writers(folder, stack, note)
            for line in self._lines():
                for record in self._result(line) if results else ():
                    for write in results:
                        write(record)
                for row, recorded in line:
                    if errors and row.status in ("failed", "incomplete"):
                        error = self._error(row, recorded)
                        for write in errors:
                            write(error)
                    if answers and failures:
                        self._tell(row, recorded, folder, answers, failures)
        return self.paths(folder)

    def _batch_writers(
        self, folder: Path, stack: ExitStack, note: Note
    ) -> tuple[WriteResult, WriteResult] | tuple[None, None]:
        """What writes the answers and the failures as the Batch API's files have them: one file, two, or none."""
        if self._job.together is not None:
            one = stack.enter_context(batch_writer(self._job.together, note=note))
            return one, one
        if REQUESTS not in self._job.output.tables:
            return None, None
        answers, failures = (
            stack.enter_context(batch_writer(folder / _name(which, REQUESTS), note=note))
            for which in ("results", "errors")
        )
        return answers, failures

    def _tell(
        self,
        row: Row,
        recorded: RecordedOutcome | None,
        folder: Path,
        answers: WriteResult,
        failures: WriteResult,
    ) -> None:
        """Write what became of a request, if it has ended."""
        name = custom_id(self._job, row)
        if row.status == "failed":
            failures(
                row.seq,
                failure_of(name, row, recorded, reason_of(recorded) if recorded else "input"),
            )
        elif row.status in ("succeeded", "incomplete") and recorded is not None:
            answer = answer_of(name, row, recorded, self._renderer, folder)
            if answer is not None:
                answers(row.seq, answer)

    def _writer(
        self, path: Path, form: str, given: Sequence[str], own: Mapping[str, type], note: Note
    ) -> AbstractContextManager[Write]:
        """A table's writer: the columns as `given` come first, and never change; batchgen's `own` follow."""
        look, columns = self._look, {**dict.fromkeys(given, str), **own}
        if form == "csv":
            # Text of batchgen's own columns is what a model or a server wrote, or made of it.
            texts = frozenset(name for name, kind in own.items() if kind is str)
            disarm = partial(self._disarm, texts) if look.safe else None
            return csv_writer(
                path,
                list(columns),
                delimiter=look.delimiter,
                bom=look.bom,
                disarm=disarm,
                note=note,
            )
        if form == "jsonl":
            return jsonl_writer(path, list(columns), note=note)
        return parquet_writer(path, columns, note=note)

    def _disarm(self, texts: Collection[str], name: str, cell: str) -> str:
        """A cell of one of these columns that a spreadsheet would run gets an apostrophe."""
        if name not in texts or not cell.startswith(_RUNS_IN_A_SPREADSHEET) or _NUMBER.match(cell):
            return cell
        self.disarmed += 1
        return f"'{cell}"

    def _result(self, line: Line) -> Iterator[Record]:
        shown = [(row, shown_outcome(self._journal, row, recorded)) for row, recorded in line]
        row, status = line[-1][0], _worst([each.status for each, _ in line])
        last = next((found for _, found in reversed(shown) if found is not None), None)
        inputs = {**{name: row.columns.get(name) for name in self._look.inputs}, **row.axes}
        own = self._own(shown, last, status)
        if last is None or last.status == "failed" or status in ("failed", "blocked"):
            yield self._named(inputs, own)
            return
        response = json.loads(last.response)
        answer = self._answer(row, response)
        if answer is None:
            yield self._named(inputs, own)
            return
        for number, choice in enumerate(answer.choices, 1):
            cells = self._computed(row, response, choice.text)
            several = {"choice": number} if len(answer.choices) > 1 else {}
            money = dict.fromkeys(_MONEY) if number > 1 else {}
            yield self._named(inputs, {**own, "output": choice.text, **cells, **several, **money})

    def _named(self, inputs: Record, own: Record) -> Record:
        prefix = self._look.prefix
        if prefix:
            own = {prefix + name: value for name, value in own.items()}
        # Where both have a name, it is the axis that stands: layout and conflicts leave no other case.
        return {**own, **inputs}

    def _own(self, shown: Line, last: RecordedOutcome | None, status: str) -> Record:
        own: Record = {"status": status, "error": _why(shown)}
        if self._by_turns:
            own["messages"] = self._messages(shown)
        if last is None:
            return own
        whole = _whole([each for _, each in shown if each is not None])
        return {
            **own,
            "finish_reason": last.finish_reason,
            "model": last.model,
            "input_tokens": whole.input_tokens,
            "cached_tokens": whole.cached_tokens,
            "output_tokens": whole.output_tokens,
            "reasoning_tokens": whole.reasoning_tokens,
            "cost": dollars(whole.cost),
            "attempts": whole.attempts,
            "elapsed_s": round(whole.elapsed, 3),
            "answered_at": _when(int(last.answered_at)),
            "request_id": last.request_id,
            "run": last.run,
        }

    def _answer(self, row: Row, response: Mapping[str, Any]) -> Answer | None:
        """A recorded answer as the kind of its row's request reads it, or as whichever kind does: it may be another since.
        None where none can."""
        data = response.get("data")
        # What was recorded has an answer to every input: as many embeddings as were asked for.
        body = {"input": [""] * len(data)} if isinstance(data, list) else {}
        own = self._renderer.kind_of(row.columns)
        for kind in (*([own] if own else []), *KINDS.values()):
            with suppress(UnreadableReplyError):
                return kind.read(response, body)
        return None

    def _computed(self, row: Row, response: Mapping[str, Any], output: str) -> Record:
        if not self._job.output.columns:
            return {}
        try:
            request = render_row(self._job, self._renderer, row).body
        except RequestError:
            request = {}
        return self._renderer.columns({**row.columns, **row.axes}, request, response, output)

    def _messages(self, shown: Line) -> str | None:
        """The thread as JSON: every turn with the reply to it, as far as it got."""
        messages: list[Mapping[str, Any]] = []
        for row, found in shown:
            if found is None or found.status == "failed":
                break
            try:
                given = render_row(self._job, self._renderer, row).body["messages"]
            except RequestError:
                break
            answer = self._answer(row, json.loads(found.response))
            if answer is None:
                break
            reply = {"role": "assistant", "content": answer.choices[0].text}
            messages += [*(own_messages(given) if messages else given), reply]
        return json.dumps(messages, ensure_ascii=False) if messages else None

    def _error(self, row: Row, recorded: RecordedOutcome | None) -> Record:
        cells: Record = {
            "id": row.id,
            "turn": row.turn or None,
            "status": row.status,
            "reason": "input",
        }
        if recorded is not None:
            failed = row.status == "failed"
            cells |= {
                "reason": reason_of(recorded) if failed else recorded.finish_reason,
                "http_status": recorded.http_status,
                "code": recorded.code,
                "message": recorded.message,
                "request_id": recorded.request_id,
                "attempts": recorded.attempts,
                "when": _when(int(recorded.answered_at)),
            }
        else:
            cells["message"] = row.error
        return {**row.axes, **{self._look.prefix + name: value for name, value in cells.items()}}


def _name(which: str, form: str) -> str:
    return f"{which}.{_ENDINGS.get(form, form)}"


def _are_there(folder: Path, files: Mapping[str, Sequence[int]]) -> bool:
    """Whether each of these files of a folder looks as it did."""
    return all(file_stamp(folder / name) == tuple(look) for name, look in files.items())


def _why(shown: Line) -> str | None:
    """Why a table line has no answer, or not a whole one."""
    for row, found in shown:
        if row.error is not None:
            return f"input: {row.error}"
        if found is not None and row.status == "failed":
            return f"{reason_of(found)}: {found.message}"
        if found is not None and row.status == "incomplete":
            return f"incomplete: {found.finish_reason}"
        if row.status == "blocked":
            return "blocked: an earlier turn of this conversation has not succeeded"
    return None


def reason_of(recorded: RecordedOutcome) -> str:
    """Why a row failed: its reason, or gave_up after the last run that tried it again."""
    return "gave_up" if recorded.passing and recorded.tries >= LAST_RUN else str(recorded.reason)


def _worst(statuses: Sequence[Status]) -> Status:
    return min(statuses, key=WORST_FIRST.index)


def _whole(found: list[RecordedOutcome]) -> RecordedOutcome:
    """What all turns of a line took together, in the place of the last one's."""
    if len(found) == 1:
        return found[0]
    amounts = (
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cost",
        "attempts",
        "elapsed",
    )
    return found[-1]._replace(
        **{name: _sum(getattr(each, name) for each in found) for name in amounts}
    )


def _sum(values: Iterator[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


# Thousands of answers come in one second, and the clock's face is slow to draw.
@lru_cache(maxsize=1024)
def _when(at: int) -> str | None:
    """A second since 1970 as people and spreadsheets read it; None for 0."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else None
