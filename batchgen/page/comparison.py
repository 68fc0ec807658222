"""The page of answers side by side: one file without a script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined


def render_comparison(facts: Mapping[str, Any]) -> str:
    """The page's HTML.

    facts: `name`, `simulated`, `note`; `tiles`, each a name and a text; `names` of the two sides;
        and `pairs`, each with `id`, `about` and two `sides`. A side is None, or has `about`,
        `parts` (texts, and whether each is changed) and `thumbnails`.
    """
    html: str = _template().render(
        facts=facts,
        style=_asset("page.css"),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    return html


def _asset(name: str) -> str:
    return files("batchgen.page").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(_asset("comparison.html"))
