"""docs/journal.md and the schema of the journal agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batchgen.journal.schema import COLUMNS

PAGE = (Path(__file__).parent.parent.parent / "docs/journal.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_is_on_the_page(table: str) -> None:
    """The page has each column of a table with its type, in order; the seal is described once."""
    section = PAGE.split(f"\n## {table}\n")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| ([A-Z]+) \|", section, flags=re.MULTILINE))
    stored = {name: kind for name, kind in COLUMNS[table].items() if name != "seal"}
    assert list(listed.items()) == list(stored.items()), f"docs/journal.md, {table}"


def test_no_table_is_on_the_page_alone() -> None:
    """The page has no table that the schema does not have."""
    assert set(re.findall(r"^## (\w+)$", PAGE, flags=re.MULTILINE)) == set(COLUMNS)
