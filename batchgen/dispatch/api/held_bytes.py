"""Bounds the bytes of large replies that are in memory at one time, whatever is in flight.

A reply of pictures is megabytes, and takes several times its size while it is parsed, decoded and
verified. With many in flight they come together. So a large reply is read only when there is room;
meanwhile it waits in the connection, where the server's sending stops.
"""

from __future__ import annotations

import asyncio
from typing import Any

# Bytes of large replies that are held at one time; one reply alone may be larger.
MOST_HELD = 32 * 1024 * 1024
# A smaller reply counts as nothing: replies of text are kilobytes.
SMALL = 128 * 1024
# What a reply is taken to have while neither it nor an earlier one has told its size.
GUESS = 8 * 1024 * 1024


class HeldBytes:
    """The large replies that are in memory. A task holds at most one, its latest."""

    def __init__(self, most: int = MOST_HELD) -> None:
        self._most = most
        self._sizes: dict[asyncio.Task[Any], int] = {}
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()
        self._largest = 0

    @property
    def held(self) -> int:
        """How many bytes are held now."""
        return sum(self._sizes.values())

    async def take(self, size: int | None = None) -> None:
        """Wait, first come first served, until there is room for a reply of the current task.

        `size` in bytes; None if it is not known: then it counts as much as the largest before.
        """
        self.release()
        size = (self._largest or GUESS) if size is None else size
        async with self._turn:
            while self._sizes and self.held + size > self._most:
                self._released.clear()
                await self._released.wait()
            self._sizes[_task()] = size
            _task().add_done_callback(self._drop)

    def settle(self, size: int) -> None:
        """Note how large the current task's reply is, now that it is read."""
        if _task() in self._sizes:
            self._largest = max(self._largest, size)
            self._sizes[_task()] = size
            self._released.set()

    def release(self) -> None:
        """Note that the current task's reply is no longer in memory."""
        _task().remove_done_callback(self._drop)
        self._drop(_task())

    def _drop(self, task: asyncio.Task[Any]) -> None:
        if self._sizes.pop(task, None) is not None:
            self._released.set()


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
