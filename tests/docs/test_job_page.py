"""docs/job-file.md and the model of the job file agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from batchgen.job import Job, Price
from batchgen.kinds import KINDS

PAGE = (Path(__file__).parent.parent.parent / "docs/job-file.md").read_text(encoding="utf-8")


def rows() -> dict[str, list[str]]:
    """The lines of the page's tables of keys, by key: type, default, unit, meaning, example."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 7]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {each[0].strip("`"): each[1:] for each in cells}


def keys(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a section of the job file with its field, as the page writes it."""
    for name, field in model.model_fields.items():
        path = before + (field.alias or name)
        yield path, field
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                inside = f"{path}.<model>." if kind is Price else f"{path}."
                yield from keys(kind, inside)


def test_every_key_is_on_the_page() -> None:
    """The page's tables have every key of the job file, and no others."""
    listed = set(rows())
    # The top level of a section without keys of its own, such as matrix, is a line too.
    known = {path for path, _ in keys(Job)}
    assert known - listed == set(), "docs/job-file.md lacks these keys"
    assert listed - known - set(KINDS) == set(), "docs/job-file.md has keys that do not exist"


def test_the_defaults_are_on_the_page() -> None:
    """A default that is a number, a text or a boolean is on the page."""
    for path, field in keys(Job):
        default = field.default
        if isinstance(default, (bool, int, float, str)) and default != "":
            shown = str(default).lower() if isinstance(default, bool) else f"{default}"
            assert f"`{shown}`" in rows()[path][1], path


def test_required_keys_are_marked() -> None:
    """What a job file cannot leave out is marked as required, except the name."""
    for path, field in keys(Job):
        if field.is_required() and path != "name":
            assert rows()[path][1] == "required", path


def test_every_kind_is_on_the_page() -> None:
    """The table of kinds has each kind with its endpoint and its required fields."""
    for kind in KINDS.values():
        required = ", ".join(f"`{name}`" for name in kind.required)
        caps = f" `{kind.token_caps[0]}` |" if kind.token_caps else " |"
        line = f"| `{kind.name}` | `{kind.endpoint}` | {required} |{caps}"
        assert re.search(rf"^{re.escape(line)}$", PAGE, flags=re.MULTILINE), line
