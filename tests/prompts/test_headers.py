"""Tables as programs leave them: titles above the header, no header, doubled or missing names."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import InputError
from batchgen.prompts import Prompt, PromptsFile, TableOptions, open_prompts


def opened(data: bytes | str, format: str = "csv", **table: Any) -> PromptsFile:  # noqa: A002
    raw = data.encode() if isinstance(data, str) else data
    options = TableOptions(**table)
    stream = io.BytesIO(raw)
    return open_prompts(None, stream=stream, display_name="p", format=format, table=options)


def read(data: bytes | str, format: str = "csv", **table: Any) -> list[Prompt]:  # noqa: A002
    return list(opened(data, format, **table))


def rows(data: bytes | str, format: str = "csv", **table: Any) -> list[dict[str, Any]]:  # noqa: A002
    return [each.columns for each in read(data, format, **table)]


def refusal(data: bytes | str, format: str = "csv", **table: Any) -> str:  # noqa: A002
    with pytest.raises(InputError) as caught:
        read(data, format, **table)
    return str(caught.value)


# --- a first column without a name
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [",name\n0,x\n1,y\n", '"","name"\n"0","x"\n"1","y"\n'])
def test_the_row_numbers_of_pandas_and_r_are_a_column(data: str) -> None:
    """P29 Their first column has no name: it is column_1."""
    file = opened(data)
    assert file.dialect.header == ("column_1", "name")
    assert [each.columns for each in file] == [
        {"column_1": "0", "name": "x"},
        {"column_1": "1", "name": "y"},
    ]


def test_an_empty_first_column_stays_no_column() -> None:
    """A spreadsheet that begins in its second column has the columns that it had before; what
    stands in the first one further down is one message, and not one a row.
    """
    assert rows(";a;b\n;1;2\n") == [{"a": "1", "b": "2"}]
    message = refusal(";a;b\n;1;2\n" + "x;1;2\n" * 1000)
    assert message.splitlines() == [
        "p:3: cell 1 is not empty, but column 1 has no name in the header; name it "
        "(also in lines 4, 5, 6, 7, 8 and 994 more)"
    ]


# --- lines above the header, and below it
# --------------------------------------------------------------------------------------------------

TITLE = "Exported 2024-01-05,,\n,,\nsku,name,facts\n1,Kettle,enamel\n"


def test_lines_above_the_header_are_skipped() -> None:
    """P30 What stands above it is told, and can be left out; lines keep their numbers."""
    assert "if the header is further down, set prompts.skip_lines" in refusal(TITLE)
    (prompt,) = read(TITLE, skip_lines=2)
    assert prompt == Prompt(n=1, line=4, columns={"sku": "1", "name": "Kettle", "facts": "enamel"})


def test_the_delimiter_is_found_below_the_skipped_lines() -> None:
    """The export of a keyword planner: UTF-16, two lines of a title, then cells between TABs."""
    data = 'Stats at 10\n"January 1, 2023"\nKeyword\tPrice\nkettle\t5\n"board, oak"\t9\n'
    assert "prompts.skip_lines" in refusal(data.encode("utf-16"))
    assert rows(data.encode("utf-16"), skip_lines=2) == [
        {"Keyword": "kettle", "Price": "5"},
        {"Keyword": "board, oak", "Price": "9"},
    ]
    assert rows("title\na\tb\n1\t2\n", "tsv", skip_lines=1) == [{"a": "1", "b": "2"}]


def test_rows_below_the_header_are_skipped() -> None:
    """Qualtrics writes two more headers; they are no rows and have no number."""
    data = 'Start,Q1,Q1\nStart Date,Which?,Why?\n"{""Id"":""Q""}",x,y\n2024,1,because\n'
    (prompt,) = read(data, skip_rows=2, duplicate_headers="number")
    assert (prompt.n, prompt.line) == (1, 4)
    assert prompt.columns == {"Start": "2024", "Q1": "1", "Q1_2": "because"}
    assert refusal("a,b\n1,2\n", skip_rows=1) == "p: has a header but no rows"


# --- no header, and names twice
# --------------------------------------------------------------------------------------------------


def test_a_file_without_a_header() -> None:
    """P29 Its first line is a row; its columns are numbered, or the job names them."""
    data = '"All","Alle",module\n"None","Keine",module\n'
    assert rows(data, header=False)[0] == {
        "column_1": "All",
        "column_2": "Alle",
        "column_3": "module",
    }
    assert [each.line for each in read(data, header=False)] == [1, 2]
    assert rows(data, header=("en", "de", "kind"))[1] == {
        "en": "None",
        "de": "Keine",
        "kind": "module",
    }
    assert "expected 2 cells, found 3" in refusal(data, header=("en", "de"))
    assert rows("x\ty\n", "tsv", header=False) == [{"column_1": "x", "column_2": "y"}]


def test_a_header_that_is_replaced() -> None:
    """A header that nobody can use is left out, and the job's names stand for it."""
    assert rows("a,a\n1,2\n", skip_lines=1, header=("x", "y")) == [{"x": "1", "y": "2"}]


