"""Requests, tokens and images per minute, enforced for each key as the API does.

A request is charged before it is answered, and the limits hold over seconds, not only minutes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from batchgen.simulator.refusals import RefusalError

# A client that waits exactly as long as the reply says must get through in spite of rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one request is charged; `model` is for the messages."""

    model: str
    tokens: int
    images: int = 0


class Bucket:
    """One limit of one key: units flow in evenly, and those of one second (at least 1) may burst.

    A request larger than that burst passes once enough has flowed in since the last request, so a
    client that paces itself passes. A request above the whole minute's limit never passes.
    """

    __slots__ = ("_at", "_depth", "_level", "_used", "per_minute", "rate")

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = per_minute
        self.rate = per_minute / 60
        self._depth = max(1.0, self.rate)
        self._level = math.inf
        self._used = 0.0
        self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` units may be taken; 0 for at once."""
        short = amount - self._available(amount, now)
        return short / self.rate if short > _ROUNDING * max(1.0, amount) else 0.0

    def take(self, amount: float, now: float) -> None:
        """Spend `amount` units at `now` (monotonic seconds); ask `wait` first."""
        self._level = self._available(amount, now) - amount
        self._used = self.used(now) + amount
        self._at = now

    def used(self, now: float) -> float:
        """Units of the minute's limit that have not flowed back yet, for the headers."""
        return max(0.0, self._used - (now - self._at) * self.rate)

    def _available(self, amount: float, now: float) -> float:
        return min(self._level + (now - self._at) * self.rate, max(self._depth, amount))


class Limits:
    """All limits of one server; every key has its own buckets.

    A request that is refused here is not charged.
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        ipm: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Limits per minute, None for none; `clock` returns monotonic seconds."""
        limits = {"requests": rpm, "tokens": tpm, "images": ipm}
        self._per_minute = {name: limit for name, limit in limits.items() if limit is not None}
        self._buckets: dict[str, dict[str, Bucket]] = {}
        self._clock = clock

    def admit(self, key: str, cost: Cost) -> dict[str, str]:
        """Charge one request to `key`, and return its x-ratelimit headers.

        Raises RefusalError (429) above a limit; then nothing is charged.
        """
        if not self._per_minute:
            return {}
        now = self._clock()
        buckets = self._buckets_of(key, now)
        amounts = {"requests": 1, "tokens": cost.tokens, "images": cost.images}
        waits = {
            name: self._wait(name, bucket, amounts[name], cost, now)
            for name, bucket in buckets.items()
        }
        slowest = max(waits, key=waits.__getitem__)
        if waits[slowest] > 0:
            raise _reached(slowest, waits[slowest], cost, buckets, now)
        for name, bucket in buckets.items():
            bucket.take(amounts[name], now)
        return _headers(buckets, now)

    def _buckets_of(self, key: str, now: float) -> dict[str, Bucket]:
        if key not in self._buckets:
            self._buckets[key] = {
                name: Bucket(limit, now) for name, limit in self._per_minute.items()
            }
        return self._buckets[key]

    def _wait(self, name: str, bucket: Bucket, amount: int, cost: Cost, now: float) -> float:
        """Seconds until one limit admits a request; raises RefusalError if it never does.

        name, bucket: the limit
        amount: what the request takes of it
        cost: all that the request takes
        now: monotonic seconds
        """
        # A limit below one request a minute still lets one through in its own time.
        if amount > max(bucket.per_minute, 1.0):
            raise _too_large(name, bucket, amount, cost)
        return bucket.wait(amount, now)


def go_duration(seconds: float) -> str:
    """`seconds` as Go prints a duration, in whole milliseconds: `120ms`, `8.64s`, `1h30m0s`."""
    milliseconds = max(0, round(seconds * 1000))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    larger = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{larger}{rest / 1000:g}s"


def _headers(buckets: dict[str, Bucket], now: float) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, bucket in buckets.items():
        used = bucket.used(now)
        headers[f"x-ratelimit-limit-{name}"] = f"{bucket.per_minute:.0f}"
        headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.per_minute - used)))
        headers[f"x-ratelimit-reset-{name}"] = go_duration(used / bucket.rate)
    return headers


def _reached(
    name: str, wait: float, cost: Cost, buckets: dict[str, Bucket], now: float
) -> RefusalError:
    """The refusal of a request above a limit.

    name: of the limit
    wait: seconds until a retry is admitted
    cost: what the request takes
    buckets: all limits of its key
    now: monotonic seconds
    """
    headers = _headers(buckets, now)
    headers[f"x-ratelimit-remaining-{name}"] = "0"
    headers["retry-after"] = str(max(1, math.ceil(wait)))
    headers["retry-after-ms"] = str(max(1, math.ceil(wait * 1000)))
    message = (
        f"Rate limit reached for {cost.model} on {_dimension(name)}: "
        f"Limit {buckets[name].per_minute:.0f}. "
        f"Please try again in {go_duration(max(wait, 0.001))}. (simulated)"
    )
    return RefusalError(429, message, kind=name, code="rate_limit_exceeded", headers=headers)


def _too_large(name: str, bucket: Bucket, amount: int, cost: Cost) -> RefusalError:
    message = (
        f"Request too large for {cost.model} on {_dimension(name)}: "
        f"Limit {bucket.per_minute:.0f}, Requested {amount}. (simulated)"
    )
    return RefusalError(429, message, kind=name, code="rate_limit_exceeded")


def _dimension(name: str) -> str:
    return f"{name} per min ({name[0].upper()}PM)"
