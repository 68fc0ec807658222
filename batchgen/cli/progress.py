"""The progress of a run: a bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchgen.cli.terminal import print_message
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.dispatch import Progress
    from batchgen.job import Job
    from batchgen.session import ProgressCallback
    from batchgen.staging import LinesCallback

# Seconds between progress lines, and between updates of the bar.
LINE_INTERVAL = 30.0
BAR_INTERVAL = 0.2

_BAR_FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {rate_fmt}{postfix}]"
)


@contextmanager
def watching(name: str, *, quiet: bool) -> Iterator[tuple[ProgressCallback | None, float]]:
    """The progress callback for the run of a job, and the seconds between its calls."""
    if quiet:
        yield None, LINE_INTERVAL
    elif sys.stderr.isatty():
        bar = _Bar(name)
        try:
            yield bar, BAR_INTERVAL
        finally:
            bar.close()
    else:
        yield _Lines(name), LINE_INTERVAL


@contextmanager
def reading(job: Job, *, quiet: bool) -> Iterator[LinesCallback]:
    """What receives, in the block that reads a job's prompts, how many lines were read."""
    if quiet:
        yield lambda lines: None
    elif sys.stderr.isatty():
        counter = _ReadingCounter(f"{job.name}: {job.prompts.source}")
        try:
            yield counter
        finally:
            counter.close()
    else:
        yield _ReadingLines(job.name, job.prompts.source)


class _ReadingCounter:
    """A tqdm counter, which appears when the reading takes a moment."""

    def __init__(self, name: str) -> None:
        self._name = escape_controls(name)
        self._next = time.monotonic() + 2 * BAR_INTERVAL
        self._counter: Any = None

    def __call__(self, lines: int) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BAR_INTERVAL
        if self._counter is None:
            self._counter = _tqdm(self._name, unit=" lines")
        self._counter.n = lines
        self._counter.refresh()

    def close(self) -> None:
        if self._counter is not None:
            self._counter.close()


class _ReadingLines:
    """Prints every half minute how many lines were read."""

    def __init__(self, name: str, path: str) -> None:
        self._name, self._path = name, path
        self._next = time.monotonic() + LINE_INTERVAL

    def __call__(self, lines: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL
            print_message(f"{self._name}: read {lines:,} lines of {self._path}")


class _Bar:
    """A tqdm bar.

    It appears with the first progress, because messages from before the first call would break it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None

    def __call__(self, progress: Progress, before: Mapping[str, int]) -> None:
        done_before = before.get("succeeded", 0)
        if self._bar is None:
            self._bar = _tqdm(
                self._name, "row", initial=done_before, total=done_before, bar_format=_BAR_FORMAT
            )
        ended = progress.done + progress.incomplete + progress.failed
        self._bar.n = done_before + ended + progress.answered_remotely
        self._bar.total = max(sum(before.values()), self._bar.n)
        self._bar.set_postfix_str(escape_controls(describe(progress)), refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _tqdm(name: str, unit: str, **options: Any) -> Any:
    from tqdm import tqdm

    # In a container a terminal may report no size, and tqdm would draw nothing.
    columns, lines = os.get_terminal_size(sys.stderr.fileno())
    size = (
        {"dynamic_ncols": True}
        if columns and lines
        else {"ncols": columns or 80, "nrows": lines or 24}
    )
    return tqdm(desc=name, unit=unit, leave=False, **options, **size)


class _Lines:
    """Prints a progress line per call.

    A call within half an interval of the start or of another line prints nothing, so that a short
    run has no progress lines. The same line is not printed twice: a batch may take a day.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._next = time.monotonic() + LINE_INTERVAL / 2
        self._last = ""

    def __call__(self, progress: Progress, before: Mapping[str, int]) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_INTERVAL / 2
        done = before.get("succeeded", 0) + progress.done
        total = sum(before.values())
        text = f"{self._name}: {done:,} of {total:,} succeeded; {describe(progress)}"
        if text != self._last:
            print_message(text)
        self._last = text


def describe(progress: Progress) -> str:
    """The state of a run in a few words.

    What it waits for comes last, because a narrow terminal cuts the end off.
    """
    parts = []
    if progress.failed or progress.incomplete:
        parts.append(f"{progress.failed + progress.incomplete:,} failed or incomplete")
    if progress.cost:
        parts.append(f"${progress.cost / 1e9:.4f}")
    if progress.in_flight or not progress.waiting_for:
        parts.append(f"{progress.in_flight:,} in flight")
    if progress.waiting_for:
        parts.append(f"waiting for {progress.waiting_for}")
    return ", ".join(parts)
