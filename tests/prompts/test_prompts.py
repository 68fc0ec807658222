"""What prompt files promise: any text comes in unchanged, nothing is guessed, every fault has its
line.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import sys
import tracemalloc
import unicodedata
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import SHOWN, InputError
from batchgen.prompts import (
    Dialect,
    Prompt,
    PromptsFile,
    TableOptions,
    file_digest,
    open_prompts,
)
from batchgen.prompts import lines as prompt_lines


def opened(data: bytes | str, format: str = "csv", **options: Any) -> PromptsFile:  # noqa: A002
    raw = data.encode() if isinstance(data, str) else data
    names = [each.name for each in fields(TableOptions) if each.name in options]
    table = TableOptions(**{name: options.pop(name) for name in names})
    return open_prompts(
        None, stream=io.BytesIO(raw), display_name="p", format=format, table=table, **options
    )


def table(**options: Any) -> dict[str, Any]:
    return {"table": TableOptions(**options)}


def rows(data: bytes | str, format: str = "csv", **options: Any) -> list[dict[str, Any]]:  # noqa: A002
    return [prompt.columns for prompt in opened(data, format, **options)]


def lines(data: bytes | str, format: str = "csv", **options: Any) -> list[int]:  # noqa: A002
    return [prompt.line for prompt in opened(data, format, **options)]


def refusal(data: bytes | str, format: str = "csv", **options: Any) -> InputError:  # noqa: A002
    with pytest.raises(InputError) as caught:
        list(opened(data, format, **options))
    return caught.value


def file_refusal(path: Path | None, **options: Any) -> str:
    with (
        pytest.raises(InputError) as caught,
        open_prompts(path, display_name="p", **options) as file,
    ):
        list(file)
    return str(caught.value)


def written(table: list[list[str]], **options: Any) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows(table)
    return text.getvalue()


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NASTY = st.sampled_from(
    [
        "\r",
        "\n",
        "\r\n",
        '"',
        '""',
        "\x00",
        "\x0b",
        "\x0c",
        "\x1a",
        "\x85",
        "\u2028",
        "\ufeff",
        "e\u0301",
        "\u202e",
        "🦊",
        ",",
        ";",
        "\t",
    ]
)
CELL = st.one_of(ANY_TEXT, st.lists(st.one_of(NASTY, ANY_TEXT), max_size=6).map("".join))


# --- any text, unchanged
# ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), st.sampled_from([",", ";", "\t"]))
def test_csv_round_trip(table: list[tuple[str, str]], delimiter: str) -> None:
    """P28 Any text that csv.writer writes comes back equal, whatever the delimiter."""
    data = written(
        [["id", "a", "b"], *[[str(n), *cells] for n, cells in enumerate(table)]],
        delimiter=delimiter,
    )
    assert [(row["a"], row["b"]) for row in rows(data)] == table


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_csv_round_trip_utf16(table: list[tuple[str, str]]) -> None:
    """P28 The same in UTF-16 with a byte order mark."""
    data = written([["id", "a", "b"], *[[str(n), *cells] for n, cells in enumerate(table)]])
    assert [(row["a"], row["b"]) for row in rows(data.encode("utf-16"))] == table


JSON_VALUE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        CELL,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(CELL, inner, max_size=3)),
    max_leaves=8,
)
JSON_ROW = st.dictionaries(
    CELL.map(lambda name: unicodedata.normalize("NFC", name)), JSON_VALUE, max_size=4
)


@given(st.lists(JSON_ROW, min_size=1, max_size=4), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_jsonl_round_trip(table: list[dict[str, Any]], ascii_only: bool, end: str) -> None:
    """P28, P29 Any JSON object comes back equal and with its types, escaped or not."""
    data = "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in table)
    found = rows(data, "jsonl")
    assert found == table
    assert repr(found) == repr(table)


@given(st.lists(CELL.filter(lambda cell: cell and not set(cell) & {"\n", "\r", "\t"}), min_size=1))
def test_tsv_and_txt_round_trip(cells: list[str]) -> None:
    """P28 In TSV and TXT only LF and CRLF end a line, only TAB a cell; quotes and every other
    character are text.
    """
    cells = [f"x{cell}" for cell in cells]
    assert rows("".join(f"{cell}\n" for cell in cells), "txt") == [
        {"prompt": cell} for cell in cells
    ]
    data = "a\tb\r\n" + "".join(f"{cell}\t{cell}\r\n" for cell in cells)
    assert rows(data, "tsv") == [{"a": cell, "b": cell} for cell in cells]


def test_cells_stay_as_written() -> None:
    """P29 Ids and numbers are text, empty cells are empty text, spaces stay."""
    cells = ["007", "NA", "NULL", "None", "true", "1e3", "", "  spaced ", "1.0", "=1+1", "'"]
    assert rows(written([["id", "cell"], *[["x", cell] for cell in cells]])) == [
        {"id": "x", "cell": c} for c in cells
    ]


def test_json_numbers_keep_their_types() -> None:
    """P29 1.0 stays a float, a big int stays exact."""
    value = rows(
        '{"a": 1.0, "b": 123456789012345678901234567890, "c": 1e3, "d": -0, "e": null}', "jsonl"
    )[0]
    assert (
        repr(value)
        == "{'a': 1.0, 'b': 123456789012345678901234567890, 'c': 1000.0, 'd': 0, 'e': None}"
    )


@pytest.mark.parametrize("size", [131_073, 1_000_000])
@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
def test_long_cells(size: int, format: str) -> None:  # noqa: A002
    """P28 A cell beyond the csv module's usual 131,072 characters, and one of a megabyte."""
    cell = "ä" * size
    data = {
        "csv": f'a,b\n1,"{cell}"\n',
        "tsv": f"a\tb\n1\t{cell}\n",
        "jsonl": json.dumps({"a": "1", "b": cell}),
    }
    assert rows(data[format], format) == [{"a": "1", "b": cell}]


