"""Tells the caller how far a run is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from batchgen.dispatch import Progress
from batchgen.session.options import Options


@asynccontextmanager
async def reporting(
    options: Options, progress: Progress, before: Mapping[str, int]
) -> AsyncIterator[None]:
    """Call `options.watch` every `options.every` seconds while the block runs, and once at its end.

    `before` holds the requests by status from before the run.
    """
    callback = options.watch
    if callback is None:
        yield
        return

    async def report() -> None:
        # The callback may fail (its terminal may be gone); the run then goes on without it.
        with suppress(Exception):
            while True:
                callback(progress, before)
                await asyncio.sleep(options.every)

    task = asyncio.create_task(report())
    try:
        yield
    finally:
        task.cancel()
        with suppress(Exception):
            callback(progress, before)
