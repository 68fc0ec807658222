"""The journal -> results and errors tables: CSV, JSONL, Parquet, each written whole.

One pass over the journal makes the records of every table; a record is one line, its cells as Python values. Nothing here
needs the network, so every table can be deleted and made again.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgen.disk import writing
from batchgen.errors import InputError, Problem
from batchgen.journal import Journal, Recorded, Row
from batchgen.journal.schema import LAST_RUN
from batchgen.kinds import KINDS, Answer
from batchgen.pricing import NANO
from batchgen.requests import Renderer, RequestFault
from batchgen.spec import Job

if TYPE_CHECKING:
    import pandas

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

# Rows of one Parquet row group: what is held in memory at once.
GROUP = 1000

_RUNS_IN_A_SPREADSHEET = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?\Z")

Record = dict[str, Any]
Write = Callable[[Record], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the tables of a job look: the prompts' columns, the axes, what is between and after; and the CSV's dialect."""

    inputs: tuple[str, ...]
    own: Mapping[str, type]
    errors: Mapping[str, type]
    generated: frozenset[str]
    delimiter: str
    bom: bool
    prefix: str
    safe: bool


def layout(job: Job, header: Sequence[str], *, delimiter: str = ",", bom: bool = False) -> Layout:
    """The layout of a job's tables over prompts with these columns."""
    absent = {"choice"} if job.request.get("n", 1) == 1 else set()
    # An axis of the same name (as a rule `model`) says it already.
    absent |= set(job.matrix) if not job.output.prefix else set()
    absent |= {"messages"} if not (job.conversation and job.conversation.turns) else set()
    computed = dict.fromkeys(job.output.columns, str)
    columns = {name: kind for name, kind in {**LEADING, **computed, **TRAILING}.items() if name not in absent}
    prefix = job.output.prefix
    inputs = (*header, *job.matrix)
    return Layout(
        inputs=inputs,
        own={prefix + name: kind for name, kind in columns.items()},
        errors={prefix + "id": str, **dict.fromkeys(job.matrix, str), **{prefix + k: v for k, v in ERRORS.items()}},
        generated=frozenset(prefix + name for name in ("output", "messages", *job.output.columns)),
        delimiter=delimiter or ",",
        bom=bom,
        prefix=prefix,
        safe=job.output.csv.safe,
    )


def conflicts(job: Job, header: Sequence[str]) -> list[Problem]:
    """Columns that both the prompts (or the matrix, or output.columns) and batchgen would name alike."""
    look = layout(job, header)
    named = [name for name in look.inputs if name in look.own]
    doubled = [name for name in job.output.columns if name in (*LEADING, *TRAILING)]
    hint = "set output.prefix, for example `prefix: bg_`"
    return [
        *(
            job.problem(("output",), f"the prompts' column {name!r} is also a column of the table; {hint}")
            for name in named
        ),
        *(
            job.problem(
                ("output", "columns", name), f"output.columns.{name}: batchgen has a column of this name; rename it"
            )
            for name in doubled
        ),
    ]


def tables_need(job: Job) -> None:
    """Raise InputError when a table's format needs a package that is not installed."""
    if "parquet" in job.output.tables:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            message = "output.tables: parquet needs pyarrow; install it with: pip install 'batchgen[parquet]'"
            raise InputError([job.problem(("output", "tables"), message)]) from None


