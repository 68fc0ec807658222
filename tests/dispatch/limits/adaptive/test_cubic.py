"""The growth curve alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchgen.dispatch.limits.adaptive.cubic import CubicCurve

RATES = st.floats(1 / 60, 10_000)


@given(RATES, st.floats(1, 5), st.floats(0.01, 2))
def test_it_rises_to_the_plateau_and_beyond(w_min: float, factor: float, step: float) -> None:
    """P21 The rate never falls, reaches w_max after k seconds, and then goes beyond it."""
    curve = CubicCurve()
    curve.start(w_min, w_min * factor)
    rate, k = w_min, curve.k
    while curve.elapsed < k:
        after = curve.grow(step, rate)
        assert rate * (1 - 1e-9) <= after <= 2 * rate
        if curve.elapsed <= k:
            assert after <= curve.w_max * (1 + 1e-9)
        rate = after
    for _ in range(200):
        rate = curve.grow(step, rate)
    assert rate >= curve.w_max


def test_few_requests_take_longer() -> None:
    """P21 At ten requests a minute a throttle comes late: the curve is slower, but not without
    end.
    """
    fast, slow = CubicCurve(), CubicCurve()
    fast.start(90, 100)
    slow.start(0.1, 10 / 60)
    assert (fast.k, slow.k) == (10, 20)
