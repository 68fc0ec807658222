"""Rows that are nested deeply go through everything, or are refused before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import Lab

from batchgen import InputError, plan
from batchgen.prompts.records import MOST_LEVELS


def deep(levels: int) -> str:
    """JSON with so many levels, the row's own counted."""
    return '{"id": "a", "deep": ' + "[" * (levels - 1) + "1" + "]" * (levels - 1) + "}\n"


def nested_job(lab: Lab, levels: int) -> Path:
    (lab.folder / "p.jsonl").write_text(deep(levels), encoding="utf-8")
    request = {
        "model": "gpt-5.6-luna",
        "messages": [{"role": "user", "content": "{{ deep | tojson }}"}],
        "metadata": {"deep": "{{ deep }}"},
    }
    return lab.job(
        prompts={"path": "p.jsonl", "id": "id"},
        request=request,
        output={"tables": ["csv", "jsonl", "openai-batch"]},
    )


def test_the_deepest_row_that_is_read_goes_through_everything(lab: Lab) -> None:
    """P28 P30 A row with the most levels is rendered, sent, recorded and written to every table."""
    job = nested_job(lab, MOST_LEVELS)
    assert plan(lab.load(job), simulate=True).calls == 1
    ran = lab.run("run", job, "--simulate")
    assert ran.returncode == 0, ran.stderr
    line = (lab.output(simulated=True) / "results.jsonl").read_text(encoding="utf-8")
    assert json.loads(line)["deep"] == json.loads(deep(MOST_LEVELS))["deep"]


@pytest.mark.parametrize("levels", [MOST_LEVELS + 1, 975, 990, 5000])
def test_deeper_rows_are_refused_in_words(lab: Lab, levels: int) -> None:
    """P30 One level more, and all that Python could still read or not, is a fault of its line."""
    job = nested_job(lab, levels)
    with pytest.raises(InputError, match=r"p\.jsonl:1: the JSON is nested too deeply"):
        plan(lab.load(job), simulate=True)