class Tables:
    """Makes a job's records from its journal."""

    def __init__(self, job: Job, journal: Journal, renderer: Renderer, look: Layout) -> None:
        self._job, self._journal, self._renderer, self._look = job, journal, renderer, look
        self._kind = KINDS[job.kind]
        self._by_turns = "messages" in {name.removeprefix(look.prefix) for name in look.own}
        self.disarmed = 0

    def results(self) -> Iterator[Record]:
        """One record a line of the results table, in the prompts file's order."""
        for line in self._lines():
            yield from self._result(line)

    def _lines(self) -> Iterator[list[Row]]:
        """The requests of each table line: one, or all turns of a row."""
        rows = self._journal.lines()
        if not self._by_turns:
            return ([row] for row in rows)
        return (list(group) for _, group in groupby(rows, key=lambda row: (row.n, row.axes)))

    def write(self, folder: Path) -> list[Path]:
        """Write every table of the job, whole, and return the results tables' paths."""
        paths = [folder / f"results.{form}" for form in self._job.output.tables]
        with ExitStack() as stack:
            results = [stack.enter_context(self._writer(path, self._columns())) for path in paths]
            errors = [
                stack.enter_context(self._writer(folder / f"errors.{form}", dict(self._look.errors)))
                for form in self._job.output.tables
            ]
            for line in self._lines():
                for record in self._result(line):
                    for write in results:
                        write(record)
                for row in line:
                    if row.status in ("failed", "incomplete"):
                        error = self._error(row)
                        for write in errors:
                            write(error)
        return paths

    def _columns(self) -> dict[str, type]:
        return {**dict.fromkeys(self._look.inputs, str), **self._look.own}

    def _writer(self, path: Path, columns: dict[str, type]) -> AbstractContextManager[Write]:
        if path.suffix == ".csv":
            return _csv_writer(path, list(columns), self._look, self._disarm)
        if path.suffix == ".jsonl":
            return _jsonl_writer(path, list(columns))
        return _parquet_writer(path, columns)

    def _disarm(self, name: str, cell: str) -> str:
        """With output.csv.safe, a cell of the model's that a spreadsheet would run gets an apostrophe."""
        if not self._look.safe or name not in self._look.generated:
            return cell
        if not cell.startswith(_RUNS_IN_A_SPREADSHEET) or _NUMBER.match(cell):
            return cell
        self.disarmed += 1
        return f"'{cell}"

    def _result(self, line: list[Row]) -> Iterator[Record]:
        row = line[-1]
        recorded = [self._shown(each) for each in line]
        last = next((found for found in reversed(recorded) if found is not None), None)
        status = _worst([each.status for each in line])
        own = self._own(line, recorded, last, status)
        inputs = {**{name: row.columns.get(name) for name in self._look.inputs}, **row.axes}
        answer = self._answer(last, row) if last is not None and last.status != "failed" else None
        if answer is None or last is None or status in ("failed", "blocked"):
            yield self._named(inputs, own)
            return
        for number, choice in enumerate(answer.choices, 1):
            cells = self._computed(row, last, choice.text)
            several = {"choice": number} if len(answer.choices) > 1 else {}
            money = dict.fromkeys(_MONEY) if number > 1 else {}
            yield self._named(inputs, {**own, "output": choice.text, **cells, **several, **money})

    def _named(self, inputs: Record, own: Record) -> Record:
        return {**inputs, **{self._look.prefix + name: value for name, value in own.items()}}

    def _shown(self, row: Row) -> Recorded | None:
        """What the table shows of a request: its outcome, or the last answer of an outdated one."""
        recorded = self._journal.recorded(row.ident, row.key)
        return self._journal.last_answer(row.ident) if recorded is None and row.status == "outdated" else recorded

    def _own(self, line: list[Row], recorded: list[Recorded | None], last: Recorded | None, status: str) -> Record:
        own: Record = {"status": status, "error": self._why(line, recorded)}
        if self._by_turns:
            own["messages"] = self._messages(line, recorded)
        if last is None:
            return own
        found = [each for each in recorded if each is not None]
        return {
            **own,
            "finish_reason": last.finish_reason,
            "model": last.model,
            "input_tokens": _sum(each.input_tokens for each in found),
            "cached_tokens": _sum(each.cached_tokens for each in found),
            "output_tokens": _sum(each.output_tokens for each in found),
            "reasoning_tokens": _sum(each.reasoning_tokens for each in found),
            "cost": _dollars(_sum(each.cost for each in found)),
            "attempts": sum(each.attempts for each in found),
            "elapsed_s": round(sum(each.elapsed for each in found), 3),
            "answered_at": _when(last.answered_at),
            "request_id": last.request_id,
            "run": last.run,
        }

    def _why(self, line: list[Row], recorded: list[Recorded | None]) -> str | None:
        for row, found in zip(line, recorded, strict=True):
            if row.error is not None:
                return f"input: {row.error}"
            if found is not None and row.status == "failed":
                return f"{reason_of(found)}: {found.message}"
            if row.status == "incomplete" and found is not None:
                return f"incomplete: {found.finish_reason}"
            if row.status == "blocked":
                return "blocked: an earlier turn of this conversation has not succeeded"
        return None

    def _answer(self, recorded: Recorded, row: Row) -> Answer:
        body = {"n": len(_data(recorded)), "input": self._input(row)} if self._kind.name == "embedding" else {}
        return self._kind.read(json.loads(recorded.response), body)

    def _input(self, row: Row) -> Any:
        return self._request(row).get("input")

    def _request(self, row: Row) -> Mapping[str, Any]:
        try:
            return self._renderer.request(row.columns, row.axes).body
        except RequestFault:
            return {}

    def _computed(self, row: Row, recorded: Recorded, output: str) -> Record:
        if not self._job.output.columns:
            return {}
        response = json.loads(recorded.response)
        return self._renderer.columns({**row.columns, **row.axes}, self._request(row), response, output)

    def _messages(self, line: list[Row], recorded: list[Recorded | None]) -> str | None:
        """The thread as JSON: every turn with the reply to it, as far as it got."""
        column = self._job.conversation.turns if self._job.conversation else None
        messages: list[Mapping[str, Any]] = []
        for row, found in zip(line, recorded, strict=True):
            if found is None or found.status == "failed":
                break
            turn = row.columns[column][row.turn - 1] if column else None
            try:
                given = self._renderer.request(row.columns, row.axes, turn=turn).body["messages"]
            except RequestFault:
                break
            own = [each for each in given if not messages or each.get("role") not in ("system", "developer")]
            messages += [*own, {"role": "assistant", "content": self._answer(found, row).choices[0].text}]
        return json.dumps(messages, ensure_ascii=False) if messages else None

    def _error(self, row: Row) -> Record:
        recorded = self._journal.recorded(row.ident, row.key)
        cells: Record = {"id": row.id, "turn": row.turn or None, "status": row.status, "reason": "input"}
        if recorded is not None:
            failed = row.status == "failed"
            cells |= {
                "reason": reason_of(recorded) if failed else recorded.finish_reason,
                "http_status": recorded.http_status,
                "code": recorded.code,
                "message": recorded.message,
                "request_id": recorded.request_id,
                "attempts": recorded.attempts,
                "when": _when(recorded.answered_at),
            }
        else:
            cells["message"] = row.error
        return {**row.axes, **{self._look.prefix + name: value for name, value in cells.items()}}


