"""Files that are no plain text: what they hold keeps its types, and they are called what they
are.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from workbooks import write_ods, write_xlsx

from batchgen.errors import InputError
from batchgen.prompts import Prompt, TableOptions, file_digest, open_prompts

CSV = b"id,text\n1,a\n2,b\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def read(path: Path, **options: Any) -> list[Prompt]:
    with open_prompts(path, display_name=path.name, **options) as file:
        prompts = list(file)
        assert file.digest == file_digest(path)
        return prompts


def rows(path: Path, **table: Any) -> list[dict[str, Any]]:
    return [each.columns for each in read(path, table=TableOptions(**table))]


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    return str(caught.value)


def zipped(data: bytes, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return buffer.getvalue()


def zstd_compressed(data: bytes) -> bytes:
    from backports import zstd

    # As the command zstd does; without it damage cannot be found.
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd_compressed,
    ".zip": lambda data: zipped(data, "p.csv", "__MACOSX/._p.csv"),
}


# --- compressed texts
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKERS)
def test_compressed_texts(tmp_path: Path, packing: str) -> None:
    """P28 A text is the same in every compression, and its digest is that of the file."""
    path = tmp_path / f"p.csv{packing}"
    path.write_bytes(PACKERS[packing](CSV))
    assert rows(path) == [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]


@pytest.mark.parametrize("packing", PACKERS)
def test_compressed_texts_that_are_damaged(tmp_path: Path, packing: str) -> None:
    """P30 Cut short, flipped or not packed at all: a sentence that says what to do."""
    whole = PACKERS[packing](b"n,m\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(5000)))
    path = tmp_path / f"p.csv{packing}"
    for data in (whole[: len(whole) // 2], whole[:40] + bytes(40) + whole[80:], CSV):
        path.write_bytes(data)
        assert "copy or download it again" in refusal(path)


def test_a_zip_holds_one_file(tmp_path: Path) -> None:
    """P30 Which of two files is meant is not guessed."""
    path = tmp_path / "p.csv.zip"
    path.write_bytes(zipped(CSV, "a.csv", "b.csv"))
    assert "holds 2 files (a.csv, b.csv); unzip it and name one of them" in refusal(path)
    path.write_bytes(zipped(CSV))
    assert "holds 0 files; unzip it" in refusal(path)


# --- what a file is
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.csv", "p.txt", "p.jsonl", "p.json", "p.parquet", "p.xlsx"])
def test_a_git_lfs_pointer_is_no_prompts_file(tmp_path: Path, name: str) -> None:
    """P30 The pointer that a repository has in place of a large file never becomes prompts."""
    (tmp_path / name).write_bytes(POINTER)
    assert "git lfs pull" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.txt", "p.jsonl", "p.json", "p.ods"])
def test_a_file_under_a_wrong_name_is_told_by_its_bytes(tmp_path: Path, name: str) -> None:
    """P30 Whatever its name says, a binary file is called what it is."""
    path = tmp_path / name
    made = write_parquet(tmp_path / "made.parquet", {"a": [1]})
    path.write_bytes(made.read_bytes())
    assert "is a Parquet file, whatever its name says" in refusal(path)
    if not name.endswith(".ods"):
        path.write_bytes(write_xlsx(tmp_path / "made.xlsx", {"S": [["a"], ["1"]]}).read_bytes())
        assert "end its name in .xlsx, or set prompts.format: xlsx" in refusal(path)
        path.write_bytes(write_ods(tmp_path / "made.ods", {"S": [["a"], ["1"]]}).read_bytes())
        assert "end its name in .ods, or set prompts.format: ods" in refusal(path)
        path.write_bytes(zipped(CSV, "p.csv"))
        assert "is a zip file" in refusal(path)
        for packing in (".bz2", ".xz", ".zst"):
            path.write_bytes(PACKERS[packing](CSV))
            assert f"end its name in {packing}" in refusal(path)


@pytest.mark.parametrize("name", ["p.parquet", "p.xlsx", "p.ods"])
def test_a_text_is_no_binary_file(tmp_path: Path, name: str) -> None:
    """P30 A CSV with the name of a Parquet file or a spreadsheet is refused, and so is an empty
    file or half of one.
    """
    path = tmp_path / name
    path.write_bytes(CSV)
    assert f"is no {name[2:]} file" in refusal(path)
    path.write_bytes(b"")
    assert "p." in refusal(path)
    whole = {
        "p.parquet": lambda: write_parquet(path, {"a": list(range(1000))}),
        "p.xlsx": lambda: write_xlsx(path, {"S": [["a"]] * 100}),
        "p.ods": lambda: write_ods(path, {"S": [["a"]] * 100}),
    }[name]().read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "p." in refusal(path)


def test_a_word_that_begins_like_a_magic_number_is_text(tmp_path: Path) -> None:
    """P28 A header PAR1 is a header."""
    path = tmp_path / "p.csv"
    path.write_bytes(b"PAR1,BZh9\n1,2\n")
    assert rows(path) == [{"PAR1": "1", "BZh9": "2"}]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("p.pkl", "pandas.read_pickle('p.pkl').to_json('p.jsonl'"),
        ("p.feather", "pandas.read_feather('p.feather')"),
        ("p.sqlite", 'sqlite3 -header -csv p.sqlite "SELECT * FROM its_table" > p.csv'),
        ("p.yaml", "> p.jsonl"),
        ("p.xls", "save it as .xlsx"),
        ("p.7z", "unpack it"),
        ("p.dat", "set prompts.format"),
        ("prompts", "set prompts.format"),
    ],
)
def test_other_formats_are_named_with_what_converts_them(
    tmp_path: Path, name: str, word: str
) -> None:
    """P30 A format that batchgen does not read is refused with the line that makes one it reads."""
    (tmp_path / name).write_bytes(b"x")
    message = refusal(tmp_path / name)
    assert word in message
    assert "rename" not in message


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("p.parquet", "pyarrow", "parquet"),
        ("p.xlsx", "python_calamine", "excel"),
        ("p.csv.zst", "backports.zstd", "zstd"),
    ],
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    """P30 Without the package that reads a format, the message is the line that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    made = {
        "pyarrow": b"PAR1\x15",
        "python_calamine": b"PK\x03\x04",
        "backports.zstd": b"\x28\xb5\x2f\xfd",
    }
    (tmp_path / name).write_bytes(made[package])
    assert f"pip install '.[{extra}]'" in refusal(tmp_path / name)


