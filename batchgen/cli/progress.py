"""The progress of a run: two lines on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchgen.cli.display import Display, can_draw
from batchgen.cli.progress_lines import progress_lines, progress_sentence
from batchgen.cli.terminal import print_message
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.dispatch import Progress
    from batchgen.job import Job
    from batchgen.session import ProgressCallback
    from batchgen.staging import LinesCallback

# Seconds between progress lines in a log, and between updates of a terminal.
LINE_INTERVAL = 30.0
DRAW_INTERVAL = 0.2

# Seconds between two looks at a run whose progress goes to a log: a long wait is told at its start.
LOG_INTERVAL = 1.0

Say = Callable[[str], None]


@contextmanager
def watching(name: str, *, quiet: bool) -> Iterator[tuple[ProgressCallback | None, float, Say]]:
    """Shows the progress of the run of a job while the block runs.

    Yields the callback, the seconds between its calls, and what prints a message meanwhile.
    """
    if quiet:
        yield None, LINE_INTERVAL, lambda text: None
    elif can_draw():
        display = Display()
        try:
            yield _Drawn(name, display), DRAW_INTERVAL, display.print_above
        finally:
            display.close()
    else:
        yield _Lines(name), LOG_INTERVAL, print_message


@contextmanager
def reading(job: Job, *, quiet: bool) -> Iterator[LinesCallback]:
    """What receives, in the block that reads a job's prompts, how many lines were read."""
    if quiet:
        yield lambda lines: None
    elif can_draw():
        counter = _ReadingCounter(job.name, job.prompts.source)
        try:
            yield counter
        finally:
            counter.close()
    else:
        yield _ReadingLines(job.name, job.prompts.source)


class _ReadingCounter:
    """A counter on a terminal, which appears when the reading takes a moment."""

    def __init__(self, name: str, path: str) -> None:
        self._name, self._path = escape_controls(name), escape_controls(path)
        self._began = time.monotonic()
        self._next = self._began + 2 * DRAW_INTERVAL
        self._display = Display()

    def __call__(self, lines: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + DRAW_INTERVAL
        counted = f"read {lines:,} lines"
        rate = f"{lines / (now - self._began):,.0f} a second"
        forms = (
            f"{self._name}: {counted} of {self._path}, {rate}",
            f"{self._name}: {counted} of {self._path}",
            f"{self._name}: {counted}",
        )
        fits = (each for each in forms if len(each) <= self._display.width)
        self._display.show([next(fits, counted)])

    def close(self) -> None:
        self._display.close()


class _ReadingLines:
    """Prints every half minute how many lines were read."""

    def __init__(self, name: str, path: str) -> None:
        self._name, self._path = name, path
        self._next = time.monotonic() + LINE_INTERVAL

    def __call__(self, lines: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL
            print_message(f"{self._name}: read {lines:,} lines of {self._path}")


class _Drawn:
    """Two lines of a terminal. They appear with the first call."""

    def __init__(self, name: str, display: Display) -> None:
        self._name, self._display = name, display

    def __call__(self, progress: Progress, before: Mapping[str, int]) -> None:
        self._display.show(
            progress_lines(self._name, progress, before, width=self._display.width, now=time.time())
        )


class _Lines:
    """Prints a line every half minute, and at the start of each long wait.

    A short run has no lines. The same line is not printed twice: a batch may take a day.
    """

    def __init__(self, name: str) -> None:
        from batchgen.report import LongWaits

        self._name = name
        self._next = time.monotonic() + LINE_INTERVAL
        self._last = ""
        self._waits = LongWaits()

    def __call__(self, progress: Progress, before: Mapping[str, int]) -> None:
        now = time.time()
        begun, _ = self._waits.observe(progress.wait, now)
        is_due = time.monotonic() >= self._next
        if not begun and not is_due:
            return
        self._next = time.monotonic() + LINE_INTERVAL
        text = f"{self._name}: {progress_sentence(progress, before, now)}"
        if text != self._last:
            print_message(text)
        self._last = text