# --- formats, delimiters, lines
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("a,b;c,d", ","),
        ("a;b,c;d", ";"),
        ("a\tb\tc,d", "\t"),
        ('"a;b;c","d"', ","),
        ('"a\n;;;\nb";c', ";"),
        ("a", ","),
        ("a;b,c", ","),
        ('5" pipe;b', ";"),
    ],
)
def test_delimiter_is_the_one_that_splits_the_header_most(header: str, delimiter: str) -> None:
    """P29 Delimiters inside quotes do not count, also in a header of several lines; a tie goes to
    the comma.
    """
    dialect = opened(f"{header}\n").dialect
    assert dialect.delimiter == delimiter
    assert dialect.header == tuple(
        next(csv.reader(io.StringIO(header, newline=""), delimiter=delimiter))
    )


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\r\n', "SEP=;\n", "\ufeffsep=;\r"])
def test_sep_line_is_honoured_and_no_row(first: str) -> None:
    """P30 Excel's first line names the delimiter; lines are still counted with it."""
    prompt = next(iter(opened(f"{first}a,1;b\n1;2\n")))
    assert (prompt.columns, prompt.line, prompt.n) == ({"a,1": "1", "b": "2"}, 3, 1)


def test_explicit_delimiter_wins() -> None:
    """The job file's delimiter is used even where another splits the header more, or a sep= line
    disagrees.
    """
    assert rows("a|b,c,d\n1|2\n", delimiter="|") == [{"a": "1", "b,c,d": "2"}]
    assert rows("sep=;\na|b\n1|2\n", delimiter="|") == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_numbers_with_quoted_line_ends(end: str) -> None:
    """P30 A row's line is where it starts: header of two lines, cells of many, empty lines
    between.
    """
    data = end.join(['id,"te', 'xt"', "1,a", "", '2,"b', "", 'b"', ",", "3,c", ""])
    found = [(prompt.n, prompt.line, prompt.columns["id"]) for prompt in opened(data)]
    assert found == [(1, 3, "1"), (2, 5, "2"), (3, 9, "3")]


def test_line_numbers_across_blocks_of_the_reader() -> None:
    """P30 CRLF and multi-byte characters at every place of the reader's blocks do not shift a line
    or a cell.
    """
    data = "id,t\r\n" + "".join(f'{n},"{"ä" * (n % 7)}\r\n🦊"\r\n' for n in range(20_000))
    found = list(opened(data))
    assert [prompt.line for prompt in found] == list(range(2, 40_002, 2))
    assert all(prompt.columns["t"] == "ä" * (n % 7) + "\r\n🦊" for n, prompt in enumerate(found))


