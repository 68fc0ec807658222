"""What a spreadsheet would run, however it cuts the file, gets an apostrophe; other text stays."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.tables.formulas import disarmed

INVISIBLE = " \u00a0\u2003\u3000\ufeff\u200b\u2060\x00\x0b"


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        # the beginning of the cell
        ("=1+1", "'=1+1"),
        ("＝1+1", "'＝1+1"),
        ("＋1|cmd", "'＋1|cmd"),
        ("－x", "'－x"),
        ("＠x", "'＠x"),
        ("﹦1", "'﹦1"),
        ("−1+A1", "'−1+A1"),
        *((f"{each}=1+1", f"{each}'=1+1") for each in INVISIBLE),
        *((f"{each}{each}-x", f"{each}{each}'-x") for each in INVISIBLE),
        ("\t=1", "'\t'=1"),
        ("\n=1", "'\n'=1"),
        ("\r\n=1", "'\r\n'=1"),
        ("\nplain", "'\nplain"),
        # the beginning of another cell
        ("x;=1+1", "x;'=1+1"),
        ("x,=1+1", "x,'=1+1"),
        ("x\t+1+1", "x\t'+1+1"),
        ("x\n@SUM(1)", "x\n'@SUM(1)"),
        ("x\r\n-1+1", "x\r\n'-1+1"),
        ('x;"=1+1;', "x;\"'=1+1;"),
        ("x; =1+1", "x; '=1+1"),
        ("x;\ufeff＝1", "x;\ufeff'＝1"),
        ("-5;=1", "'-5;'=1"),
        ("- a\n- b", "'- a\n'- b"),
        ('["a","=b"]', '["a","\'=b"]'),
        # no formulas
        *((each, each) for each in ("-12", "+1.5", "-1,5", " -3", "−4", "'=1", "", "plain")),
        *((each, each) for each in ("from 5, -3 to 4", "me, @you", "a=b", "a|=b", "5,-3,4")),
        *((each, each) for each in ("[-0.5,-1.5e-05,-2]", '{"a":[1,-2]}')),
    ],
)
def test_every_beginning_of_a_cell_is_made_safe(cell: str, safe: str) -> None:
    """P32 A sign gets an apostrophe at the beginning of a cell, also behind what an import trims,
    and wherever another delimiter would begin a cell; numbers, prose and vectors stay.
    """
    assert disarmed(cell) == safe
    assert disarmed(safe) == safe or cell.startswith(("\t", "\r", "\n"))


@given(st.text(alphabet='x1=+-@＝;,\t\r\n" ', max_size=12))
def test_wherever_it_is_cut_nothing_begins_with_a_sign(text: str) -> None:
    """P32 However the file is cut into cells, none begins with a sign, unless it is a number."""
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerow(["first", disarmed(text), "last"])
    for cell in re.split("[,;\t\r\n]", file.getvalue()):
        assert not cell.strip(' "').startswith(("=", "＝"))
        begins = cell.strip('"')
        assert not begins.startswith(("+", "-", "@")) or begins[1:].isdigit()


def test_odd_text_takes_no_time() -> None:
    """P32 Runs of blanks and quotes are passed over once, not in every possible way."""
    text = ";" + "\x1c\x1f " * 30_000 + "x" + ';"' * 30_000
    assert disarmed(text) == text


@given(st.lists(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers())))
def test_a_vector_stays_as_it_is(vector: list[float]) -> None:
    """P32 An embedding is numbers, and numbers do not run."""
    for separator in (",", ", "):
        text = json.dumps(vector, separators=(separator, ":"))
        assert disarmed(text) == text
