"""How a file is written where its name does not show it: where its header is, and what else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from batchgen.errors import InputError
from batchgen.init.options import InitOptions
from batchgen.init.survey import Survey, survey
from batchgen.prompts import PromptsFile, open_prompts

# The lines above a header that are searched, and the rows below it that must fit it.
_MOST_ABOVE = 12
_CHECKED = 50
_NAME = re.compile(r"[a-z][\w-]*", re.IGNORECASE)
_LONGEST_HEADER = 120
# What Qualtrics writes on the second line below its header, and SurveyMonkey on the first.
_QUALTRICS = re.compile(r"""\s*\{\s*["']ImportId["']\s*:""")
_SURVEY_MONKEY = ("Response", "Open-Ended Response")
# One of the names of Amazon's own that stand below those for people.
_AMAZON = "item_sku"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A file, and how it is read.

    survey: what it holds.
    options: what the user said, and what was found out to read it.
    notes: what was found out, each with the name of the finding and a sentence.
    """

    survey: Survey
    options: InitOptions
    notes: tuple[tuple[str, str], ...] = ()


def layout_of(prompts: Path, options: InitOptions) -> Layout:
    """Read the file, in another way than its name says where it can only be read so.

    Raises InputError with what is wrong when it is read as its name says.
    """
    layout, refusal = None, None
    try:
        layout = _read(prompts, options)
    except InputError as error:
        refusal = error
    if layout is None or _is_uncut(layout.survey):
        for refined, note in _other_ways(prompts, options, str(refusal or "")):
            with suppress(InputError):
                layout = _read(prompts, refined, note)
                break
    if layout is None:
        raise refusal or AssertionError
    if options.table.skip_rows == 0 and (extra := _extra_headers(layout.survey)):
        rows, whose = extra
        below = "1 row below it is" if rows == 1 else f"{rows} rows below it are"
        note = ("header", f"{below} left out, because {whose} writes more headers there")
        table = replace(layout.options.table, skip_rows=rows)
        more = _read(prompts, replace(layout.options, table=table), note)
        return replace(more, notes=(*layout.notes, *more.notes))
    return layout


def _read(prompts: Path, options: InitOptions, note: tuple[str, str] | None = None) -> Layout:
    found = survey(prompts, partial(opened, prompts, options))
    return Layout(survey=found, options=options, notes=(note,) if note else ())


def _is_uncut(found: Survey) -> bool:
    """Whether there is one column, and its rows may be cut into more: below a title, perhaps."""
    if found.dialect.format != "csv" or len(found.columns) != 1:
        return False
    cells = (str(cell) for row in islice(found, _CHECKED) for cell in row.values())
    return any(mark in cell for cell in cells for mark in ";\t|")


def opened(prompts: Path, options: InitOptions) -> PromptsFile:
    """The file, open. Raises InputError."""
    return open_prompts(
        prompts,
        display_name=str(prompts),
        format=options.format,
        encoding=options.encoding,
        table=options.table,
    )


def _other_ways(
    prompts: Path, options: InitOptions, refusal: str
) -> Iterator[tuple[InitOptions, tuple[str, str] | None]]:
    """Ways to read a file that was refused, each with what it means, the likeliest first."""
    if "prompts.format: json" in refusal and options.format is None:
        yield (
            replace(options, format="json"),
            ("format", "json: the file is one document, whatever its name says"),
        )
        return
    numbered = replace(options, table=replace(options.table, duplicate_headers="number"))
    if "duplicate_headers" in refusal:
        # A job can use columns of one name only so.
        yield numbered, None
    if options.table.skip_lines or options.table.header is not None:
        return
    if "has no name in the header" in refusal and (two := _two_headers(prompts, options)):
        table = replace(options.table, header=two.names, skip_lines=two.lines)
        yield (
            replace(options, table=table),
            ("header", "made of the first two rows, as SurveyMonkey writes them"),
        )
    for base in (options, numbered):
        if above := _lines_above(prompts, base):
            table = replace(base.table, skip_lines=above)
            lines = "line, which is" if above == 1 else f"{above} lines, which are"
            yield (
                replace(base, table=table),
                ("header", f"below the first {lines} no part of the table and left out"),
            )


def _lines_above(prompts: Path, options: InitOptions) -> int:
    """How many lines stand above the header, where they are narrower than the table; else 0."""
    widest, first = 0, ""
    for above in range(_MOST_ABOVE + 1):
        table = replace(options.table, skip_lines=above)
        try:
            with opened(prompts, replace(options, table=table)) as file:
                if file.dialect.format in ("json", "jsonl", "txt", "parquet", "openai-batch"):
                    return 0
                header = file.dialect.header or ()
                if above and len(header) > max(widest, 1) and _fits(file, header):
                    # Texts with commas that lack their quotes are no table below a title.
                    alone = above == 1 and _NAME.fullmatch(first) and len(header) == 2
                    return 0 if alone and file.dialect.format in ("csv", "tsv") else above
        except InputError:
            continue
        widest = max(widest, len(header))
        first = first or (header[0] if header else "")
    return 0


def _fits(file: PromptsFile, header: Sequence[str]) -> bool:
    """Whether a line is the header of the rows below it, and not a row or a sentence itself."""
    if any(len(name) > _LONGEST_HEADER or re.fullmatch(r"[\d.,:/ -]+", name) for name in header):
        return False
    try:
        rows = [prompt.columns for prompt in islice(file, _CHECKED)]
    except InputError:
        return False
    # A comma in a sentence has a space after it.
    cut = any(
        isinstance(cell, str) and cell.startswith(" ")
        for row in rows
        for cell in list(row.values())[1:]
    )
    return bool(rows) and not file.problems and not cut


def _extra_headers(found: Survey) -> tuple[int, str] | None:
    """How many rows below the header are headers too, and of which program."""
    for number, row in enumerate(islice(found, 3), start=1):
        cells = [cell for cell in row.values() if isinstance(cell, str) and cell.strip()]
        if cells and all(map(_QUALTRICS.match, cells)):
            return number, "Qualtrics"
        if number == 1 and _is_survey_monkey(row, cells):
            return number, "SurveyMonkey"
        if number == 1 and _AMAZON in cells:
            return number, "Amazon"
    return None


class _TwoHeaders(NamedTuple):
    """The names of columns whose header is two rows, and how many lines these take."""

    names: tuple[str, ...]
    lines: int


def _two_headers(prompts: Path, options: InitOptions) -> _TwoHeaders | None:
    """SurveyMonkey's two rows: a question over the columns of its answers, and these below it."""
    table = replace(options.table, header=False)
    try:
        with opened(prompts, replace(options, table=table)) as file:
            above, below, first = islice(file, 3)
    except (InputError, ValueError):
        return None
    answers = [str(cell).strip() for cell in below.columns.values()]
    if not any(answer in _SURVEY_MONKEY for answer in answers):
        return None
    names: list[str] = []
    question = ""
    for cell, answer in zip(above.columns.values(), answers, strict=False):
        question = str(cell).strip() or question
        shown = "" if answer in _SURVEY_MONKEY else answer
        name = f"{question}: {shown}" if shown else question
        names.append(name if name not in names else f"{name} {len(names) + 1}")
    return _TwoHeaders(tuple(names), first.line - 1)


def _is_survey_monkey(row: dict[str, Any], cells: Sequence[str]) -> bool:
    """Whether a row says what is below each question, and nothing below what is no question."""
    return next(iter(row.values()), None) == "" and any(cell in _SURVEY_MONKEY for cell in cells)