def test_empty_rows_are_skipped_everywhere() -> None:
    """Empty lines, and rows whose cells are all empty (a spreadsheet's tail), are no rows; a blank
    one is.
    """
    assert lines('\n;;\na;b\n\n;\n"";""\n1;2\n;;;;\n ;\n') == [7, 9]
    assert lines("a\tb\n\n\t\n1\t2\n\r\n", "tsv") == [4]
    assert rows("\none\r\n\n two \n\r\nthree", "txt") == [
        {"prompt": "one"},
        {"prompt": " two "},
        {"prompt": "three"},
    ]
    assert lines('\n{"a": 1}\n \t\r\n{}\n', "jsonl") == [2, 4]


def test_tsv_has_no_quoting() -> None:
    """A double quote in TSV is a character."""
    assert rows('a\tb\n"x\t"y"\n', "tsv") == [{"a": '"x', "b": '"y"'}]


def test_headers_are_stripped_and_nfc_and_cells_are_not() -> None:
    """P29 Column names are normalised, for templates to match them; cells stay decomposed."""
    assert rows(" u\u0308ber ,b\nu\u0308 ,x\n") == [{"\u00fcber": "u\u0308 ", "b": "x"}]
    assert rows('{"u\u0308": {"u\u0308": 1}}', "jsonl") == [{"\u00fc": {"u\u0308": 1}}]


def test_nameless_empty_columns_are_dropped() -> None:
    """Trailing delimiters, as spreadsheets leave them, are no columns; a row may also have fewer or
    more of them.
    """
    data = "a;;b;;\n1;;2;;\n3;;4\n5;;6;;;;\n"
    assert rows(data) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}, {"a": "5", "b": "6"}]
    assert opened(data).dialect.header == ("a", "b")


# --- encodings
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "encoding", "expected", "bom"),
    [
        ("ä,b\n1,ß\n".encode(), None, "utf-8", False),
        ("ä,b\n1,ß\n".encode("utf-8-sig"), None, "utf-8", True),
        ("ä,b\n1,ß\n".encode("utf-8-sig"), "utf-8", "utf-8", True),
        ("ä,b\n1,ß\n".encode("utf-8-sig"), "utf-8-sig", "utf-8", True),
        ("ä,b\n1,ß\n".encode(), "UTF8", "utf-8", False),
        ("\ufeffä,b\n1,ß\n".encode("utf-16-le"), None, "utf-16-le", True),
        ("\ufeffä,b\n1,ß\n".encode("utf-16-be"), None, "utf-16-be", True),
        ("\ufeffä,b\n1,ß\n".encode("utf-16-be"), "utf-16", "utf-16-be", True),
        ("ä,b\n1,ß\n".encode("utf-16-le"), "utf-16-le", "utf-16-le", True),
        ("ä,b\n1,ß\n".encode("cp1252"), "cp1252", "cp1252", True),
    ],
)
def test_encodings(data: bytes, encoding: str | None, expected: str, bom: bool) -> None:
    """P28 By byte order mark, by the job file, else UTF-8; the mark is no part of the first
    header.
    """
    file = opened(data, encoding=encoding)
    assert file.dialect == Dialect(
        format="csv", delimiter=",", encoding=expected, bom=bom, header=("ä", "b")
    )
    assert [prompt.columns for prompt in file] == [{"ä": "1", "b": "ß"}]


def test_german_excel_file() -> None:
    """P30 cp1252, semicolons, sep= line: refused with the line as cp1252 and the key to set; then
    read.
    """
    data = 'sep=;\r\nArtikel;Preis;\r\n007;"1,50 €";\r\nSchlüssel;"9,99 €";\r\n;;\r\n'.encode(
        "cp1252"
    )
    error = refusal(data)
    assert (error.problems[0].line, error.found) == (3, 1)
    assert "'007;\"1,50 €\";'" in str(error)
    assert "prompts.encoding: cp1252" in str(error)
    assert rows(data, encoding="cp1252") == [
        {"Artikel": "007", "Preis": "1,50 €"},
        {"Artikel": "Schlüssel", "Preis": "9,99 €"},
    ]


@pytest.mark.parametrize("bad_rows", ["refuse", "fail"])
@pytest.mark.parametrize("before", [0, 1, 3_000, 50_000])
def test_wrong_bytes_are_found_on_their_line(before: int, bad_rows: str) -> None:
    """P30 The line is exact wherever it falls in the reader's blocks, and `fail` does not forgive
    it.
    """
    data = b"id,t\n" + "1,grün\r\n".encode() * before + b"1,gr\xfcn\n2,b\n"
    error = refusal(data, bad_rows=bad_rows)
    assert [problem.line for problem in error.problems] == [before + 2]
    assert "'1,grün'" in str(error)


