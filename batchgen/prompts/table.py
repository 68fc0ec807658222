"""Records of cells -> rows by column name: the header, and what does not fit it."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from batchgen.prompts.options import TableOptions
from batchgen.prompts.rows import FileError, RawRow, RawTable, RowError

# A cell that was meant to be in quotes.
_SPACED_QUOTE = re.compile(r'\s+"')
# The line on which a record starts, and its cells or what is wrong with them.
Record = tuple[int, Sequence[Any] | RowError]


def table_of(
    records: Iterator[Record], options: TableOptions, *, delimiter: str, hint: str
) -> RawTable:
    """Take the header off the records; `hint` says what to do about a row with too many cells.

    Raises FileError.
    """
    if options.header is None:
        names = _header(_next_filled(records), options)
    else:
        names = [unicodedata.normalize("NFC", name.strip()) for name in options.header or ()]
    for _ in range(options.skip_rows):
        _next_filled(records)
    first = _next_filled(records)
    if first is not None:
        records = itertools.chain([first], records)
        names = _named_by_position(names, first, options)
    header = tuple(name for name in names if name)
    return RawTable(delimiter=delimiter, header=header, rows=_rows(records, names, hint))


def _next_filled(records: Iterator[Record]) -> Record | None:
    return next(
        (each for each in records if isinstance(each[1], RowError) or filled(each[1])), None
    )


def filled(cells: Sequence[Any]) -> bool:
    """Whether any cell is not empty; 0 and false, as spreadsheets have them, are not empty."""
    return any(cells) or any(cell != "" for cell in cells)


def _header(record: Record | None, options: TableOptions) -> list[str]:
    """The names of the columns; that of a column without one is empty."""
    if record is None:
        raise FileError(0, "is empty")
    line, cells = record
    if isinstance(cells, RowError):
        raise FileError(line, cells.message)
    names = [unicodedata.normalize("NFC", str(cell).strip()) for cell in cells]
    if options.duplicate_headers == "number":
        _number(names)
    _check_header(names, line)
    return names


def _number(names: list[str]) -> None:
    """Call the second column of a name `name_2`, or by the next number that no column has."""
    taken = set(names)
    for at, name in enumerate(names):
        if name and name in names[:at]:
            names[at] = next(
                free for n in itertools.count(2) if (free := f"{name}_{n}") not in taken
            )
            taken.add(names[at])


def _check_header(names: Sequence[str], line: int) -> None:
    positions: dict[str, list[str]] = {}
    for position, name in enumerate(names, start=1):
        positions.setdefault(name, []).append(str(position))
    nameless = positions.pop("", [])
    if not positions:
        raise FileError(line, f"none of the {len(nameless)} columns of the header has a name")
    twice = [
        f"the header has {name!r} {len(at)} times, as columns {' and '.join(at)}; rename all "
        "but one, or set prompts.duplicate_headers: number"
        for name, at in positions.items()
        if len(at) > 1
    ]
    if twice:
        raise FileError(line, *twice)


def _named_by_position(names: list[str], first: Record, options: TableOptions) -> list[str]:
    """The names, with those of columns that get one by their position: `column_1`.

    Without a header all of them do. With one, only the first column does: pandas and R write the
    numbers of their rows into a first column without a name. Spreadsheets leave empty columns
    without a name, so the first row must have a cell there.
    """
    line, cells = first
    if options.header is False:
        if isinstance(cells, RowError):
            raise FileError(line, cells.message)
        return [f"column_{position}" for position in range(1, len(cells) + 1)]
    unnamed = not isinstance(cells, RowError) and names[0] == "" and cells[0] != ""
    if unnamed and "column_1" not in names:
        return ["column_1", *names[1:]]
    return names


def _rows(records: Iterator[Record], names: Sequence[str], hint: str) -> Iterator[RawRow]:
    """Rows by column name; records of empty cells (`;;;` at a spreadsheet's end) are skipped."""
    width = len(names) if all(names) else -1  # -1 matches no row, so each is checked
    # The line above a table, such as a title, has one cell.
    title = sum(map(bool, names)) == 1
    lower = "; if the header is further down, set prompts.skip_lines" if title else ""
    for line, cells in records:
        if isinstance(cells, RowError):
            yield line, {}, RowError(cells.message + lower)
        elif any(cells) or filled(cells):
            if len(cells) == width:
                yield line, dict(zip(names, cells)), None  # noqa: B905 - as many as names; strict= costs a third more
            else:
                yield line, *_uneven(cells, names, hint, lower)


def _uneven(
    cells: Sequence[Any], names: Sequence[str], hint: str, lower: str
) -> tuple[dict[str, Any], RowError | None]:
    """A row with more or fewer cells than names: extra cells must be empty, none missing.

    `hint` and `lower` say what to do.
    """
    expected = max(position for position, name in enumerate(names, start=1) if name)
    columns = {name: cell for name, cell in zip(names, cells, strict=False) if name}
    counts = f"expected {expected} cell{'s' * (expected != 1)}, found {len(cells)}"
    if len(cells) < expected:
        if not "".join(map(str, cells)).strip("\0\x1a "):
            counts = "has nothing but control characters (NUL or Ctrl-Z); cut it off the file"
        return columns, RowError(counts)
    if filled(cells[len(names) :]):
        if any(_SPACED_QUOTE.match(str(cell)) for cell in cells):
            hint = "a double quote counts only where no space stands before it; take the space out"
        return columns, RowError(f"{counts}; {hint}{lower}")
    for position, (name, cell) in enumerate(zip(names, cells, strict=False), start=1):
        if cell != "" and not name:
            return columns, RowError(
                f"cell {position} is not empty, but column {position} has no name in the "
                f"header; name it{lower}"
            )
    return columns, None
