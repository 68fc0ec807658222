"""docs/output.md and the tables agree."""

from __future__ import annotations

import re
from pathlib import Path

from batchgen.journal.status import STATUSES
from batchgen.replies.finish import BROKEN_OFF, ENDED, INCOMPLETE
from batchgen.tables.formats import Timestamp
from batchgen.tables.layout import ERRORS, LEADING, TRAILING

PAGE = (Path(__file__).parent.parent.parent / "docs/output.md").read_text(encoding="utf-8")


def test_every_column_of_the_results_is_on_the_page() -> None:
    """The page has batchgen's columns with their types, in order."""
    section = PAGE.split("## Columns of the results table")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, flags=re.MULTILINE))
    names = {str: "string", int: "integer", float: "number", Timestamp: "time", object: "list"}
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


def test_every_finish_reason_is_on_the_page() -> None:
    """The table of finish reasons is that of the code: each word, and what becomes of it."""
    section = PAGE.split("## Finish reasons")[1].split("\n## ")[0]
    lines = re.findall(r"^\| (`[^|]+) \| ([^|]+) \| ([^|]*)\|$", section, flags=re.MULTILINE)
    listed = {
        word: (row, shown.strip())
        for words, row, shown in lines
        for word in re.findall("`(.+?)`", words)
    }
    assert listed == {
        **dict.fromkeys(ENDED, ("succeeded", "the same")),
        **{word: ("incomplete", f"`{own}`") for word, own in INCOMPLETE.items()},
        **dict.fromkeys(BROKEN_OFF, ("asked again, then failed", "")),
    }
