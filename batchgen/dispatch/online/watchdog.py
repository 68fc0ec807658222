"""The times of a run: deadlines of calls, and the reasons to stop by itself.

A process may be suspended and continued (SIGSTOP, a closed laptop). That time must not count, so
every deadline here moves by as much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import takewhile
from typing import Any, TypeVar

from batchgen.dispatch.limits.adaptive.limiter import AdaptiveLimiter
from batchgen.dispatch.limits.window import Clock
from batchgen.errors import AccountError, BatchgenError, LimitError

T = TypeVar("T")

# Seconds after which a host that never answered stops the job.
NEVER_ANSWERED = 30.0
# Seconds between two ticks.
TICK = 1.0
# A tick that is later than this, in seconds, means that the process was suspended.
SUSPENDED = 2.0


class GaveUpError(LimitError):
    """Nothing got through for so long that the job stops."""


class Watchdog:
    """Ends calls that take too long, and stops a run that makes no progress.

    Use as an async context manager.
    """

    def __init__(
        self,
        *,
        timeout: float,
        give_up: float,
        max_time: float | None,
        limiter: AdaptiveLimiter,
        host: str,
        in_flight: Callable[[], int],
        stop: Callable[[BatchgenError], None],
        show: Callable[[], None],
        clock: Clock,
    ) -> None:
        """Prepare the times of a run, all in seconds.

        timeout: for one call.
        give_up: without any success, after which the run stops.
        max_time: for the whole run; None for no limit.
        limiter: knows since when nothing has got through, and why.
        host: the server's name in messages.
        in_flight: how many calls are in flight.
        stop: called with the reason to stop the run.
        show: called at every tick.
        clock: the run's clock.
        """
        self.timeout, self._give_up, self._max_time = timeout, give_up, max_time
        self._limiter, self._host, self._in_flight, self._stop = limiter, host, in_flight, stop
        self._show, self._clock = show, clock
        self._began = self._due = clock()
        # The deadline of each worker's call, those that began first in front.
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        # Workers whose call was cancelled because its deadline has passed.
        self._late: set[asyncio.Task[Any]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Watchdog:
        self._due = self._clock()
        self._schedule_tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in (self._timer, self._alarm):
            if timer is not None:
                timer.cancel()

    async def within(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call. Raises TimeoutError at its deadline, even if bytes still arrive."""
        task = asyncio.current_task()
        assert task is not None
        self._deadlines[task] = self._clock() + self.timeout
        if self._alarm is None:
            self._set_alarm()
        before = task.cancelling()
        try:
            return await call
        except asyncio.CancelledError:
            # A worker that is also cancelled for another reason must end, and must not retry.
            if task in self._late and task.uncancel() <= before:
                raise TimeoutError from None
            raise
        finally:
            self._deadlines.pop(task, None)
            self._late.discard(task)

    def _set_alarm(self) -> None:
        """Set one timer for the next deadline: timers per call would cost CPU."""
        # All calls have the same time-out, so the deadline of the first to begin comes first.
        first = next(iter(self._deadlines.values()), None)
        if first is None:
            self._alarm = None
        else:
            delay = max(0.0, first - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        now = self._clock()
        self._shift_if_suspended(now)
        over = list(takewhile(lambda task: self._deadlines[task] <= now, self._deadlines))
        for task in over:
            del self._deadlines[task]
            self._late.add(task)
            task.cancel()
        self._set_alarm()

    def _schedule_tick(self) -> None:
        self._due += TICK
        delay = max(0.0, self._due - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        self._shift_if_suspended(now)
        self._check(now)
        self._show()
        self._schedule_tick()

    def _shift_if_suspended(self, now: float) -> None:
        """Move all times if the process was suspended, before anything counts as late."""
        late = now - self._due
        if late > SUSPENDED:
            self._limiter.shift_clock(late)
            self._deadlines = {task: when + late for task, when in self._deadlines.items()}
            self._due = now

    def _check(self, now: float) -> None:
        """Stop the run if it is time."""
        limiter = self._limiter
        since = limiter.trouble_since
        if self._max_time is not None and now - self._began > self._max_time:
            self._stop(
                LimitError(f"limits.max_time ({self._max_time:g} s) is over; run again to go on")
            )
        elif since is None:
            return
        elif not limiter.answered and now - since > NEVER_ANSWERED and not self._in_flight():
            self._stop(
                AccountError(
                    f"{self._host} never answered ({limiter.trouble});"
                    " check provider.base_url and the network"
                )
            )
        elif now - since > self._give_up:
            self._stop(
                GaveUpError(
                    f"nothing got through for {self._give_up:g} s"
                    f" (retry.give_up; {limiter.trouble}); run again later"
                )
            )
