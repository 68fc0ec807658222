"""The page of answers side by side: one file without a script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from batchgen.page.assets import asset, template


def render_comparison(facts: Mapping[str, Any]) -> str:
    """The page's HTML.

    facts: `name`, `simulated`, `note`; `tiles`, each a name and a text; `names` of the two sides;
        and `pairs`, each with `id`, `about` and two `sides`. A side is None, or has `about`,
        `parts` (texts, and whether each is changed) and `thumbnails`.
    """
    html: str = template("comparison.html").render(
        facts=facts,
        style=asset("page.css"),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    return html
