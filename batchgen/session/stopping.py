"""What a run says when a signal stops it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from batchgen.dispatch import Progress
from batchgen.errors import BatchgenError
from batchgen.journal import Journal
from batchgen.journal.batches import open_batches
from batchgen.report import describe_stop, pluralize

# What a backend is stopped with: `stop(why, drain=seconds)`.
Stop = Callable[..., None]


class StopNotices:
    """Says once that a run stops and what it waits for, and once that it stops now."""

    def __init__(self, progress: Progress, journal: Journal, say: Callable[[str], None]) -> None:
        self._progress, self._journal, self._say = progress, journal, say
        self._count = 0

    def around(self, stop: Stop) -> Stop:
        """The function that says so and then stops a backend."""
        return partial(self._stop, stop)

    def _stop(self, stop: Stop, why: BatchgenError, *, drain: float | None = None) -> None:
        self._count += 1
        if self._count == 1:
            self._say(self._first(is_interrupt=why.exit_code == 130, drain=drain))
        elif self._count == 2 and self._progress.in_flight:
            calls = pluralize(self._progress.in_flight, "call")
            self._say(f"stopping now: {calls} broken off, which may be billed")
        stop(why, drain=drain)

    def _first(self, *, is_interrupt: bool, drain: float | None) -> str:
        in_flight = self._progress.in_flight
        parts = [describe_stop(in_flight)]
        if in_flight and drain is not None:
            parts[0] += f", at most {drain:g} s"
        if batches := len(open_batches(self._journal)):
            parts.append(f"{batches:,} batch{'es' * (batches != 1)} at the server for the next run")
        if is_interrupt and in_flight:
            parts.append("Ctrl-C again stops now")
        return "; ".join(parts)
