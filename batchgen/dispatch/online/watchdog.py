"""When a run stops by itself: its times (deadlines of calls, and a question once a second), and its tolerance of failures.

A process that was stopped and continued (SIGSTOP, a laptop's lid) lost time that nobody can be blamed for: everything
that is timed here moves by as much.
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

# Seconds that a tick may be late before the process is taken to have been stopped and continued.
STALLED = 2.0


# Seconds between two ticks.
TICK = 1.0


class GaveUpError(LimitError):
    """Nothing got through for so long that the job stops."""


class Watchdog:
    """Times of one run, in seconds: `timeout` for a call, `give_up` without anything getting through, `max_time` for all
    (None: no end). Use as an async context manager; `stop` is called with the reason when it is time, and `show` at
    every tick."""

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
        self.timeout, self._give_up, self._max_time = timeout, give_up, max_time
        self._limiter, self._host, self._in_flight, self._stop = limiter, host, in_flight, stop
        self._show, self._clock = show, clock
        self._began = self._due = clock()
        # When each call in flight must end, by its worker, those that began first in front; and those that did not.
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Watchdog:
        self._due = self._clock()
        self._next()
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in (self._timer, self._alarm):
            if timer is not None:
                timer.cancel()

    async def within(self, call: Coroutine[Any, Any, T]) -> T:
        """What a call brings. Raises TimeoutError when its time is over, by the wall clock, whatever still drips."""
        task = asyncio.current_task()
        assert task is not None
        self._deadlines[task] = self._clock() + self.timeout
        if self._alarm is None:
            self._set_alarm()
        before = task.cancelling()
        try:
            return await call
        except asyncio.CancelledError:
            # Who is cancelled for another reason too is to end, and not to try again.
            if task in self._late and task.uncancel() <= before:
                raise TimeoutError from None
            raise
        finally:
            self._deadlines.pop(task, None)
            self._late.discard(task)

    def _set_alarm(self) -> None:
        """For the call that must end first: all have the same time, so it is the one that began first."""
        first = next(iter(self._deadlines.values()), None)
        if first is None:
            self._alarm = None
        else:
            self._alarm = asyncio.get_running_loop().call_later(
                max(0.0, first - self._clock()), self._ring
            )

    def _ring(self) -> None:
        now = self._clock()
        self._notice(now)
        over = list(takewhile(lambda task: self._deadlines[task] <= now, self._deadlines))
        for task in over:
            del self._deadlines[task]
            self._late.add(task)
            task.cancel()
        self._set_alarm()

    def _next(self) -> None:
        self._due += TICK
        self._timer = asyncio.get_running_loop().call_later(
            max(0.0, self._due - self._clock()), self._tick
        )

    def _tick(self) -> None:
        now = self._clock()
        self._notice(now)
        self._check(now)
        self._show()
        self._next()

    def _notice(self, now: float) -> None:
        """See whether the process was stopped: before anything that is late because of it is acted on."""
        late = now - self._due
        if late > STALLED:
            self._limiter.shift_clock(late)
            self._deadlines = {task: when + late for task, when in self._deadlines.items()}
            self._due = now

    def _check(self, now: float) -> None:
        limiter = self._limiter
        since = limiter.trouble_since
        if self._max_time is not None and now - self._began > self._max_time:
            self._stop(
                LimitError(f"limits.max_time ({self._max_time:g} s) is over; run again to go on")
            )
        elif since is None:
            return
        elif not limiter.answered and now - since > NEVER_ANSWERED and not self._in_flight():
            told = f"{self._host} never answered ({limiter.trouble}); check provider.base_url and the network"
            self._stop(AccountError(told))
        elif now - since > self._give_up:
            told = f"nothing got through for {self._give_up:g} s (retry.give_up; {limiter.trouble}); run again later"
            self._stop(GaveUpError(told))