def reason_of(recorded: Recorded) -> str:
    """Why a row failed: its reason, or gave_up after the last run that tried it again."""
    return "gave_up" if recorded.passing and recorded.tries >= LAST_RUN else str(recorded.reason)


def _worst(statuses: Sequence[str]) -> str:
    order = ("failed", "incomplete", "pending", "outdated", "blocked", "succeeded")
    return min(statuses, key=order.index)


def _data(recorded: Recorded) -> list[Any]:
    data = json.loads(recorded.response).get("data")
    return data if isinstance(data, list) else []


def _sum(values: Iterator[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _dollars(nano: int | None) -> float | None:
    return None if nano is None else nano / NANO


def _when(at: float) -> str | None:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else None


def cell(value: Any) -> str:
    """A value as a cell of text: text as it stands, nothing for None, JSON's own words for the rest."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.9f}".rstrip("0") if 0 < abs(value) < 1e-3 else repr(value)
    return json.dumps(value, ensure_ascii=False)


def encodable(text: str) -> str:
    """The text with lone surrogates, which no UTF-8 file can hold, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@contextmanager
def _csv_writer(path: Path, columns: list[str], look: Layout, disarm: Callable[[str, str], str]) -> Iterator[Write]:
    with writing(path, encoding="utf-8-sig" if look.bom else "utf-8") as file:
        plain = csv.writer(file, delimiter=look.delimiter, lineterminator="\n")
        # Python's writer leaves a lone CR unquoted, and readers take it for a line's end.
        quoted = csv.writer(file, delimiter=look.delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

        def write(record: Record) -> None:
            cells = [disarm(name, encodable(cell(record.get(name)))) for name in columns]
            (quoted if any("\r" in each for each in cells) else plain).writerow(cells)

        plain.writerow(columns)
        yield write


@contextmanager
def _jsonl_writer(path: Path, columns: list[str]) -> Iterator[Write]:
    with writing(path) as file:

        def write(record: Record) -> None:
            file.write(_json_line({name: record.get(name) for name in columns}))

        yield write


def _json_line(record: Record) -> str:
    text = json.dumps(record, ensure_ascii=False)
    # JSON's escapes hold what UTF-8 cannot.
    return (text if encodable(text) == text else json.dumps(record)) + "\n"


@contextmanager
def _parquet_writer(path: Path, columns: dict[str, type]) -> Iterator[Write]:
    import pyarrow
    from pyarrow import parquet

    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])

    def flush(writer: Any, records: list[Record]) -> None:
        arrays = [[_typed(record.get(name), kind) for record in records] for name, kind in columns.items()]
        writer.write_batch(
            pyarrow.record_batch([pyarrow.array(a, f.type) for a, f in zip(arrays, schema, strict=True)], schema=schema)
        )
        records.clear()

    with writing(path, binary=True) as file, parquet.ParquetWriter(file, schema) as writer:
        pending: list[Record] = []

        def write(record: Record) -> None:
            pending.append(record)
            if len(pending) >= GROUP:
                flush(writer, pending)

        yield write
        flush(writer, pending)


def _typed(value: Any, kind: type) -> Any:
    return encodable(cell(value)) if kind is str and value is not None else value


def frame(records: Iterator[Record], columns: Sequence[str]) -> pandas.DataFrame:
    """The records as a pandas DataFrame; the prompts' cells as they stand, nothing guessed."""
    import pandas

    return pandas.DataFrame(list(records), columns=list(columns), dtype=object)
