"""A run that goes on: what it has done, how fast it is, what it waits for; in words and as JSON."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime, tzinfo
from typing import Any

from batchgen.dispatch import Progress, Wait
from batchgen.pricing import dollars
from batchgen.report.wording import pluralize

# Seconds: a wait that is at least as long is announced when it begins.
LONG_WAIT = 5.0

# Seconds after the end of a wait within which another one of the same cause goes on with it: an
# outage is many waits, one for each probe.
SAME_WAIT = 60.0


def progress_json(progress: Progress) -> dict[str, Any]:
    """What `status` shows of a run that goes on."""
    spent = (progress.spent_before if progress.cap is not None else 0) + progress.cost
    return {
        "done": progress.done,
        "incomplete": progress.incomplete,
        "failed": progress.failed,
        "answered_remotely": progress.answered_remotely,
        "left": progress.left,
        "in_flight": progress.in_flight,
        "silent_for": progress.silent_for,
        "rows_per_minute": progress.rate,
        "seconds_left": progress.seconds_left,
        "spent": dollars(spent),
        "cap": None if progress.cap is None else dollars(progress.cap),
        "stopping": progress.stopping,
        "wait": asdict(progress.wait) if progress.wait else None,
    }


def describe_wait(wait: Wait, now: float, zone: tzinfo | None = None) -> str:
    """What a run waits for: `waiting until 14:03:20 (34 s): the server asked for it ...`.

    wait: what holds the next call back.
    now: seconds since 1970.
    zone: of the time; None for that of this machine.
    """
    if wait.until is None:
        return wait.reason
    return f"{describe_end(wait.until, now, zone)}: {wait.reason}"


def describe_end(until: float, now: float, zone: tzinfo | None = None) -> str:
    """The end of a wait: `waiting until 14:03:20 (34 s)`; arguments are as in `describe_wait`."""
    end = datetime.fromtimestamp(until, zone)
    day = "" if end.date() == datetime.fromtimestamp(now, zone).date() else f"{end:%Y-%m-%d} "
    return f"waiting until {day}{end:%H:%M:%S} ({describe_duration(until - now)})"


def describe_duration(seconds: float) -> str:
    """A time as people write it: `45 s`, `12 min`, `3 h 20 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def describe_stop(in_flight: int) -> str:
    """What a run that stops waits for."""
    if not in_flight:
        return "stopping: no call is in flight"
    return f"stopping: waiting for {pluralize(in_flight, 'answer')} already paid for"


class LongWaits:
    """Notices when a long wait begins and when it is over."""

    def __init__(self) -> None:
        self._cause = ""
        self._began = self._until = 0.0

    def observe(self, wait: Wait | None, now: float) -> tuple[Wait | None, float | None]:
        """Note what a run waits for at `now`, in seconds since 1970.

        Returns the wait if a long one has begun, and if one is over, how long it was.
        """
        if wait is not None and wait.cause == self._cause:
            self._until = max(self._until, wait.until or now)
            return None, None
        is_long = wait is not None and wait.until is not None and wait.until - now >= LONG_WAIT
        lasted = None
        if self._cause and (is_long or now > self._until + SAME_WAIT):
            lasted = min(now, self._until) - self._began
            self._cause = ""
        if wait is None or not is_long:
            return None, lasted
        self._cause, self._began, self._until = wait.cause, now, wait.until or now
        return wait, lasted


class Pace:
    """Measures how many requests end in a minute, lately."""

    # Seconds, and requests, that a measurement spans at least, and seconds that it spans at most.
    SECONDS = 60.0
    REQUESTS = 20
    LONGEST = 900.0

    # Seconds before which nothing is known.
    FIRST = 3.0

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    def per_minute(self, ended: int, now: float | None = None) -> float | None:
        """Requests a minute, when `ended` of them have ended by now; None when it is too early.

        `now` is in seconds on a clock that never goes back.
        """
        now = time.monotonic() if now is None else now
        self._samples.append((now, ended))
        while len(self._samples) > 2 and self._is_old(self._samples[1], ended, now):
            self._samples.pop(0)
        at, before = self._samples[0]
        if now - at < self.FIRST or ended <= before:
            return None
        return (ended - before) / (now - at) * 60

    def _is_old(self, sample: tuple[float, int], ended: int, now: float) -> bool:
        seconds = now - sample[0]
        is_enough = seconds >= self.SECONDS and ended - sample[1] >= self.REQUESTS
        return is_enough or seconds > self.LONGEST
