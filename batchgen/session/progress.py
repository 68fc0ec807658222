"""Measures how far a run is, and publishes it: to its caller, in running.json and in run.log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC

from batchgen.dispatch import Progress
from batchgen.errors import OutputError
from batchgen.report import LongWaits, Pace, describe_duration, describe_wait
from batchgen.session.options import Options, ProgressCallback
from batchgen.workspace import RunningNote

# Seconds between two measurements, and between two writes of running.json.
MEASURE = 1.0
WRITE = 2.0

SENDING = "sending"


class Monitor:
    """Watches the progress of one run.

    options: `watch` is called every `every` seconds; if it fails, the run goes on without it.
    progress: the run's, whose rate is set here.
    before: the requests by status from before the run.
    note: is written while the run goes on.
    log: writes a line to run.log.
    """

    def __init__(
        self,
        *,
        options: Options,
        progress: Progress,
        before: Mapping[str, int],
        note: RunningNote,
        log: Callable[[str], None],
    ) -> None:
        self._watch: ProgressCallback | None = options.watch
        self._every = options.every
        self._progress, self._before, self._note, self._log = progress, before, note, log
        self._pace, self._waits = Pace(), LongWaits()
        self._ended, self._ended_at = 0, time.time()
        self._measure_at = self._write_at = float("-inf")

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch while the block runs, and call the caller once more at its end."""
        task = asyncio.create_task(self._repeat())
        try:
            yield
        finally:
            task.cancel()
            self._call()

    async def _repeat(self) -> None:
        while True:
            now = time.monotonic()
            if now >= self._measure_at:
                self._measure_at = now + MEASURE
                self._measure()
            if now >= self._write_at:
                self._write_at = now + WRITE
                self._note.write(SENDING, self._progress)
            self._call()
            await asyncio.sleep(min(self._every, MEASURE) if self._watch else MEASURE)

    def _measure(self) -> None:
        progress, now = self._progress, time.time()
        # Batches answer in steps, hours apart.
        in_batches = progress.wait is not None and progress.wait.cause == "batches"
        rate = self._pace.per_minute(progress.ended)
        progress.rate = None if in_batches else rate
        if progress.ended != self._ended:
            self._ended, self._ended_at = progress.ended, now
        progress.silent_for = max(0.0, now - self._ended_at)
        begun, lasted = self._waits.observe(progress.wait, now)
        # A disk that takes no more is the business of those who write answers.
        with suppress(OutputError):
            if lasted is not None:
                self._log(f"the wait is over after {describe_duration(lasted)}")
            if begun is not None:
                self._log(describe_wait(begun, now, UTC))

    def _call(self) -> None:
        if self._watch is not None:
            try:
                self._watch(self._progress, self._before)
            except Exception:
                self._watch = None
