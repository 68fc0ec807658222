"""INT, TERM and HUP: the first signal ends a run in order, the second at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from batchgen.errors import BatchgenError, RunInterruptedError

# Seconds that calls in flight have to end after SIGTERM or SIGHUP: schedulers kill after thirty.
DRAIN = 25.0


class Signals:
    """Handles INT, TERM and HUP while its block runs.

    Before `end_in_order` is called, the first signal ends the block at once. After it, the first
    signal stops the backend that is at work, if there is one; the tables are still written. The
    second signal ends the block at once.

    "At once" is a KeyboardInterrupt, because no `except Exception` catches it. It leaves the block
    as a RunInterruptedError.
    """

    def __init__(self) -> None:
        self._interruption: RunInterruptedError | None = None
        # Whether the report of the run names the signal; then the block need not raise it.
        self._reported = False
        self._in_order = False
        self._stop: Callable[..., None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        # Python allows only the main thread to set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # nohup, and a shell for its background jobs, make us ignore a signal; that stays.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if self._interruption is not None and (
            kind is KeyboardInterrupt or (kind is None and not self._reported)
        ):
            raise self._interruption from None

    def end_in_order(self) -> None:
        """From now on the first signal lets the run write its tables and its report."""
        self._in_order = True

    def set_stop(self, stop: Callable[..., None] | None) -> None:
        """Set the function to call when a signal arrives; None for no function.

        It is called as `stop(error, drain=seconds)` on the loop that is running now. If a signal
        has arrived already, it is called at once, as `stop(error)`.
        """
        self._loop = asyncio.get_running_loop() if stop else None
        self._stop = stop
        if stop and self._interruption:
            stop(self._interruption)

    def reason_to_stop(self, stopped: BatchgenError | None) -> BatchgenError | None:
        """What ends the run: a signal if one has arrived, else what stopped the dispatch."""
        self._reported = self._interruption is not None
        return self._interruption or stopped

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_second = self._interruption is not None
        self._interruption = self._interruption or RunInterruptedError(number)
        if self._loop is not None and self._stop is not None:
            # A user can press Ctrl-C again to end calls in flight, so they get all their time.
            drain = 0.0 if is_second else None if number == signal.SIGINT else DRAIN
            self._loop.call_soon_threadsafe(partial(self._stop, self._interruption, drain=drain))
        elif is_second or not self._in_order:
            raise KeyboardInterrupt
