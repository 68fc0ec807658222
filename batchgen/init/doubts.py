"""What `init` is not sure of."""

from __future__ import annotations

import re
from collections.abc import Iterator

from batchgen.errors import listed
from batchgen.init.names import expression
from batchgen.init.options import InitOptions
from batchgen.init.shape import Shape
from batchgen.init.survey import Survey

# A name that looks like a cell: a number, an address, a template, a sentence.
_DATA = re.compile(r"[+-]?\d[\d.,]*|https?://\S+|\S+@\S+\.\S+|.*\{\{.*|.*\S\s\S.*[.!]|.{120,}")
# A column that is shown on a line of its own is said to be sparse below this part of the rows.
_SPARSE = 0.8


def doubts(survey: Survey, shape: Shape, options: InitOptions) -> Iterator[str]:
    """Sentences, each about what may be wrong and what to do about it."""
    yield from shape.unsure
    header = survey.dialect.header or ()
    if options.table.duplicate_headers == "number":
        yield "the header has a name more than once; the second is numbered (name_2)"
    if survey.dialect.format in ("csv", "tsv") and options.table.header is None:
        data = [name for name in header if _DATA.fullmatch(name)]
        if data:
            yield (
                f"the first line looks like a row and not like a header ('{data[0][:40]}'); "
                "--no-header for a file without one"
            )
        if len(header) == 1 and (mark := re.search(r"[,;|\t]", header[0])):
            option = "--delimiter" if survey.dialect.format == "csv" else "--format csv"
            yield f"there is one column, and its name has {mark[0]!r} in it: is {option} needed?"
    if shape.messages is None and not (shape.turns or shape.requests):
        for name in shape.columns:
            kinds = survey.columns[name].kinds
            if kinds["objects"] or kinds["object"] or kinds["texts"]:
                yield f"{name} holds lists or objects, which are shown as JSON"
        sparse = [
            name
            for name in shape.columns
            if survey.columns[name].filled < _SPARSE * survey.rows
            and f"{name} where" not in shape.found
        ]
        if len(shape.columns) > 1 and sparse:
            empty = survey.rows - survey.columns[sparse[0]].filled
            yield (
                f"{listed(sparse)} may be empty ({sparse[0]} is, in {empty:,} of {survey.rows:,} "
                "rows); to leave such rows out, write below prompts: "
                f"where: {expression(sparse[0])}"
            )
