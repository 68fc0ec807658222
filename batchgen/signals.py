"""INT, TERM and HUP: the first signal ends a run in order, the second on the spot."""

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
    """INT, TERM and HUP. Before a run has begun, the first ends it on the spot. From then on the first is noted: the
    dispatch, if there is one, drains, the tables are written, and the run ends with it; the second ends it on the spot.

    On the spot is a KeyboardInterrupt, which no `except Exception` holds up; it leaves the block as RunInterruptedError.
    """

    def __init__(self) -> None:
        self._why: RunInterruptedError | None = None
        self._told = False
        self._in_order = False
        self._stop: Callable[..., None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # What nohup, or a shell for a job in the background, had us ignore stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old or signal.SIG_DFL)
        if self._why is not None and (
            kind is KeyboardInterrupt or (kind is None and not self._told)
        ):
            raise self._why from None

    def end_in_order(self) -> None:
        """The run begins: from now on the first signal does not keep it from ending as it should."""
        self._in_order = True

    def set_stop(self, stop: Callable[..., None] | None) -> None:
        """Who is told of a signal from now on, on the running loop; of one that came before, at once."""
        self._loop = asyncio.get_running_loop() if stop else None
        self._stop = stop
        if stop and self._why:
            stop(self._why)

    def first(self, stopped: BatchgenError | None) -> BatchgenError | None:
        """What ends the run: a signal that came, else what stopped the dispatch."""
        self._told = self._why is not None
        return self._why or stopped

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        again = self._why is not None
        self._why = self._why or RunInterruptedError(number)
        if self._loop is not None and self._stop is not None:
            drain = 0.0 if again else None if number == signal.SIGINT else DRAIN
            self._loop.call_soon_threadsafe(partial(self._stop, self._why, drain=drain))
        elif again or not self._in_order:
            raise KeyboardInterrupt
