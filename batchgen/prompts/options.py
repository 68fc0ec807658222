"""What a job says about how a file's table is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """How the table in a file is written, where the file does not show it by itself.

    delimiter: one character between the cells of a CSV; None: the header decides.
    sheet: the name of a spreadsheet's sheet; None: the first.
    skip_lines: how many lines before the header are left out; of a sheet, its rows.
    header: None: the first line is the header; False: there is none, and the columns are called
        column_1, column_2 and so on; else the names of the columns of a file without one.
    skip_rows: how many rows after the header are left out.
    duplicate_headers: "number" calls the second column of a name `name_2`; "refuse" refuses it.
    """

    delimiter: str | None = None
    sheet: str | None = None
    skip_lines: int = 0
    header: Literal[False] | tuple[str, ...] | None = None
    skip_rows: int = 0
    duplicate_headers: Literal["refuse", "number"] = "refuse"


DEFAULTS = TableOptions()
