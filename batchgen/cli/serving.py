"""Servers that run until somebody interrupts them."""

from __future__ import annotations

import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


async def until_signalled(serving: Coroutine[Any, Any, None]) -> None:
    """Run a server until it ends or a signal ends it."""
    import asyncio

    task = asyncio.ensure_future(serving)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
