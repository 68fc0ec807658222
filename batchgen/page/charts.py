"""What happened over time -> charts as SVG, without a script.

pygal draws them: it is pure Python without dependencies, and its SVG is small, prints, and takes
its colours from the page, light or dark. Plotly, Bokeh and Altair bring 0.8 to 5 MB of script
that would have to be in every page.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import pygal
from pygal.style import Style

from batchgen.page.activity import Activity

# pygal looks for plugins of its own in every import of the process, in a way that Python 3.11 warns
# of and 3.12 ignores. There are none.
sys.meta_path[:] = [each for each in sys.meta_path if type(each).__module__ != "pygal"]

_SVG = "http://www.w3.org/2000/svg"
# Fills that are told apart on light and on dark, by all kinds of eyes: Okabe and Ito, 2008.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="currentColor",
    foreground_strong="currentColor",
    foreground_subtle="currentColor",
    colors=_COLOURS,
    opacity=".9",
    opacity_hover="1",
    font_family="system-ui, sans-serif",
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=14,
    title_font_size=15,
)


def charts(activity: Activity) -> list[str]:
    """Three charts: answers a minute, seconds an answer, and failures, the last if there are any.

    Each is an SVG element as text.
    """
    per_minute = [count * 60 / activity.width for count in activity.answers]
    drawn = [
        _chart(pygal.Bar, "Answers a minute", {"answers": per_minute}, activity),
        _chart(
            pygal.CHARTS_BY_NAME["Line"],
            "Seconds an answer",
            {"half within": activity.median, "95 % within": activity.slow},
            activity,
        ),
    ]
    if activity.failures:
        drawn.append(_chart(pygal.StackedBar, "Failed attempts", activity.failures, activity))
    return drawn


def _chart(
    kind: Any, title: str, series: Mapping[str, Sequence[float | None]], activity: Activity
) -> str:
    labels = [_elapsed(part * activity.width) for part in range(len(activity.answers))]
    chart = kind(
        title=title,
        style=_STYLE,
        js=(),
        width=560,
        height=260,
        margin=6,
        show_dots=False,
        show_legend=len(series) > 1,
        legend_at_bottom=True,
        truncate_label=-1,
        show_minor_x_labels=False,
        show_x_guides=False,
        x_labels_major_every=max(1, len(labels) // 4),
        max_scale=5,
        include_x_axis=True,
        value_formatter=lambda value: f"{value:,.4g}",
    )
    # pygal's own is random: the same run would give another page each time.
    chart.uuid = title.lower().replace(" ", "-")
    chart.x_labels = labels
    for name, values in series.items():
        chart.add(name, list(values))
    return _drawing_alone(chart.render_tree())


def _drawing_alone(tree: ElementTree.Element) -> str:
    """An SVG without pygal's notes on itself and its settings for a script that is not there."""
    for parent in tree.iter():
        for child in list(parent):
            if child.tag in ("script", f"{{{_SVG}}}script", ElementTree.Comment):
                parent.remove(child)
    return ElementTree.tostring(tree, encoding="unicode")


def _elapsed(seconds: float) -> str:
    """A time since the beginning: `2.5 s`, `40 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
