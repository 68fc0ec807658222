"""Which column names the rows."""

from __future__ import annotations

import re
from collections.abc import Collection

from batchgen.init.survey import Column, Survey
from batchgen.init.texts import is_results_table
from batchgen.tables import LEADING, TRAILING

# What the header of a column that names rows is or ends in, in the order of preference. The last
# are names of things, which may be written twice one day.
_NAMES = (
    r"(row|record|custom|item|unique)?[ _-]?(id|uid|uuid|guid)|#",
    r"sku|asin|e?an|ean[ _-]?(code|13)?|gtin|upc|isbn|mpn|handle|key|slug|barcode",
    r".*[ _-](id|uid|uuid|sku|ean)|.*[a-z\d](ID|Id)",
    r".*(nr|nummer)\.?|no\.?|number|.*[ _-](no|number|num|code|key|ref)\.?|code|ref|reference",
    r"num[eé]ro|r[eé]f[eé]rence|c[oó]digo|codice|артикул|номер|код|编号|編號|货号|品番|商品番号|番号",
    r"index|idx|column_1|unnamed: 0|rownames|n",
    r"name|title|titel|titre|nombre|nome|file([ _-]?name)?|url|link|keyword|product|act|topic",
)
_PATTERNS = tuple(re.compile(name) for name in _NAMES)


def id_column_of(survey: Survey, prompt: Collection[str]) -> str | None:
    """The column that is filled and different in every row and looks like a name or a number.

    `prompt` are the columns that the prompt uses; such a column needs a usual name.
    """
    own = {*LEADING, *TRAILING} if is_results_table(survey) else set()
    fitting = [
        column
        for column in survey.columns.values()
        if column.distinct and column.filled == survey.rows and column.name not in own
    ]
    ranked = [(rank, column) for column in fitting if (rank := _rank(column, prompt)) is not None]
    return min(ranked, key=lambda each: each[0])[1].name if ranked else None


def _rank(column: Column, prompt: Collection[str]) -> int | None:
    """How well a column can name rows, 0 the best; None: not at all."""
    for rank, pattern in enumerate(_PATTERNS):
        if pattern.fullmatch(column.name) or pattern.fullmatch(column.name.lower()):
            last = rank == len(_PATTERNS) - 1
            return None if last and list(prompt) == [column.name] else rank
    return len(_PATTERNS) if column.all("code") and column.name not in prompt else None


def names_things(name: str) -> bool:
    """Whether a column holds names of things by its header, which a prompt should show."""
    return bool(_PATTERNS[-1].fullmatch(name.lower()))
