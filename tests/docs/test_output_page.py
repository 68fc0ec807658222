"""docs/output.md and the tables agree."""

from __future__ import annotations

import re
from pathlib import Path

from batchgen.journal.status import STATUSES
from batchgen.tables.layout import ERRORS, LEADING, TRAILING

PAGE = (Path(__file__).parent.parent.parent / "docs/output.md").read_text(encoding="utf-8")


def test_every_column_of_the_results_is_on_the_page() -> None:
    """The page has batchgen's columns with their types, in order."""
    section = PAGE.split("## Columns of the results table")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, flags=re.MULTILINE))
    names = {str: "string", int: "integer", float: "number"}
    columns = {**LEADING, **TRAILING}
    assert list(listed.items()) == [(name, names[kind]) for name, kind in columns.items()]


def test_every_column_of_the_errors_is_on_the_page() -> None:
    """The sentence on the errors table names its columns."""
    sentence = PAGE.split("The errors table has")[1].split("\n\n")[0]
    assert re.findall(r"`(\w+)`", sentence) == ["id", *ERRORS]


def test_every_status_is_on_the_page() -> None:
    """The table of statuses has each of them, once."""
    section = PAGE.split("## Status of a row")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| (\w+) \| [^|]+ \| ", section, flags=re.MULTILINE)) == sorted(
        ["status", *STATUSES]
    )
