"""The types of cells: what the JSON of the prompts and the answers had, every format keeps."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import openpyxl
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import KEY, Lab
from openpyxl.utils.escape import unescape
from pyarrow import parquet

import batchgen
from batchgen.errors import InputError
from batchgen.job import load_job
from batchgen.simulator import Simulator
from batchgen.tables import check_size
from batchgen.tables.formats import WRITERS, Record, TableFile, Timestamp, Vector

CHAT = {"model": "m", "messages": [{"role": "user", "content": "{{ id }}"}]}


def write_prompts(lab: Lab, values: list[Any]) -> dict[str, Any]:
    """A prompts file whose column `value` has these cells; returns the job's key `prompts`."""
    lines = [json.dumps({"id": str(n), "value": value}) for n, value in enumerate(values)]
    (lab.folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"path": "prompts.jsonl", "id": "id"}


def written(
    path: Path, form: str, columns: dict[str, type], records: list[Record]
) -> tuple[Path, list[str]]:
    """Write records in one format; returns the file and the messages."""
    messages: list[str] = []
    table = TableFile(
        path=path / f"table.{form}",
        columns=columns,
        delimiter=",",
        bom=False,
        disarm=None,
        on_written=None,
        say=messages.append,
    )
    with WRITERS[form](table) as write:
        for record in records:
            write(record)
    return table.path, messages


def parquet_column(path: Path, cells: list[Any], kind: type = object) -> tuple[Any, list[str]]:
    """Write the cells as a column of Parquet; returns its (type, cells) and the messages."""
    file, messages = written(path, "parquet", {"a": kind}, [{"a": each} for each in cells])
    column = parquet.read_table(file).column("a")
    return (str(column.type), column.to_pylist()), messages


@pytest.mark.parametrize(
    ("cells", "kind", "read"),
    [
        ([1, None, 3], "int64", None),
        ([1, 2.5], "double", [1.0, 2.5]),
        ([True, False, None], "bool", None),
        (["007", "", None], "string", None),
        ([[1, 2], [], None], "list<element: int64>", None),
        ([{"a": 1, "b": ["x"]}], "struct<a: int64, b: list<element: string>>", None),
        ([None, None], "string", None),
    ],
)
def test_a_column_has_the_type_of_its_cells(
    tmp_path: Path, cells: list[Any], kind: str, read: list[Any] | None
) -> None:
    """P29 Numbers, booleans, texts, lists and objects of one type are such a column in Parquet."""
    assert parquet_column(tmp_path, cells) == ((kind, read or cells), [])


@pytest.mark.parametrize(
    "cells",
    [[1, "a"], [True, 1], [10**40, 1], [{}, {}], [[1], ["a"]], [2**53 + 1, 0.5], ["x", {"a": 1}]],
)
def test_a_column_of_several_types_is_text(tmp_path: Path, cells: list[Any]) -> None:
    """P29 A column that no type of Parquet holds is text, each cell as in the CSV, and the user is
    told which.
    """
    (kind, read), messages = parquet_column(tmp_path, cells)
    texts = [each if isinstance(each, str) else json.dumps(each) for each in cells]
    assert (kind, read) == ("string", texts)
    assert messages == ["table.parquet: columns with cells of several types are text: 'a'"]


@pytest.mark.parametrize(
    ("first", "last", "kind"),
    [
        (1, 2.5, "double"),
        (2**60, 2.5, "string"),
        (1, "a", "string"),
        (None, [1], "list<element: int64>"),
        ({"a": 1}, {"b": 2}, "struct<a: int64, b: int64>"),
    ],
)
def test_all_cells_decide_the_type(tmp_path: Path, first: Any, last: Any, kind: str) -> None:
    """P29 A cell far down in the file counts for the type of its column as much as the first."""
    cells = [first] * 1500 + [last]
    (found, read), _ = parquet_column(tmp_path, cells)
    assert found == kind
    assert len(read) == 1501
    if kind == "string":
        assert [read[0], read[-1]] == [first if type(first) is str else str(first), str(last)]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner),
    max_leaves=6,
)


def same(cell: Any, read: Any) -> bool:
    """Whether Parquet gave a cell back: objects may have gained names whose value is None."""
    if isinstance(cell, dict) and isinstance(read, dict):
        return all(same(cell.get(name), read.get(name)) for name in {*cell, *read})
    if isinstance(cell, list) and isinstance(read, list):
        return len(cell) == len(read) and all(map(same, cell, read))
    return bool(cell == read)