def test_wrong_bytes_are_shown_short_and_harmless() -> None:
    """P30, P44 At most 80 characters around the fault, control characters escaped."""
    message = (
        refusal(b"id,t\n1," + b"a" * 500 + b"\x1b[31m\xfc\x00" + b"b" * 500 + b"\n")
        .problems[0]
        .message
    )
    excerpt = message.split("'")[1]
    assert len(excerpt) == 80
    assert r"\x1b[31mü\x00" in excerpt


@pytest.mark.parametrize(
    ("data", "options", "word"),
    [
        ("a,b\n1,2\n".encode("utf-16-le"), {}, "prompts.encoding: utf-16-le"),
        ("a,b\n1,2\n".encode("utf-16-be"), {}, "prompts.encoding: utf-16-be"),
        ("\ufeffa,b\n1,2\n".encode("utf-16-le")[:-1], {}, "not utf-16-le"),
        ("\ufeffa,b\n".encode("utf-16-le") + b"\x00\xd8a\x00\n\x00", {}, "not utf-16-le"),
        (b"a,b\n1,\x81\n", {"encoding": "cp1252"}, "not cp1252"),
        (b"a,b\n1,+2AA-\n", {"encoding": "utf-7"}, "not utf-7"),
        (b"a\n", {"encoding": "klingon"}, "'klingon' is not a text encoding"),
        (b"a\n", {"encoding": "base64"}, "'base64' is not a text encoding"),
        ("\ufeffa\n".encode(), {"encoding": "cp1252"}, "remove prompts.encoding"),
        (b"PK\x03\x04\x14\x00", {}, "zip file"),
        (gzip.compress(b"a\n1\n", mtime=0), {}, "gunzip"),
    ],
)
def test_wrong_encodings_are_explained(data: bytes, options: dict[str, Any], word: str) -> None:
    """P30 Each way to have the wrong encoding is one sentence with what to do."""
    assert word in str(refusal(data, **options))


# --- broken rows
# --------------------------------------------------------------------------------------------------

RAGGED = "a;b;c;\n1;2;3\n1;2\n1;2;3;4\n1;2;3;;;\n1;2;3;;5\n"


def test_ragged_rows_are_all_reported() -> None:
    """P30 Each with its line, the cells expected and the cells found."""
    error = refusal(RAGGED)
    assert [str(problem) for problem in error.problems] == [
        "p:3: expected 3 cells, found 2",
        "p:4: cell 4 is not empty, but column 4 has no name in the header; name it",
        "p:6: expected 3 cells, found 5; put a cell that holds ';' in double quotes",
    ]


def test_ragged_rows_can_be_failed_rows() -> None:
    """P30 With bad_rows: fail they are counted, hold what could be read, and the rest goes on."""
    found = list(opened(RAGGED, bad_rows="fail"))
    assert [(prompt.n, prompt.line, prompt.error is None) for prompt in found] == [
        (1, 2, True),
        (2, 3, False),
        (3, 4, False),
        (4, 5, True),
        (5, 6, False),
    ]
    assert found[1] == Prompt(
        n=2, line=3, columns={"a": "1", "b": "2"}, error="expected 3 cells, found 2"
    )


def test_good_rows_keep_coming_and_all_problems_are_counted() -> None:
    """P30 The error comes at the end; it shows a screenful of faults and counts all."""
    file = opened("a\n" + "".join(f"1{',1' * n}\n1\n" for n in range(1, 101)))
    found: list[Prompt] = []
    with pytest.raises(InputError) as caught:
        found.extend(file)
    assert len(found) == 100
    assert found[-1].n == 200
    assert (len(caught.value.problems), caught.value.found) == (SHOWN, 100)
    assert file.problems == caught.value.problems
    assert str(caught.value).endswith("... and 75 more")


def test_equal_faults_are_one_line() -> None:
    """P30 A thousand rows with one fault are one line with their number, and do not hide another
    fault; few are all named.
    """
    error = refusal("a,b\n" + "1\n" * 1000 + "1,2,3\n")
    assert str(error).splitlines() == [
        "p:2: expected 2 cells, found 1 (also in lines 3, 4, 5, 6, 7 and 994 more)",
        "p:1002: expected 2 cells, found 3; put a cell that holds ',' in double quotes",
    ]
    assert error.found == 1001
    assert str(refusal("a,b\n1\n1,2\n1\n")).endswith("found 1 (also in line 4)")


