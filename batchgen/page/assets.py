"""The parts of the pages that lie beside this module: templates, the style and the script."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined


@cache
def asset(name: str) -> str:
    """The text of a part, such as `page.css`."""
    return files("batchgen.page").joinpath(name).read_text(encoding="utf-8")


@cache
def template(name: str) -> Any:
    """A part as a template; values are escaped."""
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(asset(name))
