"""What a failure means, and when to try again: decided in data, the code before the status, never by the message.

The tables follow the API's error guide and what compatible servers send (OpenRouter's numeric codes and 402, Groq's 498,
vLLM's top-level errors, Ollama's error strings, Gemini's lists, FastAPI's detail).
"""

from __future__ import annotations

from dataclasses import dataclass

from tenacity import RetryCallState, stop_after_attempt, wait_random_exponential

from batchgen.dispatch import Failure

# Time-outs after which a row has failed: each of them may have been billed.
TIMEOUT_ATTEMPTS = 2

# So often a row may be throttled while others are answered. From the third time on it is the row's own matter (a model
# without quota, a request beyond the limit) and slows nobody else.
OWN_THROTTLES = 10
FEW_THROTTLES = 3


# Beyond this many seconds a Retry-After means "come back later", and the job stops.
LONGEST_WAIT = 600.0


@dataclass(slots=True, kw_only=True)
class Spent:
    """What a row has used up in a run: attempts that count, time-outs among them, and how often it was throttled while
    others were answered."""

    attempts: int = 0
    timeouts: int = 0
    throttles: int = 0


class Policy:
    """When a row's failed attempt is followed by another: `attempts` in total, waits of at most `max_wait` seconds.

    The waits are exponential with full jitter, so that rows which failed together do not come back together.
    """

    def __init__(self, *, attempts: int, max_wait: float) -> None:
        self._stop = stop_after_attempt(attempts)
        self._wait = wait_random_exponential(multiplier=1, max=max_wait)

    def should_retry(self, failure: Failure, spent: Spent) -> bool:
        """Whether to try again. Throttling spends no attempts; it ends a row that alone is throttled."""
        if failure.meaning == "throttled":
            return spent.throttles < OWN_THROTTLES
        if not failure.is_passing:
            return False
        if failure.meaning == "timeout" and spent.timeouts >= TIMEOUT_ATTEMPTS:
            return False
        return not self._stop(_state(spent.attempts))

    def delay(self, failure: Failure, spent: Spent) -> float:
        """Seconds to wait before the next attempt; what the server asked for is the least. What throttles the whole job
        needs no wait of the row's own."""
        times = spent.throttles if failure.meaning == "throttled" else max(1, spent.attempts)
        backoff = float(self._wait(_state(times))) if times else 0.0
        return max(backoff, failure.retry_after or 0.0)


def _state(attempts: int) -> RetryCallState:
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = attempts
    return state