def test_a_fault_of_the_file_is_shown_even_after_a_screenful_of_rows() -> None:
    """P30 Wrong bytes after many ragged rows are among the problems shown."""
    ragged = b"".join(b"1" + b",1" * n + b"\n" for n in range(2, 102))
    error = refusal(b"a,b\n" + ragged + b"1,\xfc\n")
    assert error.found == 101
    assert len(error.problems) == SHOWN
    assert error.problems[-1].line == 102


@pytest.mark.parametrize(
    ("data", "line", "word"),
    [
        ('a,b\n1,2\n3,"x\ny\nz\n', 3, "lines 3 to 5 cannot be told apart"),
        ('a,b\n1,2\n3,"x', 3, "never closed"),
        ('a,b\n1,"x" y\n', 2, "twice"),
        ('a,b\n1,"x\n2,"y"\n', 2, "lines 2 to 3 cannot be told apart"),
        ('"a,b\n1,2\n', 1, "never closed"),
        ('"a"x,b\n1,2\n', 1, "twice"),
    ],
)
def test_broken_quotes_are_reported_where_the_row_starts(data: str, line: int, word: str) -> None:
    """P30 Not where the reader gave up."""
    error = refusal(data)
    assert (error.problems[0].line, error.found) == (line, 1)
    assert word in str(error)


def test_quotes_that_swallow_lines_are_never_forgiven() -> None:
    """P30 One failed row must not hide the rows it swallowed; a fault within one line is one failed
    row.
    """
    assert "cannot be told apart" in str(refusal('a,b\n1,"x\n2,y\n3,z\n', bad_rows="fail"))
    found = list(opened('a,b\n1,"x" y\n2,y\n3,"z', bad_rows="fail"))
    assert [(prompt.n, prompt.line, prompt.error is None) for prompt in found] == [
        (1, 2, False),
        (2, 3, True),
        (3, 4, False),
    ]


@pytest.mark.parametrize("bad_rows", ["refuse", "fail"])
def test_headers_that_name_twice_are_refused(bad_rows: str) -> None:
    """P30 After NFC and strip, with all positions, every name at once."""
    error = refusal("\u00fc,b, u\u0308 ,b,b,\n1,2,3,4,5,\n", bad_rows=bad_rows)
    assert [str(problem) for problem in error.problems] == [
        "p:1: the header has 'ü' 2 times, as columns 1 and 3; rename all but one, or set "
        "prompts.duplicate_headers: number",
        "p:1: the header has 'b' 3 times, as columns 2 and 4 and 5; rename all but one, "
        "or set prompts.duplicate_headers: number",
    ]


def test_an_array_is_no_jsonl(tmp_path: Path) -> None:
    """P30 A JSON document in a .jsonl is called by its name, not only by what its first
    line lacks.
    """
    (tmp_path / "p.jsonl").write_text('[\n {"text": "a"},\n {"text": "b"}\n]\n', encoding="utf-8")
    first = file_refusal(tmp_path / "p.jsonl").splitlines()[0]
    assert "this is an array of objects, and JSONL has one a line; prompts.format: json" in first


