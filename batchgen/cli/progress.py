"""How a run is watched: a bar on a terminal, a line every half minute elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchgen.cli.terminal import plain, say

if TYPE_CHECKING:
    from batchgen.dispatch import Progress

# Seconds between progress lines where there is no terminal, and between looks at a bar where there is one.
LINE_EVERY = 30.0
BAR_EVERY = 0.2

_FORM = "{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

ProgressCallback = Callable[["Progress", Mapping[str, int]], None]


@contextmanager
def watching(name: str, *, quiet: bool) -> Iterator[tuple[ProgressCallback | None, float]]:
    """What watches the run of a job, and the seconds between its looks."""
    if quiet:
        yield None, LINE_EVERY
    elif sys.stderr.isatty():
        bar = _Bar(name)
        try:
            yield bar, BAR_EVERY
        finally:
            bar.close()
    else:
        yield _Lines(name), LINE_EVERY


class _Bar:
    """A tqdm bar, from the first look on: what is said before the first call needs no bar, and must not break one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown: Any = None

    def __call__(self, progress: Progress, before: Mapping[str, int]) -> None:
        done = before.get("succeeded", 0)
        if self._shown is None:
            self._shown = _tqdm(self._name, done)
        self._shown.n = (
            done
            + progress.done
            + progress.answered_remotely
            + progress.incomplete
            + progress.failed
        )
        self._shown.total = max(sum(before.values()), self._shown.n)
        self._shown.set_postfix_str(plain(state(progress)), refresh=False)
        self._shown.refresh()

    def close(self) -> None:
        if self._shown is not None:
            self._shown.close()


def _tqdm(name: str, initial: int) -> Any:
    from tqdm import tqdm

    # A terminal that does not tell its size, as in a container, would show nothing.
    columns, lines = os.get_terminal_size(sys.stderr.fileno())
    size = (
        {"dynamic_ncols": True}
        if columns and lines
        else {"ncols": columns or 80, "nrows": lines or 24}
    )
    return tqdm(
        desc=name, initial=initial, total=initial, unit="row", bar_format=_FORM, leave=False, **size
    )


class _Lines:
    """A progress line for every look but the first and one that follows it soon, a short run needs none; not the same twice."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next = time.monotonic() + LINE_EVERY / 2
        self._said = ""

    def __call__(self, progress: Progress, before: Mapping[str, int]) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_EVERY / 2
        done = before.get("succeeded", 0) + progress.done
        line = f"{self._name}: {done:,} of {sum(before.values()):,} succeeded; {state(progress)}"
        # A batch may take a day.
        if line != self._said:
            say(line)
        self._said = line


def state(progress: Progress) -> str:
    """What a run is at; what it waits for comes last, where a narrow terminal may cut it."""
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