# --- Parquet
# --------------------------------------------------------------------------------------------------


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    """P29 Numbers, texts, lists, objects and null are what they were; what JSON lacks is text."""
    import pyarrow

    moment = datetime(2024, 1, 5, 10, 11, 12, tzinfo=UTC)
    path = write_parquet(
        tmp_path / "p.parquet",
        {
            "id": ["007", None],
            "n": pyarrow.array([2**64 - 1, 0], pyarrow.uint64()),
            "x": [1.0, float("nan")],
            "ok": [True, None],
            "list": [["a", None], []],
            "object": pyarrow.array(
                [{"k": 1.5, "b": b"\xff"}, None],
                pyarrow.struct([("k", pyarrow.float64()), ("b", pyarrow.binary())]),
            ),
            "map": pyarrow.array(
                [[("k", 1)], None], pyarrow.map_(pyarrow.string(), pyarrow.int64())
            ),
            "bytes": [b"\xff\x00", b""],
            "price": [Decimal("1.50"), None],
            "at": [moment, None],
            "ns": pyarrow.array([moment.replace(tzinfo=None), None], pyarrow.timestamp("ns")),
            "day": [moment.date(), None],
            "time": [moment.time(), None],
            "for": [timedelta(seconds=90), None],
            "u\u0308": ["u\u0308", None],
        },
    )
    first, second = read(path)
    assert repr(first.columns) == repr(
        {
            "id": "007",
            "n": 18446744073709551615,
            "x": 1.0,
            "ok": True,
            "list": ["a", None],
            "object": {"k": 1.5, "b": "/w=="},
            "map": {"k": 1},
            "bytes": "/wA=",
            "price": "1.50",
            "at": "2024-01-05T10:11:12+00:00",
            "ns": "2024-01-05T10:11:12",
            "day": "2024-01-05",
            "time": "10:11:12",
            "for": "0:01:30",
            "\u00fc": "u\u0308",
        }
    )
    assert [second.columns[name] for name in ("id", "n", "x", "list", "bytes", "at")] == [
        None,
        0,
        None,
        [],
        "",
        None,
    ]
    assert (first.line, second.line) == (1, 2)