@pytest.mark.parametrize(
    ("line", "column", "word"),
    [
        ('{"a": }', 7, "missing, or is not JSON"),
        ("{'a': 1}", 2, "double quotes"),
        ('{"a" 1}', 6, "colon"),
        ('{"a": 1 "b": 2}', 9, "comma"),
        ('{"a": "x}', 7, "never closed"),
        ('{"a": "x\ty"}', 9, "control character"),
        (r'{"a": "\x"}', 8, "backslash"),
        (r'{"a": "\u12"}', 9, "hexadecimal"),
        ('{"a": 1}{"a": 2}', 9, "one object"),
        ("[1]", 0, "found a list"),
        ("null", 0, "found null"),
        ("7", 0, "found a number"),
        ("true", 0, "found true or false"),
        ('{"a": NaN}', 0, "NaN is not JSON"),
        ('{"a": -Infinity}', 0, "-Infinity is not JSON"),
        ('{"a": 1e400}', 0, "too large"),
        ('{"a": ' + "1" * 5000 + "}", 0, "too many digits"),
        ('{"a": 1, "a": 2}', 0, "'a' stands twice"),
        ('{"x": {"a": 1, "a": 2}}', 0, "'a' stands twice"),
        ('{"\u00fc": 1, "u\u0308": 2}', 0, "'ü' stands twice"),
        (r'{"a": ["\ud83d"]}', 0, "half a character"),
        (r'{"\uDE00": 1}', 0, "half a character"),
        ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", 0, "nested too deeply"),
        ('{"a": ' + "[" * 975 + "]" * 975 + "}", 0, "nested too deeply"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", 0, "nested too deeply: more than 200 levels"),
    ],
)
def test_bad_json_lines(line: str, column: int, word: str) -> None:
    """P30 file:line:column and the reason in plain words; with bad_rows: fail a failed row."""
    data = f'{{"a": 0}}\n{line}\n{{"a": 1}}\n'
    error = refusal(data, "jsonl")
    assert (error.found, error.problems[0].line, error.problems[0].column) == (1, 2, column)
    assert word in error.problems[0].message
    found = list(opened(data, "jsonl", bad_rows="fail"))
    assert [(prompt.n, prompt.line) for prompt in found] == [(1, 1), (2, 2), (3, 3)]
    assert word in (found[1].error or "")
    assert found[2].columns == {"a": 1}


def test_whole_surrogate_pairs_and_escaped_backslashes_are_fine() -> None:
    """P28 An escaped emoji is text, and so is a backslash before the letters ud83d."""
    assert rows(r'{"a": "\ud83e\uDD8A \\ud83d"}', "jsonl") == [{"a": "🦊 \\ud83d"}]


# --- files
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("name", "data", "format"),
    [
        ("p.csv", "prompt\nx\n", "csv"),
        ("P.CSV", "prompt\nx\n", "csv"),
        ("p.v1.tsv", "prompt\nx\n", "tsv"),
        ("p.txt", "x\n", "txt"),
        ("p.jsonl", '{"prompt": "x"}\n', "jsonl"),
        ("p.NDJSON", '{"prompt": "x"}\n', "jsonl"),
    ],
)
def test_formats_by_name(tmp_path: Path, name: str, data: str, format: str, zipped: bool) -> None:  # noqa: A002
    """Every ending, each also gzipped, in any case; the digest is that of the bytes as they lie
    there.
    """
    path = tmp_path / (f"{name}.GZ" if zipped else name)
    path.write_bytes(gzip.compress(data.encode()) if zipped else data.encode())
    with open_prompts(path, display_name="p") as file:
        assert file.dialect.format == format
        assert [prompt.columns for prompt in file] == [{"prompt": "x"}]
    assert file.digest == file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_format_given_wins_over_the_name(tmp_path: Path) -> None:
    """prompts.format reads a file whose name says nothing, or something else, and .gz still
    unzips.
    """
    path = tmp_path / "p.dat.gz"
    path.write_bytes(gzip.compress(b"a\tb\n1\t2\n"))
    with open_prompts(path, display_name="p", format="tsv") as file:
        assert [prompt.columns for prompt in file] == [{"a": "1", "b": "2"}]


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """P30 Whatever the file holds, the end is rows or an InputError, for every format."""
    for format in ("csv", "tsv", "jsonl", "txt"):  # noqa: A001
        with contextlib.suppress(InputError):
            assert list(opened(data, format))


@given(st.binary(max_size=60))
def test_digest_is_that_of_all_bytes(data: bytes) -> None:
    """P08 The digest after the last row is the digest of the whole file."""
    file = opened(b"x\n" + data, "txt", encoding="latin-1")
    list(file)
    assert file.digest == hashlib.sha256(b"x\n" + data).hexdigest()


@pytest.mark.parametrize(
    ("data", "format", "word"),
    [
        ("", "csv", "p: is empty"),
        ("\n\n,,\n", "csv", "p: is empty"),
        ("", "tsv", "p: is empty"),
        ("sep=;\n", "csv", "p: is empty"),
        ("", "txt", "p: holds no prompts"),
        ("\n\n", "txt", "p: holds no prompts"),
        ("", "jsonl", "p: holds no prompts"),
        ("a,b", "csv", "p: has a header but no rows"),
        ("a\tb\n\n", "tsv", "p: has a header but no rows"),
    ],
)
def test_files_without_prompts(data: str, format: str, word: str) -> None:  # noqa: A002
    """P30 One sentence each, with `fail` too."""
    assert str(refusal(data, format)) == str(refusal(data, format, bad_rows="fail")) == word


