"""Rows that a caller in Python gives: a DataFrame, dicts, texts; with their types, and once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import Lab

import batchgen
from batchgen import InputError, Options, plan, results
from batchgen.prompts import open_given


class Colour(StrEnum):
    """An enumeration of texts."""

    RED = "red"


def read(rows: Any, **options: Any) -> list[dict[str, Any]]:
    with open_given(rows, **options) as file:
        return [prompt.columns for prompt in file]


# What a caller may hold, and what becomes of it.
VALUES: dict[str, tuple[Any, Any]] = {
    "whole": (2**70, 2**70),
    "truth": (True, True),
    "float": (3.0, 3.0),
    "nothing": (None, None),
    "nan": (float("nan"), None),
    "nat": (pd.NaT, None),
    "na": (pd.NA, None),
    "numpy whole": (np.int64(7), 7),
    "numpy float": (np.float32(0.5), 0.5),
    "numpy truth": (np.bool_(True), True),
    "numpy text": (np.str_("a"), "a"),
    "array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "array of objects": (np.array([{"a": np.nan}, "b"], dtype=object), [{"a": None}, "b"]),
    "array of times": (
        np.array(["2024-01-05", "NaT"], dtype="datetime64[D]"),
        ["2024-01-05", None],
    ),
    "numpy time": (np.datetime64("2024-01-05T10:11:12"), "2024-01-05T10:11:12"),
    "time": (datetime(2024, 1, 5, 10, 11, 12, tzinfo=UTC), "2024-01-05T10:11:12+00:00"),
    "timestamp": (pd.Timestamp("2024-01-05 10:11:12"), "2024-01-05T10:11:12"),
    "date": (date(2024, 1, 5), "2024-01-05"),
    "duration": (timedelta(seconds=5), "0:00:05"),
    "decimal": (Decimal("1.10"), "1.10"),
    "uuid": (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "path": (Path("a/b.png"), "a/b.png"),
    "bytes": (b"\0\1", "AAE="),
    "member": (Colour.RED, "red"),
    "period": (pd.Period("2024-01", "M"), "2024-01"),
    "nested": ({"a": (1, {"b": np.nan})}, {"a": [1, {"b": None}]}),
}


def test_values_keep_the_types_that_json_has() -> None:
    """P29 Each value of a dict is what JSON says it is, to the type; what is missing is null."""
    row = read([{name: value for name, (value, _) in VALUES.items()}])[0]
    assert row == {name: wanted for name, (_, wanted) in VALUES.items()}
    for name, (_, wanted) in VALUES.items():
        assert type(row[name]) is type(wanted), name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=40)
@given(JSON)
def test_json_stays_as_it_is(value: Any) -> None:
    """P28 P29 Whatever JSON can say comes through unchanged."""
    assert read([{"value": value}]) == [{"value": value}]


def test_a_frame_is_read_with_its_types() -> None:
    """P29 Each cell of a DataFrame keeps its type, whatever the column's; an index with a name is a
    column.
    """
    frame = pd.DataFrame(
        {
            "sku": ["a", "b"],
            "n": [1, 2],
            "price": [1.5, np.nan],
            "on": [pd.Timestamp("2024-01-05"), pd.NaT],
            "in": pd.Categorical(["x", None]),
            "stock": pd.array([1, None], dtype="Int64"),
            "vector": [np.array([0.5, 1.0]), None],
            7: [True, False],
        }
    )
    rows = [
        {"sku": "a", "n": 1, "price": 1.5, "on": "2024-01-05T00:00:00", "in": "x", "stock": 1,
         "vector": [0.5, 1.0], "7": True},
        {"sku": "b", "n": 2, "price": None, "on": None, "in": None, "stock": None, "vector": None,
         "7": False},
    ]  # fmt: skip
    assert read(frame) == rows
    assert read(frame.set_index("sku")) == rows
    assert read(frame["sku"]) == [{"prompt": "a"}, {"prompt": "b"}]


def test_few_rows_of_a_frame_are_in_memory() -> None:
    """P31 A DataFrame is read a few rows at a time, and an iterator no further than needed."""
    frame = pd.DataFrame(np.arange(12_000).reshape(4_000, 3), columns=["a", "b", "c"])
    with open_given(frame) as file:
        tracemalloc.start()
        count = sum(1 for _ in file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == 4_000
    assert peak < 500_000
    taken: list[int] = []
    with open_given({"a": n} for n in range(9) if not taken.append(n)) as file:  # type: ignore[func-returns-value]
        next(iter(file))
    assert taken == [0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("p.csv", r"prompts: must be rows, and is one str; a file is named by .* prompts\.path"),
        (Path("p.csv"), r"prompts: must be rows, and is one \w*Path"),
        ({"prompt": "a"}, "prompts: must be rows, and is one dict"),
        (7, "prompts: must be a pandas DataFrame or an iterable of dicts, not int"),
        ([], "prompts: holds no prompts"),
        ([{"a": 1}, 7], r'prompts:2: expected a dict such as \{"prompt": "…"\}, found int'),
        ([{None: 1}], "prompts:1: a column is called None; its name must be a text"),
        ([{"a": object()}], "prompts:1: column 'a': object has no form in JSON"),
        ([{"a": {1, 2}}], "prompts:1: column 'a': set has no form in JSON"),
        ([{"a": float("inf")}], "prompts:1: column 'a': a number is infinite"),
        ([{"a": "\ud800"}], "prompts:1: a text holds half of a character"),
        ([{"a": 10**5000}], "prompts:1: a number has too many digits"),
        ([{"é": 1, "e\u0301": 2}], "prompts:1: the name 'é' stands twice"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "prompts: has two columns with the name 'a'"),
        (pd.DataFrame([[1]], columns=[("a", "b")]), "prompts: has columns of several levels"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_refused(rows: Any, message: str) -> None:
    """P30 Each kind of rows that cannot be sent is a sentence that names the row."""
    with pytest.raises(InputError, match=message):
        read(rows)


def test_a_value_in_itself_is_refused() -> None:
    """P30 A list that holds itself ends in a sentence, not in Python's own bound."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InputError, match=r"prompts:1: column 'a': .* more than 200 levels"):
        read([{"a": endless}])


