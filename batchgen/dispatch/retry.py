"""When a failed attempt is repeated, and after how long."""

from __future__ import annotations

from dataclasses import dataclass

from tenacity import RetryCallState, stop_after_attempt, wait_random_exponential

from batchgen.dispatch import Failure

# A row fails after this many time-outs: each of them may have been billed.
TIMEOUT_ATTEMPTS = 2

# A row fails when it is throttled this often while others are answered.
OWN_THROTTLES = 10
# From this many on, the cause is the row itself (a model without quota, a request beyond the
# limit), and other rows are not slowed down for it.
FEW_THROTTLES = 3

# A longer Retry-After, in seconds, means "come back later": the job stops.
LONGEST_WAIT = 600.0


@dataclass(slots=True, kw_only=True)
class Spent:
    """What a row has used up in a run.

    attempts: calls that count against its limit.
    timeouts: how many of them timed out.
    throttles: how often it was throttled while others were answered.
    """

    attempts: int = 0
    timeouts: int = 0
    throttles: int = 0


class Policy:
    """Decides whether and when an attempt is repeated.

    Waits grow exponentially with full jitter, so that rows which failed together do not come back
    together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    def __init__(self, *, attempts: int, max_wait: float) -> None:
        """`attempts` in total for one row; waits of at most `max_wait` seconds."""
        self._stop = stop_after_attempt(attempts)
        self._wait = wait_random_exponential(multiplier=1, max=max_wait)

    def should_retry(self, failure: Failure, spent: Spent) -> bool:
        """Whether another attempt follows.

        Throttling uses up no attempts, but fails a row that alone is throttled.
        """
        if failure.meaning == "throttled":
            return spent.throttles < OWN_THROTTLES
        if not failure.is_passing:
            return False
        if failure.meaning == "timeout" and spent.timeouts >= TIMEOUT_ATTEMPTS:
            return False
        return not self._stop(_state(spent.attempts))

    def delay(self, failure: Failure, spent: Spent) -> float:
        """Seconds to wait before the next attempt, and never less than the server's Retry-After.

        A throttle that concerns the whole job adds no wait: the limiter already slows every row.
        """
        tries = spent.throttles if failure.meaning == "throttled" else max(1, spent.attempts)
        backoff = float(self._wait(_state(tries))) if tries else 0.0
        return max(backoff, failure.retry_after or 0.0)


def _state(attempts: int) -> RetryCallState:
    # tenacity's strategies take the state of a call that tenacity itself makes; we make our own.
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = attempts
    return state
