"""What was found in a prompts file, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from batchgen.errors import listed
from batchgen.init.doubts import doubts
from batchgen.init.layout import Layout
from batchgen.init.shape import Shape
from batchgen.init.survey import Survey
from batchgen.prompts.formats import BINARY

_FORMATS = {"openai-batch": "JSONL", "txt": "text, a prompt on each line"}
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "TABs", "|": "bars"}
_NO_ID = (
    "none: no column that looks like names is filled and different in every row. Without one a row "
    "is known by its content: after an edit it is a new row, and its old answer leaves the table. "
    "--id COLUMN names one"
)
_WIDTH = 84


def findings(
    layout: Layout,
    shape: Shape,
    *,
    id_column: str | None,
    proof: Sequence[str],
    left_out: int,
    prefix: str | None,
    capped: bool,
) -> Iterator[str]:
    """The lines that say what was found and why.

    Args:
        layout: the file, and how it is read.
        shape: what its rows are.
        id_column: names the rows.
        proof: words that show whether a guessed encoding is right; none where none was guessed.
        left_out: rows with an empty prompt.
        prefix: of batchgen's own columns.
        capped: whether the job has a cap on its cost.
    """
    survey, options = layout.survey, layout.options
    yield f"{survey.path}: {_summary(survey)}"
    if sheets := survey.dialect.sheets:
        yield _line("sheet", f"{sheets[0]}, the first of {listed(sheets)}; --sheet names another")
    for name, text in layout.notes:
        yield _line(name, text)
    if proof:
        words = " and ".join(f'"{word}"' for word in proof)
        yield _line("encoding", f"{options.encoding}, a guess: it reads {words}. Wrong? --encoding")
    if not shape.requests:
        yield from _identity(id_column, by_user=options.id is not None)
    yield _line("prompt", shape.found)
    if left_out:
        yield _line("left out", f"{left_out:,} of {survey.rows:,} rows, whose prompt is empty")
    if shape.passed:
        yield _line("passed on", ", ".join(shape.passed))
    if not shape.requests and (unused := _unused(survey, shape, id_column)):
        yield _line("not used", listed(unused))
    if prefix is not None:
        yield _line("prefix", f"{prefix}, because a column of the file has one of batchgen's names")
    if not capped:
        yield _line("no cap", "on the cost: no price is known for this server's model")
    for sentence in doubts(survey, shape, options):
        yield _line("not sure", sentence)


def _line(name: str, text: str) -> str:
    """A finding under its name; a long text goes on below itself."""
    lines = wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
    labels = [name, *[""] * (len(lines) - 1)]
    return "\n".join(f"  {label:10}{line}" for label, line in zip(labels, lines, strict=True))


def _summary(survey: Survey) -> str:
    dialect = survey.dialect
    name = _FORMATS.get(dialect.format, dialect.format.upper())
    cells = ""
    if dialect.format == "csv" and dialect.delimiter:
        cells = f" with {_DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))}"
    rows = "1 row" if survey.rows == 1 else f"{survey.rows:,} rows"
    if dialect.format in BINARY:
        return f"{rows} of {name}"
    encoding = dialect.encoding.upper() if dialect.encoding == "utf-8" else dialect.encoding
    return f"{rows} of {name}{cells}, {encoding}"


def _identity(id_column: str | None, *, by_user: bool) -> Iterator[str]:
    if id_column is None:
        yield _line("id", _NO_ID)
    else:
        why = "as you said" if by_user else "filled and different in every row"
        yield _line("id", f"{id_column}, {why}")


def _unused(survey: Survey, shape: Shape, id_column: str | None) -> list[str]:
    used = {*shape.columns, *shape.passed, id_column, shape.system}
    used.add(shape.picture.name if shape.picture else None)
    return [name for name in survey.columns if name not in used]
