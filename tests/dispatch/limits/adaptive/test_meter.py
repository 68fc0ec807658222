"""The meter alone."""

from __future__ import annotations

import pytest

from batchgen.dispatch.limits.adaptive.meter import Meter


def steady(rate: float, seconds: float, *, throttled_every: int = 0) -> tuple[Meter, float]:
    """A meter after `seconds` at `rate`, of which each nth request is throttled."""
    meter, now = Meter(0.0), 0.0
    for n in range(1, round(rate * seconds) + 1):
        now = n / rate
        meter.record_sent(now)
        if throttled_every and n % throttled_every == 0:
            meter.record_throttle(now)
    return meter, now


@pytest.mark.parametrize("rate", [5.0, 50.0, 500.0])
def test_the_offered_rate_counts_everything(rate: float) -> None:
    """P21 What was sent over the last second, within a sample's width; throttles make it no smaller
    than it was.
    """
    meter, now = steady(rate, 10)
    assert meter.offered_rate(now) == pytest.approx(rate, rel=0.3)
    meter, now = steady(rate, 10, throttled_every=2)
    assert meter.offered_rate(now) >= rate


def test_throughput_leaves_throttled_requests_out() -> None:
    """P21 Half of 100 a second are throttled: 50 got through, less what the server had in store for
    one second.
    """
    meter, now = steady(100, 10, throttled_every=2)
    meter.since = 0.0
    assert meter.throughput(now, 0.0, 0.0) == pytest.approx(500 / 11, rel=0.05)


def test_passed_counts_since_the_restart() -> None:
    """P21 Requests before the restart do not count, nor throttles of requests that were sent before
    it.
    """
    meter, now = steady(10, 10)
    meter.restart(now)
    for n in range(20):
        meter.record_sent(now + n / 10)
    meter.record_throttle(now - 1)
    meter.record_throttle(now + 1)
    assert meter.passed(unknown=4) == 15
    assert meter.passed(unknown=100) == 0
