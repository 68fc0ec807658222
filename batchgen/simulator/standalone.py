"""The simulator as a server of its own: what `batchgen simulate` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from batchgen.simulator.server import Simulator
from batchgen.simulator.settings import Settings


async def serve(settings: Settings, port: int, ready: Callable[[str], None] | None = None) -> None:
    """Run a simulator on 127.0.0.1 at `port` until cancelled; `ready` gets its URL.

    Raises InputError if the port cannot be used.
    """
    simulator = Simulator(settings)
    await simulator.start(port=port)
    try:
        if ready is not None:
            ready(simulator.url)
        await asyncio.Event().wait()
    finally:
        await simulator.stop()
