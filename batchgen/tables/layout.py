"""Which columns the tables of a job have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from batchgen.errors import InputError, Problem, did_you_mean
from batchgen.job import TEXT_KINDS, Job
from batchgen.schemas import may_expect_json
from batchgen.tables.formats import SHEET_ROWS, ColumnType, Picture, Timestamp, Vector, cell

# batchgen's own columns of the results table, with the type of each: before those of
# output.columns, and after them.
LEADING: dict[str, ColumnType] = {"choice": int, "status": str, "output": str}
TRAILING: dict[str, ColumnType] = {
    "messages": object,
    "pictures": object,
    "error": str,
    "finish_reason": str,
    "unwrapped": str,
    "answered_by": str,
    "input_tokens": int,
    "cached_tokens": int,
    "output_tokens": int,
    "reasoning_tokens": int,
    "cost": float,
    "attempts": int,
    "elapsed_s": float,
    "answered_at": Timestamp,
    "request_id": str,
    "run": int,
}
# The type of `output`, where it is not text. Rows that choose their kind may give any.
_OUTPUT_TYPES: dict[str | None, ColumnType] = {
    None: object,
    "embedding": Vector,
    "image": Picture,
    "image_edit": Picture,
}
# Those of the errors table.
ERRORS: dict[str, ColumnType] = {
    "turn": int,
    "status": str,
    "reason": str,
    "http_status": int,
    "code": str,
    "message": str,
    "request_id": str,
    "attempts": int,
    "when": Timestamp,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLayout:
    """The columns of a job's tables and the dialect of its CSVs.

    Attributes:
        inputs: first columns of the results table: those of the prompts, then the axes.
        own: the columns that batchgen adds to the results table, with their types.
        named: first columns of the errors table: the row's id, then the axes.
        errors: the columns that batchgen adds to the errors table, with their types.
        delimiter: separates the cells of a CSV.
        bom: whether a CSV begins with a byte order mark.
        wide: the axis whose values stand side by side, None for none.
        repeated: those of `own` that each value of `wide` has for itself, by their usual names.
        prefix: stands before the name of each of batchgen's own columns.
        safe: whether cells that a spreadsheet would run get an apostrophe.
    """

    inputs: tuple[str, ...]
    own: Mapping[str, ColumnType]
    named: tuple[str, ...]
    errors: Mapping[str, ColumnType]
    delimiter: str
    bom: bool
    wide: str | None
    repeated: tuple[str, ...]
    prefix: str
    safe: bool


def layout_of(
    job: Job, header: Sequence[str], *, delimiter: str = ",", bom: bool = False
) -> TableLayout:
    """The layout of a job's tables; `header`, `delimiter` and `bom` are those of its prompts."""
    output, wide = job.output, job.output.wide
    own = {output.prefix + name: kind for name, kind in _own_columns(job).items()}
    repeated = [name for name in own if name != output.prefix + "choice"] if wide else []
    values = job.matrix[wide] if wide else []
    return TableLayout(
        inputs=(*header, *(axis for axis in job.matrix if axis != wide)),
        own={
            **{name: kind for name, kind in own.items() if name not in repeated},
            **{wide_name(name, value): own[name] for name in repeated for value in values},
        },
        named=(output.prefix + "id", *job.matrix),
        errors={output.prefix + name: kind for name, kind in ERRORS.items()},
        delimiter=output.csv.delimiter or delimiter or ",",
        bom=bom if output.csv.bom is None else output.csv.bom,
        wide=wide,
        repeated=tuple(repeated),
        prefix=output.prefix,
        safe=output.csv.safe,
    )


def wide_name(column: str, value: Any) -> str:
    """The name of a column that stands for one value of the axis `output.wide`."""
    return f"{column}_{cell(value)}"


def _own_columns(job: Job) -> dict[str, ColumnType]:
    """The columns that batchgen adds to a results table that is not wide, without the prefix."""
    absent = set()
    if job.request.get("n", 1) == 1 and not job.rows_choose("n"):
        absent.add("choice")
    if not (job.conversation and job.conversation.turns):
        absent.add("messages")
    if not may_expect_json(job):
        absent.add("unwrapped")
    if not _asks_for_pictures(job):
        absent.add("pictures")
    output = _OUTPUT_TYPES.get(job.kind, str)
    columns = {
        **LEADING,
        "output": output,
        **dict.fromkeys(job.output.columns, object),
        **TRAILING,
    }
    chosen = columns if job.output.columns_of_own is None else job.output.columns_of_own
    return {name: columns[name] for name in chosen if name in columns and name not in absent}


def _asks_for_pictures(job: Job) -> bool:
    """Whether a job of texts asks for pictures, too: by `modalities` of a chat, or by a tool."""
    fields = (job.request.get("modalities"), job.request.get("tools"))
    return job.kind in TEXT_KINDS and "image" in json.dumps(fields)


def conflicts(job: Job, header: Sequence[str]) -> list[Problem]:
    """The columns of which a table would have two: the user's own and one that batchgen adds."""
    columns = layout_of(job, header)
    # The axes stand in the errors table too.
    reserved = {*columns.own, *columns.errors, columns.named[0]}
    prefix = job.output.prefix
    hint = "choose another output.prefix" if prefix else "set output.prefix, such as `prefix: bg_`"
    return [
        *(
            job.problem(
                ("output",), f"the prompts' column {name!r} is also a column of the table; {hint}"
            )
            for name in header
            if name in columns.own
        ),
        *(
            job.problem(
                ("matrix", name),
                f"matrix.{name}: batchgen's tables have a column of this name; "
                f"rename it, or {hint}",
            )
            for name in job.matrix
            if name in reserved
        ),
        *(
            job.problem(
                ("output", "columns", name),
                f"output.columns.{name}: batchgen has a column of this name; rename it",
            )
            for name in job.output.columns
            if name in (*LEADING, *TRAILING)
        ),
        *_unknown_columns(job),
    ]


def _unknown_columns(job: Job) -> Iterator[Problem]:
    """The names in `output.columns_of_own` that no column has."""
    known = (*LEADING, *job.output.columns, *TRAILING)
    for number, name in enumerate(job.output.columns_of_own or ()):
        if name not in known:
            yield job.problem(
                ("output", "columns_of_own", number),
                f"output.columns_of_own: batchgen adds no column {name!r}"
                f"{did_you_mean(name, known)}",
            )


def check_formats(job: Job, formats: Sequence[str]) -> None:
    """Raise InputError when one of these formats needs a package that is not installed."""
    for form, module, extra in (("parquet", "pyarrow", "parquet"), ("xlsx", "xlsxwriter", "excel")):
        if form in formats and find_spec(module) is None:
            message = (
                f"{form} needs {module}; "
                f"install it from the checkout with: pip install '.[{extra}]'"
            )
            raise InputError([job.problem(("output", "tables"), message)])


def check_size(job: Job, lines: int) -> None:
    """Raise InputError when a table's format cannot hold so many lines."""
    if "xlsx" in job.output.tables and lines >= SHEET_ROWS:
        message = (
            f"output.tables: a sheet of Excel has {SHEET_ROWS:,} rows at most, and the results "
            f"table would have {lines + 1:,}; choose another format"
        )
        raise InputError([job.problem(("output", "tables"), message)])