def rows_of(*texts: str) -> Iterator[dict[str, str]]:
    return ({"id": str(n), "text": f"ECHO:{text}"} for n, text in enumerate(texts))


def test_the_same_rows_again_call_nothing(lab: Lab) -> None:
    """P07 P08 Equal rows call nothing, whatever holds them; of changed ones, those that changed."""
    job = lab.job()
    frame = pd.DataFrame(rows_of("a", "b", "c"))
    loaded = lab.load(job)
    assert plan(loaded, prompts=frame, simulate=True).calls == 3
    assert batchgen.run(loaded, Options(simulate=True), prompts=frame).run.calls == 3
    assert lab.go(job, simulate=True, prompts=frame).run.calls == 0
    assert lab.go(job, simulate=True, prompts=rows_of("a", "b", "c")).run.calls == 0
    assert plan(loaded, prompts=rows_of("a", "x", "c"), simulate=True).calls == 1
    report = lab.go(job, simulate=True, prompts=rows_of("a", "x", "c"))
    assert (report.run.calls, report.rows) == (1, {"succeeded": 3})
    assert list(results(loaded, simulate=True)["output"]) == ["a", "x", "c"]
    # The file that the job names was not read, and is read when no rows are given.
    assert lab.go(job, simulate=True).rows == {"succeeded": 5}


def test_a_job_without_a_file(lab: Lab) -> None:
    """P07 The rows stay in the journal: a later run without rows goes on with them."""
    job = lab.job(rows=None, prompts={"path": "-", "id": "id"})
    assert lab.go(job, simulate=True, prompts=rows_of("a", "b"), limit=1).run.calls == 1
    later = lab.go(job, simulate=True)
    assert (later.run.calls, later.rows) == (1, {"succeeded": 2})
    assert lab.table(simulated=True)[1]["output"] == "b"
    assert not lab.table(which="errors", simulated=True)


def test_rows_that_are_requests_are_given_too(lab: Lab) -> None:
    """P30 With format openai-batch a dict is a request, and is checked as a line is."""
    job = lab.folder / "job.yaml"
    job.write_text('{"prompts": {"path": "-", "format": "openai-batch"}}', encoding="utf-8")
    request = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": "text-embedding-3-small", "input": "a"},
    }
    assert lab.go(job, simulate=True, prompts=[request]).rows == {"succeeded": 1}
    with pytest.raises(InputError, match=r"prompts:1: method: must be"):
        plan(lab.load(job), prompts=[{**request, "method": "GET"}], simulate=True)


def test_bad_rows_of_a_caller_may_fail(lab: Lab) -> None:
    """P30 With bad_rows: fail a row that cannot be sent is in errors.csv, and the others run."""
    job = lab.job(rows=None, prompts={"path": "-", "id": "id", "bad_rows": "fail"})
    rows = [{"id": "a", "text": "ECHO:a"}, {"id": "b", "text": object()}]
    assert lab.go(job, simulate=True, prompts=rows).rows == {"succeeded": 1, "failed": 1}
    (error,) = lab.table(which="errors", simulated=True)
    assert "object has no form in JSON" in error["message"]


def test_the_mode_of_a_call_replaces_the_jobs(lab: Lab) -> None:
    """`mode` is the option --mode: the same job, as a batch and online."""
    job = lab.job()
    assert plan(lab.load(job), mode="batch", simulate=True).mode == "batch"
    assert lab.go(job, simulate=True, mode="batch", wait=True).rows == {"succeeded": 5}
    assert plan(lab.load(job), simulate=True).rows == {"succeeded": 5}
    talk = lab.job(name="talk", conversation={"id": "id"})
    with pytest.raises(InputError, match="a batch cannot hold a conversation"):
        lab.go(talk, simulate=True, mode="batch")
