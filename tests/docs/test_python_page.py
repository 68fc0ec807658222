"""docs/python.md and the public Python API agree."""

from __future__ import annotations

import inspect
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import batchgen
from batchgen import Options

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")


def test_every_option_is_on_the_page() -> None:
    """The table of options has each field of Options, in order."""
    table = PAGE.split("| option | type")[1].split("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert listed == [each.name for each in fields(Options)]


def test_the_functions_take_what_the_page_says() -> None:
    """Each function of the page exists, and takes the parameters that are shown."""
    shown = re.findall(r"^\| `(\w+)\((.*?)\)` \|", PAGE, flags=re.MULTILINE)
    assert {name for name, _ in shown} == {"load_job", "plan", "run", "cancel", "results"}
    for name, parameters in shown:
        known = inspect.signature(getattr(batchgen, name)).parameters
        for each in parameters.replace("()", "").split(", "):
            assert each.split("=")[0] in known, f"{name}: {each}"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's code runs as it stands, and the changed row alone is asked for."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        exec(code, names)
    assert names["report"].exit_code == 0
    assert names["report"].run.calls == 1
    assert names["table"]["name"][0] == "Mini kettle"


def test_the_errors_exist() -> None:
    """Each error that the page names is public and a BatchgenError."""
    named = set(re.findall(r"`(\w+Error)`", PAGE))
    assert named
    for name in named:
        assert issubclass(getattr(batchgen, name), batchgen.BatchgenError)
