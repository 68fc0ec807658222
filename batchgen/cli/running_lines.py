"""What `status` says of a run that goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from batchgen.cli.progress_lines import SILENT


def running_lines(running: Mapping[str, Any], now: float | None = None) -> Iterator[str]:
    """The lines: since when and how fast, then what it waits for.

    running: what `queries.status` returns as `running`.
    now: seconds since 1970, by default the present.
    """
    from batchgen.dispatch import Wait
    from batchgen.report import describe_duration, describe_stop, describe_wait

    now = time.time() if now is None else now
    since = datetime.fromtimestamp(running["started_at"])
    day = "" if since.date() == datetime.fromtimestamp(now).date() else f"{since:%Y-%m-%d} "
    lasted = describe_duration(now - running["started_at"])
    yield f"running since {day}{since:%H:%M:%S} ({lasted}), {running['phase']}"
    counts = ", ".join(_counts(running))
    if counts:
        yield f"  this run: {counts}"
    if running["stopping"]:
        yield f"  {describe_stop(running['in_flight'])}"
    elif running["wait"] is not None:
        yield f"  {describe_wait(Wait(**running['wait']), now)}"


def _counts(running: Mapping[str, Any]) -> Iterator[str]:
    from batchgen.report import describe_duration

    names = {"done": "done", "failed": "failed", "incomplete": "incomplete"}
    for name, words in {**names, "in_flight": "in flight", "left": "to do"}.items():
        if running[name] or name == "done":
            yield f"{running[name]:,} {words}"
    if running["in_flight"] and running["silent_for"] >= SILENT:
        yield f"no answer for {describe_duration(running['silent_for'])}"
    if running["rows_per_minute"]:
        yield f"{running['rows_per_minute']:,.0f} a minute"
    if running["seconds_left"] is not None and not running["stopping"]:
        yield f"{describe_duration(running['seconds_left'])} left"
    if running["cap"] is not None:
        yield f"${running['spent']:,.4f} of ${running['cap']:,.2f}"