def test_an_infinite_number_is_the_fault_of_its_row(tmp_path: Path) -> None:
    """P30 Its line is the row's number; with bad_rows: fail the others run."""
    path = write_parquet(tmp_path / "p.parquet", {"x": [1.0, float("inf"), 3.0]})
    assert refusal(path) == "p.parquet:2: a number is infinite, which JSON cannot say"
    found = read(path, bad_rows="fail")
    assert [each.error is None for each in found] == [True, False, True]


def test_a_parquet_file_that_lies(tmp_path: Path) -> None:
    """P30 Text that is not UTF-8, and a time that no calendar has, are refused in one sentence."""
    import pyarrow

    text = pyarrow.StringArray.from_buffers(
        1, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff")
    )
    time = pyarrow.array([2**62], pyarrow.timestamp("us"))
    for column in (text, time):
        path = write_parquet(tmp_path / "p.parquet", {"a": column})
        assert "p.parquet:1: pyarrow cannot read this Parquet file" in refusal(path)


def test_parquet_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """P31 Rows come before the file is read to its end, over all groups of rows."""
    path = write_parquet(tmp_path / "p.parquet", {"n": list(range(10_000))}, row_group_size=3000)
    assert [each.columns["n"] for each in read(path)] == list(range(10_000))


# --- spreadsheets
# --------------------------------------------------------------------------------------------------

SHEET: list[list[Any]] = [
    ["sku", "qty", "price", "ok", "day", ""],
    ["007", 7, 7.5, True, date(2024, 1, 5), None],
    [],
    ["008", 0, -1.25, False, None, None],
    ["", 0, None, None, None, None],
]


def test_a_sheet_keeps_its_types(tmp_path: Path) -> None:
    """P29 Texts stay texts, whole numbers are whole, a date is text; 0 and false are not empty;
    a row's line is its number in the sheet.
    """
    path = write_xlsx(tmp_path / "p.xlsx", {"S": SHEET})
    found = read(path)
    assert [each.line for each in found] == [2, 4, 5]
    assert repr(found[0].columns) == repr(
        {"sku": "007", "qty": 7, "price": 7.5, "ok": True, "day": "2024-01-05"}
    )
    assert repr(found[1].columns) == repr(
        {"sku": "008", "qty": 0, "price": -1.25, "ok": False, "day": ""}
    )
    assert found[2].columns["qty"] == 0


def test_a_sheet_is_named(tmp_path: Path) -> None:
    """P30 The first sheet, or the one that the job names; a wrong name is told with the right
    ones.
    """
    sheets = {"Notes": [["a"], ["x"]], "Products": [["b"], ["y"]]}
    for path in (write_xlsx(tmp_path / "p.xlsx", sheets), write_ods(tmp_path / "p.ods", sheets)):
        assert rows(path) == [{"a": "x"}]
        assert rows(path, sheet="Products") == [{"b": "y"}]
        message = refusal(path, table=TableOptions(sheet="Product"))
        assert "has no sheet 'Product' (sheets: Notes, Products); did you mean 'Product" in message


def test_a_sheet_without_rows(tmp_path: Path) -> None:
    """P30 An empty sheet, and one with a header alone, are refused in one sentence."""
    assert refusal(write_xlsx(tmp_path / "p.xlsx", {"S": []})) == "p.xlsx: is empty"
    path = write_xlsx(tmp_path / "p.xlsx", {"S": [["a", "b"]]})
    assert refusal(path) == "p.xlsx: has a header but no rows"


def test_the_options_of_a_table_hold_for_sheets(tmp_path: Path) -> None:
    """What stands above the header, further headers and doubled names are no hindrance."""
    table: list[list[Any]] = [["Export", None], [], ["a", "a"], ["first", "second"], [1, 2]]
    path = write_xlsx(tmp_path / "p.xlsx", {"S": table})
    options = {"skip_lines": 2, "skip_rows": 1, "duplicate_headers": "number"}
    assert rows(path, **options) == [{"a": 1, "a_2": 2}]
    assert [each.line for each in read(path, table=TableOptions(**options))] == [5]  # type: ignore[arg-type]