@given(cells=st.lists(JSON, min_size=1, max_size=8))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cells_come_back_from_parquet(tmp_path: Path, cells: list[Any]) -> None:
    """P29 Whatever JSON the cells are, Parquet holds them: with their types, or as their JSON."""
    (kind, read), messages = parquet_column(tmp_path, cells)
    if messages:
        assert kind == "string"
        read = [
            each if each is None or isinstance(cell, str) else json.loads(each)
            for cell, each in zip(cells, read, strict=True)
        ]
        replaced = [
            cell is None and text is not None for cell, text in zip(cells, read, strict=True)
        ]
        assert not any(replaced)
    cleaned = json.loads(
        "".join(
            char if not "\ud800" <= char <= "\udfff" else "\ufffd" for char in json.dumps(cells)
        )
    )
    assert all(map(same, cleaned, read))


def test_embeddings_are_vectors(lab: Lab, api: Simulator) -> None:
    """P29 An embedding is a list of numbers in JSONL, a list of float32 in Parquet, and a float32
    array in pandas.
    """
    job = lab.job(
        api.url,
        kind="embedding",
        request={"model": "text-embedding-3-small", "input": "{{ id }}", "dimensions": 8},
        output={"tables": ["csv", "jsonl", "parquet"]},
    )
    lab.go(job)
    lines = (lab.output() / "results.jsonl").read_text(encoding="utf-8").splitlines()
    vectors = [json.loads(line)["output"] for line in lines]
    table = parquet.read_table(lab.output() / "results.parquet")
    frame = batchgen.results(lab.load(job))
    assert [len(vector) for vector in vectors] == [8] * 5
    assert [json.loads(row["output"]) for row in lab.table()] == vectors
    assert str(table.schema.field("output").type) == "list<element: float>"
    exact = numpy.array(vectors, dtype=numpy.float32)
    assert (numpy.array(table.column("output").to_pylist(), dtype=numpy.float32) == exact).all()
    assert (numpy.stack(list(frame["output"])) == exact).all()
    assert frame["output"][0].dtype == numpy.float32


def test_lists_of_embeddings_are_lists_of_vectors(tmp_path: Path) -> None:
    """P29 Several embeddings of one request are a list of vectors, and one that is missing null."""
    cells = [[[1.0, 2.0], [3.0, 4.0]], None]
    assert parquet_column(tmp_path, cells, Vector) == (
        ("list<element: list<element: float>>", cells),
        [],
    )


def test_times_are_timestamps(lab: Lab, api: Simulator) -> None:
    """P29 Times are UTC timestamps in Parquet and pandas; rows without one have none."""
    job = lab.job(api.url, output={"tables": ["jsonl", "parquet"]})
    lab.go(job, limit=2)
    line = (lab.output() / "results.jsonl").read_text(encoding="utf-8").splitlines()[0]
    at = datetime.fromisoformat(json.loads(line)["answered_at"])
    table = parquet.read_table(lab.output() / "results.parquet")
    frame = batchgen.results(lab.load(job))
    assert at.tzinfo is UTC or at.utcoffset() is not None
    assert table.column("answered_at").to_pylist()[0] == at
    assert table.column("answered_at").null_count == 3
    assert frame["answered_at"][0] == pandas.Timestamp(at)
    assert frame["answered_at"].isna().sum() == 3


def test_types_of_the_prompts_reach_every_table(lab: Lab, api: Simulator) -> None:
    """P29 Numbers, lists and objects of a JSONL column are such cells in Parquet and pandas, and
    numbers in a computed column are numbers.
    """
    values = [{"n": n, "tags": ["a"] * n} for n in range(3)]
    job = lab.job(
        api.url,
        prompts=write_prompts(lab, values),
        request=CHAT,
        output={"tables": ["parquet"], "columns": {"size": "{{ row.value.n * 2 }}"}},
    )
    lab.go(job)
    table = parquet.read_table(lab.output() / "results.parquet")
    frame = batchgen.results(lab.load(job))
    assert table.column("value").to_pylist() == values
    assert table.column("size").to_pylist() == [0, 2, 4]
    assert list(frame["value"]) == values
    assert list(frame["size"]) == [0, 2, 4]


