"""What holds the next call back, in words: see `Wait`."""

from __future__ import annotations

import time

from batchgen.dispatch import Wait
from batchgen.dispatch.limits.adaptive.limiter import AdaptiveLimiter
from batchgen.dispatch.limits.window import Clock

# Seconds: a pause that is shorter than this is the pace of a limit, and has no end worth saying.
SHORTEST = 2.0

# Seconds for which the pace of a limit is shown after it was seen last.
STEADY = 3.0


def server_wait(
    adaptive: AdaptiveLimiter, clock: Clock, host: str, unreached: str, trouble: str
) -> Wait | None:
    """What the server makes the next call wait for.

    adaptive: knows its limits and outages.
    clock: the run's clock.
    host: the server's name in messages.
    unreached: why it cannot be reached, in words; empty if it can.
    trouble: what its last error said.
    """
    now, hold = clock(), adaptive.hold
    if adaptive.state == "tripped":
        cause = "no connection" if unreached else "outage"
        what = f"cannot reach {host} ({unreached})" if unreached else f"{host} fails ({trouble})"
        if hold.probing:
            return Wait(cause=cause, reason=f"{what}; one call tries it now")
        until = max(hold.probe_at, hold.not_before)
        return Wait(cause=cause, reason=what, until=_wall_time(until - now))
    if hold.not_before - now > SHORTEST:
        return Wait(
            cause="Retry-After",
            reason="the server asked for it with Retry-After",
            until=_wall_time(hold.not_before - now),
        )
    if adaptive.state == "limited" and now < max(hold.paced_until, hold.not_before):
        reason = "held back by the server's rate limit"
        return Wait(cause="rate limit", reason=reason, is_pace=True)
    return None


def limit_wait(name: str, limit: float, seconds: float) -> Wait:
    """What a limit of the job makes the next call wait for.

    name: of the limit, as in `limits`.
    limit: its units a minute.
    seconds: how long it still holds the call back.
    """
    return Wait(
        cause=f"limits.{name}",
        reason=f"held back by limits.{name} ({limit:,g})",
        until=_wall_time(seconds) if seconds > SHORTEST else None,
        is_pace=seconds <= SHORTEST,
    )


def concurrency_wait(most: int, wanted: int) -> Wait:
    """What a run waits for that has `most` calls in flight, of which its job allows `wanted`."""
    cause = "limits.concurrency" if most >= wanted else "the limit on open files"
    return Wait(cause=cause, reason=f"held back by {cause} ({most:,})", is_pace=True)


def retry_wait(rows: int, seconds: float) -> Wait:
    """What a run waits for that has only failed rows left: the first is tried again so soon."""
    reason = f"{rows:,} failed row{'s' * (rows != 1)} to be tried again"
    return Wait(cause="retry", reason=reason, until=_wall_time(seconds))


class SteadyWait:
    """Keeps a pace that comes and goes for a while, so that people can read it."""

    def __init__(self) -> None:
        self._last: Wait | None = None
        self._seen_at = float("-inf")

    def after(self, wait: Wait | None, now: float) -> Wait | None:
        """What to show for the `wait` that is seen now, in seconds on any clock."""
        if wait is not None:
            self._last, self._seen_at = wait, now
        elif self._last is None or not self._last.is_pace or now - self._seen_at > STEADY:
            self._last = None
        return self._last


def _wall_time(seconds: float) -> float:
    return time.time() + max(0.0, seconds)
