"""Which columns the tables of a job have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchgen.errors import InputError, Problem
from batchgen.job import Job

# batchgen's own columns of the results table, with the Parquet type of each: before those of
# output.columns, and after them.
LEADING = {"choice": int, "status": str, "output": str}
TRAILING = {
    "messages": str,
    "error": str,
    "finish_reason": str,
    "answered_by": str,
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
# Those of the errors table.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLayout:
    """The columns of a job's tables and the dialect of its CSVs.

    Attributes:
        inputs: first columns of the results table: those of the prompts, then the axes.
        own: the columns that batchgen adds to the results table, with their Parquet types.
        named: first columns of the errors table: the row's id, then the axes.
        errors: the columns that batchgen adds to the errors table, with their Parquet types.
        delimiter: separates the cells of a CSV.
        bom: whether a CSV begins with a byte order mark.
        prefix: stands before the name of each of batchgen's own columns.
        safe: whether cells that a spreadsheet would run get an apostrophe.
    """

    inputs: tuple[str, ...]
    own: Mapping[str, type]
    named: tuple[str, ...]
    errors: Mapping[str, type]
    delimiter: str
    bom: bool
    prefix: str
    safe: bool


def layout_of(
    job: Job, header: Sequence[str], *, delimiter: str = ",", bom: bool = False
) -> TableLayout:
    """The layout of a job's tables; `header`, `delimiter` and `bom` are those of its prompts."""
    absent = set()
    if job.request.get("n", 1) == 1 and not job.rows_choose("n"):
        absent.add("choice")
    if not (job.conversation and job.conversation.turns):
        absent.add("messages")
    computed = dict.fromkeys(job.output.columns, str)
    columns = {**LEADING, **computed, **TRAILING}
    prefix = job.output.prefix
    return TableLayout(
        inputs=(*header, *job.matrix),
        own={prefix + name: kind for name, kind in columns.items() if name not in absent},
        named=(prefix + "id", *job.matrix),
        errors={prefix + name: kind for name, kind in ERRORS.items()},
        delimiter=delimiter or ",",
        bom=bom,
        prefix=prefix,
        safe=job.output.csv.safe,
    )


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
    ]


def check_formats(job: Job) -> None:
    """Raise InputError when a table's format needs a package that is not installed."""
    if "parquet" in job.output.tables:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            message = (
                "output.tables: parquet needs pyarrow; "
                "install it from the checkout with: pip install '.[parquet]'"
            )
            raise InputError([job.problem(("output", "tables"), message)]) from None
