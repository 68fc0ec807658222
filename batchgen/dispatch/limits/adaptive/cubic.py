"""The growth curve after a throttle: CUBIC's window curve (RFC 9438, section 4.2), applied to a
rate.

After a cut the rate is `w_min`. It rises steeply towards `w_max`, the rate that was too much, stays
near it for a while, and then probes beyond it, ever faster. RFC 9438 gives the curve W(t) = C * (t
- K)^3 + W_max; here K is chosen directly, and beyond K the growth is exponential, because limits of
APIs change by factors and not by a few per cent.
"""

from __future__ import annotations

# The multiplicative decrease (beta_cubic in RFC 9438, which uses 0.7): 7 % below what got through
# is enough, because throughput is measured here and not guessed from a loss.
BETA = 0.93

# K: seconds from a cut until the rate is back at w_max; longer where requests are so few that a
# throttle comes late.
K_SECONDS = 10.0
K_REQUESTS = 150.0
K_AT_MOST = 20.0


class CubicCurve:
    """The rate (per second) of a limited job, `elapsed` seconds of growth after the last cut."""

    def __init__(self) -> None:
        self.w_min = self.w_max = self.elapsed = 0.0

    @property
    def k(self) -> float:
        """Seconds of growth after which the rate reaches `w_max`."""
        return min(max(K_SECONDS, K_REQUESTS / self.w_max), K_AT_MOST)

    def start(self, w_min: float, w_max: float) -> None:
        """Begin again at `w_min`."""
        self.w_min, self.w_max, self.elapsed = w_min, w_max, 0.0

    def start_beyond(self, rate: float) -> None:
        """Begin at `rate`, at the end of the plateau: growth goes on beyond it at once."""
        self.start(rate, rate)
        self.elapsed = self.k

    def grow(self, seconds: float, rate: float) -> float:
        """The rate after `seconds` more of growth; at most twice the present `rate`."""
        self.elapsed += seconds
        progress = self.elapsed / self.k
        if progress < 1:
            target = self.w_max - (self.w_max - self.w_min) * (1 - progress) ** 3
        else:
            target = self.w_max * (1 + 0.01 * (2 ** (10 * (progress - 1)) - 1))
        return min(target, 2 * rate)