def test_paths_that_are_no_prompts_file(tmp_path: Path) -> None:
    """P30 Missing, a folder, a FIFO, a device, an unknown ending, a NUL: one sentence each, and no
    hanging.
    """
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "folder.csv").mkdir()
    assert (
        file_refusal(tmp_path / "missing.csv") == f"p: there is no such file (looked in {tmp_path})"
    )
    assert "is a folder" in file_refusal(tmp_path / "folder.csv")
    assert 'for a stream use "-"' in file_refusal(tmp_path / "fifo.csv")
    assert 'for a stream use "-"' in file_refusal(Path("/dev/null"), format="csv")
    assert "prompts.format" in file_refusal(tmp_path / "p.dat")
    assert ".ndjson" in file_refusal(tmp_path / "p.gz")
    assert "NUL" in file_refusal(tmp_path / "a\0b.csv")
    assert "cannot be opened" in file_refusal(tmp_path / ("x" * 300 + ".csv"))
    with pytest.raises(InputError, match="no such file"):
        file_digest(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"format": "xml"}, "prompts.format 'xml' is unknown"),
        ({"format": "jsonl", **table(delimiter=";")}, "prompts.delimiter is for CSV only"),
        ({"format": "txt", **table(skip_lines=1)}, "is for CSV, TSV, XLSX, ODS only"),
        ({"format": "json", **table(sheet="x")}, "prompts.sheet is for XLSX, ODS only"),
        ({"format": "xlsx"}, "XLSX cannot come from a stream"),
        ({"format": "csv", **table(delimiter=";;")}, "one character"),
        ({"format": "csv", **table(delimiter='"')}, "one character"),
        ({}, "set prompts.format"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], word: str) -> None:
    """P30 A stream without a format, and options that do not belong together, are refused with the
    key's name.
    """
    with pytest.raises(InputError) as caught:
        open_prompts(None, stream=io.BytesIO(b"a\n1\n"), display_name="p", **options)
    assert word in str(caught.value)


