"""Which columns the tables have: chosen ones, and axes side by side."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from lab import Lab

from batchgen.errors import InputError
from batchgen.simulator import Simulator

MATRIX = {"language": ["German", "French"], "tone": ["dry", "warm"]}
REQUEST = {
    "model": "m",
    "messages": [{"role": "user", "content": "[echo] {{ id }} {{ language }} {{ tone }}"}],
}


def test_own_columns_are_chosen(lab: Lab, api: Simulator) -> None:
    """`output.columns_of_own` gives batchgen's columns and their order, computed ones too."""
    output = {"columns": {"size": "{{ output | length }}"}, "columns_of_own": ["output", "size"]}
    lab.go(lab.job(api.url, output=output))
    assert [*lab.table()[0]][-2:] == ["output", "size"]
    assert "status" not in lab.table()[0]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"columns_of_own": ["outptu"]}, "no column 'outptu'; did you mean 'output'"),
        ({"wide": "colour"}, "'colour' is not an axis of the matrix"),
    ],
)
def test_unknown_columns_are_refused(
    lab: Lab, api: Simulator, output: dict[str, Any], message: str
) -> None:
    """A column or an axis that does not exist is an error before any call."""
    with pytest.raises(InputError, match=message):
        lab.go(lab.job(api.url, matrix=MATRIX, request=REQUEST, output=output))
    assert api.requests.received == 0


def test_an_axis_stands_side_by_side(lab: Lab, api: Simulator) -> None:
    """With `output.wide` a line holds all values of an axis: the columns that batchgen adds are
    repeated for each, the axis has no column, other axes still make lines.
    """
    output = {"wide": "language", "columns_of_own": ["status", "output"]}
    lab.go(lab.job(api.url, matrix=MATRIX, request=REQUEST, output=output))
    table = lab.table()
    assert len(table) == 5 * 2
    assert [*table[0]][-5:] == [
        "tone",
        "status_German",
        "status_French",
        "output_German",
        "output_French",
    ]
    for row in table:
        for language in MATRIX["language"]:
            assert row[f"output_{language}"].splitlines()[0].endswith(f"{language} {row['tone']}")
    assert "language" not in table[0]


def test_choices_stand_side_by_side_too(lab: Lab, api: Simulator) -> None:
    """With several answers a request, the first choice of each value is in one line, then the
    second.
    """
    output = {"wide": "language", "columns_of_own": ["choice", "output"]}
    job = lab.job(
        api.url,
        matrix={"language": ["German", "French"]},
        request={**REQUEST, "n": 2, "messages": [{"role": "user", "content": "{{ language }}"}]},
        output=output,
    )
    lab.go(job)
    table = lab.table()
    assert [row["choice"] for row in table] == ["1", "2"] * 5
    assert all(row["output_German"] and row["output_French"] for row in table)


def test_a_wide_column_must_not_have_the_name_of_a_prompts_column(lab: Lab, api: Simulator) -> None:
    """A column such as output_German that the prompts have already is refused, with the way out."""
    with open(lab.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "output_German"], ["1", "x"]])
    with pytest.raises(InputError, match=r"'output_German' is also a column.*output.prefix"):
        lab.go(
            lab.job(api.url, rows=None, matrix=MATRIX, request=REQUEST, output={"wide": "language"})
        )


def test_the_dialect_of_a_csv_can_be_chosen(lab: Lab, api: Simulator) -> None:
    """`output.csv.delimiter` and `bom` replace what the prompts file has."""
    lab.go(lab.job(api.url, output={"csv": {"delimiter": "\t", "bom": True}}))
    data = (lab.output() / "results.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfid\ttext\t")