def test_a_thread_is_a_list_of_messages(lab: Lab, api: Simulator) -> None:
    """P29 With `turns`, the column `messages` is a list of objects in JSONL, Parquet and pandas."""
    lines = [json.dumps({"id": "a", "turns": ["one", "two"]})]
    (lab.folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    job = lab.job(
        api.url,
        prompts={"path": "prompts.jsonl", "id": "id"},
        conversation={"turns": "turns"},
        request={"model": "m", "messages": [{"role": "user", "content": "{{ turn }}"}]},
        output={"tables": ["jsonl", "parquet"]},
    )
    lab.go(job)
    line = (lab.output() / "results.jsonl").read_text(encoding="utf-8")
    messages = json.loads(line)["messages"]
    assert [each["role"] for each in messages] == ["user", "assistant"] * 2
    table = parquet.read_table(lab.output() / "results.parquet")
    assert table.column("messages").to_pylist() == [messages]
    assert list(batchgen.results(lab.load(job))["messages"]) == [messages]


# -- Excel -----------------------------------------------------------------------------------------


def sheet(path: Path) -> list[list[Any]]:
    """The cells of a workbook's sheet."""
    return [list(row) for row in openpyxl.load_workbook(path).active.iter_rows(values_only=True)]


def test_a_workbook_has_typed_cells(tmp_path: Path) -> None:
    """P29 In Excel numbers, booleans and times are such cells; all else is text, also what looks
    like a number or a formula.
    """
    record: Record = {
        "text": "007",
        "formula": "=1+1",
        "url": "https://example.org",
        "number": 2.5,
        "big": 2**60,
        "flag": True,
        "list": [1, "ä"],
        "none": None,
        "when": "2026-11-24T18:40:02Z",
    }
    columns: dict[str, type] = {**dict.fromkeys(record, object), "when": Timestamp}
    path, messages = written(tmp_path, "xlsx", columns, [record])
    assert sheet(path) == [
        list(record),
        [
            "007",
            "=1+1",
            "https://example.org",
            2.5,
            str(2**60),
            True,
            '[1, "ä"]',
            None,
            datetime(2026, 11, 24, 18, 40, 2),
        ],
    ]
    cells = openpyxl.load_workbook(path).active[2]
    assert {each.data_type for each in cells[:3]} == {"s"}
    assert all(each.hyperlink is None for each in cells)
    assert messages == []


def test_a_cell_of_a_workbook_is_cut_and_said(tmp_path: Path) -> None:
    """P28 Excel holds 32,767 characters (UTF-16 units) a cell: a longer text is cut, with a mark
    in the cell and a count for the user; one that fits is whole.
    """
    fits, longer = "😀" * 16_383, "😀" * 16_384
    path, messages = written(tmp_path, "xlsx", {"a": str}, [{"a": fits}, {"a": longer}])
    _, [first], [second] = sheet(path)
    assert first == fits
    assert second.startswith("😀" * 16_000)
    assert second.endswith("[cut: a cell of Excel holds 32,767 characters]")
    assert len(second.encode("utf-16-le")) // 2 <= 32_767
    assert len(messages) == 1
    assert "1 cells were longer" in messages[0]


def test_odd_characters_reach_a_workbook(tmp_path: Path) -> None:
    """P28 Control characters and line ends come back from a workbook; lone surrogates as U+FFFD."""
    path, _ = written(tmp_path, "xlsx", {"a": str}, [{"a": "a\x01b\tc\nd"}, {"a": "\ud800"}])
    texts = [unescape(row[0]) for row in sheet(path)[1:]]
    assert texts == ["a\x01b\tc\nd", "\ufffd"]


def test_a_job_too_long_for_a_sheet_is_refused_before_it_is_paid(lab: Lab, api: Simulator) -> None:
    """A table of more rows than Excel has stops the job before a call, with what to do."""
    job = load_job(lab.job(api.url, output={"tables": ["xlsx"]}), environ={"OPENAI_API_KEY": KEY})
    check_size(job, 1_048_575)
    with pytest.raises(InputError, match=r"1,048,576 rows at most.*choose another format"):
        check_size(job, 1_048_576)


def test_a_workbook_of_a_run(lab: Lab, api: Simulator) -> None:
    """A job with `tables: [xlsx]` writes results.xlsx and errors.xlsx, and nothing else stays."""
    lab.go(lab.job(api.url, output={"tables": ["xlsx"]}))
    rows = sheet(lab.output() / "results.xlsx")
    assert [row[rows[0].index("status")] for row in rows[1:]] == ["succeeded"] * 5
    assert len(sheet(lab.output() / "errors.xlsx")) == 1
    assert not [path for path in lab.output().iterdir() if path.name.endswith(".tmp")]