def test_gzip_that_is_damaged(tmp_path: Path) -> None:
    """P30 Cut short, flipped, or not gzip at all: a sentence, not a traceback."""
    path = tmp_path / "p.txt.gz"
    whole = gzip.compress(
        b"".join(hashlib.sha256(bytes([n])).hexdigest().encode() + b"\n" for n in range(256))
    )
    for data, word in [
        (whole[: len(whole) // 2], "too early"),
        (whole[:-4] + b"\xff\xff\xff\xff", "damaged"),
        (whole[:1000] + bytes(1000) + whole[2000:], "damaged"),
        (b"not gzip\n", "damaged, or is not gzip"),
        (whole[:5], "too early"),
    ]:
        path.write_bytes(data)
        assert word in file_refusal(path)
    path.write_bytes(b"")
    assert file_refusal(path) == "p: holds no prompts"


def test_stream_is_read_and_left_open() -> None:
    """P15 Standard input is read to its end, a byte order mark too, and not closed."""
    stream = io.BytesIO("\ufeffa;b\n1;2\n".encode())
    with open_prompts(None, stream=stream, display_name="-", format="csv") as file:
        assert [prompt.columns for prompt in file] == [{"a": "1", "b": "2"}]
    assert not stream.closed
    assert file.digest == hashlib.sha256(stream.getvalue()).hexdigest()


def test_stream_that_drips() -> None:
    """P15 A pipe whose writer sends little at a time is read whole."""
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader, open(write_end, "wb", buffering=0) as writer:
        for byte in "\ufeffa;b\n1;2\n".encode("utf-16-le"):
            writer.write(bytes([byte]))
        writer.close()
        with open_prompts(None, stream=reader, display_name="-", format="csv") as file:
            assert [prompt.columns for prompt in file] == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("data", "format"),
    [
        ("a,b\n1," + "x" * 2000, "csv"),
        ("a,b\n" + '"x\n",' * 1000, "csv"),
        ("x" * 2000, "csv"),
        ("a\tb\n1\t" + "x" * 2000, "tsv"),
        ("x" * 2000, "txt"),
        ('{"a": "' + "x" * 2000, "jsonl"),
    ],
)
def test_endless_rows_are_refused(monkeypatch: pytest.MonkeyPatch, data: str, format: str) -> None:  # noqa: A002
    """P31 A row beyond LIMIT, on one line or over many, is refused instead of read."""
    monkeypatch.setattr(prompt_lines, "LIMIT", 1000)
    assert "longer than 1,000 characters" in str(refusal(data, format, bad_rows="fail"))


@pytest.mark.parametrize("format", ["csv", "tsv", "txt", "jsonl"])
def test_limit_is_per_row(monkeypatch: pytest.MonkeyPatch, format: str) -> None:  # noqa: A002
    """P31 Many rows below LIMIT, empty and broken ones among them, are no long row."""
    monkeypatch.setattr(prompt_lines, "LIMIT", 100)
    line = {
        "csv": '1,"2\n"\n\n1\n',
        "tsv": "1\t2\n\n1\n",
        "txt": "x\n\n",
        "jsonl": '{"a": 1}\n\n{\n',
    }[format]
    head = {"csv": "a,b\n", "tsv": "a\tb\n"}.get(format, "")
    assert len(rows(head + line * 500, format, bad_rows="fail")) >= 500


class Endless(io.RawIOBase):
    """Rows made as they are read, so that no file of them lies in memory."""

    def __init__(self, head: bytes, line: bytes, count: int) -> None:
        self.left, self.line, self.rest = count, line, head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.rest and self.left:
            self.rest, self.left = self.line * min(self.left, 1000), max(0, self.left - 1000)
        data, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize(
    ("head", "line", "format"),
    [
        (b"a,b\n", b'1,"x\ny"\n', "csv"),
        (b"a\tb\n", b"1\tx\n", "tsv"),
        (b"", b'{"a": 1}\n', "jsonl"),
        (b"", b'{"a": 1}\n', "json"),
        (b"", b"x\n", "txt"),
    ],
)
def test_memory_is_flat(head: bytes, line: bytes, format: str) -> None:  # noqa: A002
    """P31 Ten times the rows take no more memory."""

    def peak(count: int) -> int:
        stream = io.BufferedReader(Endless(head, line, count))
        tracemalloc.start()
        with open_prompts(None, stream=stream, display_name="p", format=format) as file:
            assert sum(1 for _ in file) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    small, large = peak(3_000), peak(30_000)
    assert large < small + 200_000


def test_dialects_without_a_header_of_their_own() -> None:
    """JSONL has no header, TXT always the same one."""
    assert opened("{}", "jsonl").dialect == Dialect(
        format="jsonl", delimiter="", encoding="utf-8", bom=False, header=None
    )
    assert opened("x", "txt").dialect.header == ("prompt",)


@pytest.mark.skipif(sys.platform == "win32", reason="no folder of file descriptors")
def test_files_are_closed_also_after_an_error(tmp_path: Path) -> None:
    """P15 A refused file leaves no descriptor open, be it refused at the header or at a row."""
    before = len(os.listdir("/dev/fd"))
    path = tmp_path / "p.csv"
    for data in (b"a,a\n1,2\n", b"a,b\n1\n", b"", b"\xff\n", b"a,b\n1,\xff\n"):
        path.write_bytes(data)
        file_refusal(path)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("format", ["csv", "tsv", "txt", "jsonl", "openai-batch"])
def test_lines_without_a_row_have_a_bound(format: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: A002
    """P31 Empty lines beyond MOST_EMPTY are refused instead of read on and on; with rows between
    them they are not counted together.
    """
    monkeypatch.setattr(prompt_lines, "MOST_EMPTY", 3000)
    head = "" if format in ("txt", "jsonl", "openai-batch") else "a\n"
    body = {"method": "POST", "url": "/v1/moderations", "body": {"model": "m", "input": "x"}}
    row = json.dumps({"custom_id": "N", **body}) if format == "openai-batch" else '{"a": 1}'
    between = "".join(row.replace("N", str(n)) + "\n" * 2500 for n in range(4))
    assert len(rows(head + between, format)) == 4
    last = len(head) // 2 + 1
    error = refusal(head + row + "\n" * 9000 + row, format)
    assert str(error).startswith(f"p:{last + 1}: the next 3,000 lines hold no row")


def test_how_far_reading_has_come_is_reported() -> None:
    """Whoever watches hears of lines without a row, too."""
    counts: list[int] = []
    assert len(rows("a\n1\n" + "\n" * 9000 + "2\n", on_lines=counts.append)) == 2
    assert counts == sorted(counts)
    assert len(counts) == 8
