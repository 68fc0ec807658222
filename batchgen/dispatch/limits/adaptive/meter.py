"""Counts what was sent and throttled, and computes rates from it. Times are in seconds, rates per
second.
"""

from __future__ import annotations

from collections import deque

# How often the number of requests that got through is sampled, and how many samples are kept.
SAMPLE = 0.25
SAMPLES = 128

# Seconds of its limit that a server is assumed to have in store: a token bucket one second deep.
STORE = 1.0

MINUTE = 60.0

# The lowest rate: however often a job is throttled, it sends one request a minute.
SLOWEST = 1 / 60


class Meter:
    """Counts requests and throttles, over the whole run and since `since`, when the rate was last
    measured.
    """

    def __init__(self, now: float) -> None:
        self.sent = self.throttled = 0
        self.since = float("-inf")
        self._sent_before = self._throttled_since = 0
        # (when, how many had got through by then), oldest first.
        self._samples: deque[tuple[float, int]] = deque([(now, 0)], maxlen=SAMPLES)
        self._sample_at = now + SAMPLE
        # How many were answered in each second of the last minute, and in the fullest whole minute.
        self._began = now
        self._seconds: deque[list[float]] = deque()
        self._last_minute = self._fullest_minute = 0

    def record_answer(self, now: float) -> None:
        """Note that a request was answered."""
        if not self._seconds or self._seconds[-1][0] < int(now):
            self._seconds.append([int(now), 0])
        self._seconds[-1][1] += 1
        self._last_minute += 1
        while self._seconds[0][0] <= now - MINUTE:
            self._last_minute -= int(self._seconds.popleft()[1])
        if now - self._began >= MINUTE:
            self._fullest_minute = max(self._fullest_minute, self._last_minute)

    def per_minute(self, rate: float) -> float | None:
        """A rate as requests a minute, but no more than a whole minute brought; None before one."""
        return min(rate * MINUTE, self._fullest_minute) or None

    def record_sent(self, now: float) -> None:
        """Note that a request is sent."""
        self.sent += 1
        if now >= self._sample_at:
            self._samples.append((now, self.sent - self.throttled))
            self._sample_at = now + SAMPLE

    def record_throttle(self, sent_at: float) -> None:
        """Note that a request which was sent at `sent_at` was throttled."""
        self.throttled += 1
        self._throttled_since += sent_at >= self.since

    def restart(self, now: float) -> None:
        """Measure from now on."""
        self.since, self._sent_before, self._throttled_since = now, self.sent, 0

    def offered_rate(self, now: float) -> float:
        """The rate at which requests were sent over the last second, throttled ones included."""
        recent = (each for each in reversed(self._samples) if each[0] <= now - 1)
        at, passed = next(recent, self._samples[0])
        return max((self.sent - passed) / max(now - at, SAMPLE), SLOWEST)

    def passed(self, unknown: float) -> float:
        """Requests sent since `since` that got through; `unknown` of them have no reply yet."""
        return max(0.0, self.sent - self._sent_before - self._throttled_since - unknown)

    def throughput(self, until: float, unknown: float, measured: float) -> float:
        """The rate that got through until `until`: `measured`, or more if a sample since `since`
        proves more.

        The units that the server may have saved up before a sample are subtracted: it does not give
        these every second.
        """
        passed = self.sent - self.throttled - unknown
        samples = (each for each in self._samples if self.since <= each[0] <= until)
        return max(
            (measured, *((passed - before) / (until - at + STORE) for at, before in samples))
        )
