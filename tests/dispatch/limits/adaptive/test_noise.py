"""The noise filter alone."""

from __future__ import annotations

import pytest

from batchgen.dispatch.limits.adaptive.meter import Meter
from batchgen.dispatch.limits.adaptive.noise import NOISE_RATE, THRESHOLD, NoiseFilter


@pytest.mark.parametrize(
    ("limited", "rate", "needed"), [(False, 10, THRESHOLD), (True, 10, 1), (True, 5, 2)]
)
def test_how_many_throttles_are_believed(limited: bool, rate: float, needed: int) -> None:
    """P21 One at a limit that is known, two below a rate that got through, more where nothing is
    known.
    """
    noise = NoiseFilter()
    noise.best = 10
    for count in range(1, needed + 1):
        noise.record_throttle()
        assert noise.is_believed(rate, limited=limited) == (count >= needed)


def test_answers_clear_suspicion() -> None:
    """P21 A throttle among a hundred answers is what a healthy server does."""
    noise = NoiseFilter()
    for _ in range(50):
        noise.record_throttle()
        for _ in range(100):
            noise.record_success()
        assert not noise.is_believed(10, limited=False)


def test_cuts_without_an_effect_prove_noise() -> None:
    """P21 The third cut in a row below a rate that got through restores it, and throttles are
    believed less from then on.
    """
    noise, meter = NoiseFilter(), Meter(0.0)
    noise.note_measured(0.0, meter, 100.0, 90.0)
    restored = []
    for cut in range(3):
        for n in range(90):
            meter.record_sent(cut + n / 90)
        for _ in range(5):
            meter.record_throttle(cut)
        restored.append(noise.restored_rate(cut + 2.0, meter, 50.0, limited=True))
    assert restored == [None, None, 100.0]
    assert noise.rate == pytest.approx(2 * 15 / 270)
    assert not noise.is_usual
    noise.note_cut(meter.sent)
    assert noise.rate == NOISE_RATE


def test_many_throttles_are_never_noise() -> None:
    """P21 A server that throttles every second call means it."""
    noise, meter = NoiseFilter(), Meter(0.0)
    noise.note_measured(0.0, meter, 100.0, 90.0)
    for cut in range(6):
        for n in range(90):
            meter.record_sent(cut + n / 90)
        for _ in range(45):
            meter.record_throttle(cut)
        assert noise.restored_rate(cut + 2.0, meter, 50.0, limited=True) is None


def test_a_named_limit_that_was_never_measured() -> None:
    """P21 Below a limit that only headers named, throttles go on: there is no rate to restore, and
    the cuts stay.
    """
    noise, meter = NoiseFilter(), Meter(0.0)
    noise.best = 10.0
    for cut in range(6):
        for n in range(20):
            meter.record_sent(cut + n / 20)
        meter.record_throttle(cut)
        assert noise.restored_rate(cut + 2.0, meter, 5.0, limited=True) is None