@given(st.lists(st.sampled_from(["a", "a_2", "a_3", "b"]), min_size=1, max_size=8))
def test_doubled_names_are_numbered(names: list[str]) -> None:
    """P30 Every column gets a name of its own, and those that had one keep it."""
    header = opened(",".join(names) + "\n1\n", duplicate_headers="number").dialect.header
    assert header is not None
    assert len(set(header)) == len(names)
    assert [given for given, name in zip(header, names, strict=True) if given == name] == list(
        dict.fromkeys(names)
    )


# --- line ends and delimiters
# --------------------------------------------------------------------------------------------------

FORMS = {
    "csv": "a,b\n1,2\n3,4\n",
    "tsv": "a\tb\n1\t2\n3\t4\n",
    "txt": "one\ntwo\nthree\n",
    "jsonl": '{"a": 1}\n{"a": 2}\n',
    "json": '[\n{"a": 1},\n{"a": 2}\n]\n',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("end", ["\r", "\r\n"])
@pytest.mark.parametrize("format", FORMS)
def test_every_line_end_is_one(format: str, end: str, encoding: str) -> None:  # noqa: A002
    """P28 CR alone, as old Macintosh programs end lines, cuts every text as LF does."""
    data = FORMS[format].replace("\n", end)
    assert rows(data.encode(encoding), format) == rows(FORMS[format], format)
    if format != "json":
        assert [each.line for each in read(data, format)] == [
            each.line for each in read(FORMS[format], format)
        ]


def test_a_stray_cr_is_text() -> None:
    """P28 In a file whose lines end in LF, a CR within a line is a character of it."""
    assert rows("one\rstill one\ntwo\n", "txt") == [{"prompt": "one\rstill one"}, {"prompt": "two"}]


def test_a_bar_is_found_where_nothing_else_cuts() -> None:
    """A bar separates cells, but never in a header that another delimiter cuts."""
    assert rows("Year|New\n1986|1\n") == [{"Year": "1986", "New": "1"}]
    assert opened("a|b|c,d\n").dialect.delimiter == ","
    assert opened("a|b;c\n").dialect.delimiter == ";"


def test_options_of_the_job_reach_the_file(tmp_path: Path) -> None:
    """The keys of a job's prompts say how its file is read."""
    import batchgen

    (tmp_path / "p.csv").write_text("Title\nx,a,a\n--\n1,2,3\n", encoding="utf-8")
    (tmp_path / "job.yaml").write_text(
        """
kind: chat
prompts: {path: p.csv, skip_lines: 1, skip_rows: 1, duplicate_headers: number, id: x}
request: {model: m, messages: [{role: user, content: "{{ a }} {{ a_2 }}"}]}
""",
        encoding="utf-8",
    )
    first = batchgen.plan(batchgen.load_job(tmp_path / "job.yaml")).first
    assert first is not None
    assert first["body"]["messages"][0]["content"] == "2 3"
