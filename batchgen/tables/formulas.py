"""Cells that a spreadsheet would run as formulas, and the apostrophe that keeps it from that.

A program that opens a CSV may cut it at other delimiters than its own: where `;` separates, a CSV
with commas is one column, and `x;=1+1` in it becomes two cells. So every place in a cell at which
another cell could begin counts: after a comma, a semicolon, a tab, a line break, with or without
quotes. https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re

# The signs, their full-width and small forms (versions for East Asia read them as the plain ones),
# and the minus of typography.
_EQUALS = "=＝﹦"
_SIGNS = f"[{_EQUALS}+＋﹢\\-－﹣−@＠﹫]"
# What an import may trim: white space, also that of typography, and invisible characters.
_INVISIBLE = "\\x00-\\x08\\x0e-\\x1f\\x7f\\xad\\u200b-\\u200f\\u2060\\ufeff"
_BLANK = f"(?:[{_INVISIBLE}]|[^\\S\\t\\r\\n\\x1c-\\x1f])"
# After one of these another cell may begin.
_ENDS = ",;\\t\\r\\n"
_NUMBER = "[+\\-−]?\\d+(?:[.,]\\d+)?"
# A number within a cell may be the last one of a list in JSON.
_LISTED = f"{_NUMBER}(?:[eE][+-]?\\d+)?[\\]}}]*(?:[{_ENDS}]|\\Z)"

# Each place before a sign where an apostrophe is needed. Blanks count before any sign at the
# beginning of the cell, and within it only before `=`: `from 5, -3 to 4` is prose.
_STARTS = re.compile(
    f'\\A(?:"|{_BLANK})*(?={_SIGNS})(?!{_NUMBER}\\Z)'
    f'|(?<=[{_ENDS}])"*(?={_SIGNS})(?!{_LISTED})'
    f'|(?<=[{_ENDS}])(?:"|{_BLANK})*(?=[{_EQUALS}])'
)


def disarmed(cell: str) -> str:
    """The cell with an apostrophe before everything in it that a spreadsheet would run.

    Numbers stay as they are.
    """
    safe = _STARTS.sub("\\g<0>'", cell)
    # Older versions took what follows one of these for the beginning of the cell.
    return f"'{safe}" if cell.startswith(("\t", "\r", "\n")) else safe
