"""The page of a job: report.html beside the tables, and what `batchgen view` shows.

- `cards`       a table line with its request and answer -> what the page shows of it
- `selection`   which lines the page has, where it cannot have all
- `activity`    attempts -> answers, failures and waiting over time
- `charts`      activity -> SVG; the only door to pygal
- `thumbnails`  pictures -> small ones, inside the page
- `comparison`  answers side by side -> a page of their own
- `assets`      templates, style and script, as they lie here
- `write`       all of it -> report.html
- `page.html`, `page.css`, `page.js`: the page itself

What a model wrote is only ever text: the template escapes it, the script sets it as text, and the
page's own policy forbids every other script.
"""

from batchgen.page.cards import (
    MOST_TEXT,
    Card,
    Cards,
    asked_cards,
    cut,
    has_words,
    history_cards,
    reply_cards,
)
from batchgen.page.comparison import render_comparison
from batchgen.page.thumbnails import thumbnail
from batchgen.page.write import PAGE, PageFacts, charts_of, render_page, write_page

__all__ = [
    "MOST_TEXT",
    "PAGE",
    "Card",
    "Cards",
    "PageFacts",
    "asked_cards",
    "charts_of",
    "cut",
    "has_words",
    "history_cards",
    "render_comparison",
    "render_page",
    "reply_cards",
    "thumbnail",
    "write_page",
]
