"""A straight line through costs: from what some answers cost to what others will.

A cost is a line over the cost that was expected of the same request, because both are the input's
price and the answer's, and only the answer was a guess. So the line holds both what real input
takes of the expected and the mean answer. This is the regression estimator of survey sampling
(Cochran, "Sampling Techniques", chapters 6 and 7). The variance of a sum that it predicts is that
of the line and that of the answers around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Answers that a line of its own needs: with fewer, costs are taken to be in proportion.
_LINE = 8
# Expected costs that differ less, relatively, are the same one: no slope can be seen in them.
_SPREAD = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Pairs of an expected cost (x) and a cost (y): their number, sums, and sums of products."""

    n: int = 0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            n=self.n + other.n,
            x=self.x + other.x,
            y=self.y + other.y,
            xx=self.xx + other.xx,
            xy=self.xy + other.xy,
            yy=self.yy + other.yy,
        )

    def without_expected(self) -> Sums:
        """The same costs where no expected one is known: each is taken as 1."""
        return Sums(n=self.n, x=self.n, y=self.y, xx=self.n, xy=self.y, yy=self.yy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A predicted sum, and its variance."""

    total: float
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """y = base + slope * x, fitted to `sums`.

    spread: the sum of the squares of x around its mean, as far as the slope was fitted to it; else
        0.
    """

    sums: Sums
    base: float
    slope: float
    spread: float = 0.0

    @property
    def freedom(self) -> int:
        """The degrees of freedom of the variance around the line."""
        return self.sums.n - (2 if self.spread else 1)

    def predict(self, n: int, x: float) -> Prediction:
        """The sum over `n` other requests whose expected costs sum up to `x`."""
        total = self.base * n + self.slope * x
        if self.freedom < 1 or not n:
            return Prediction(total=total, variance=0.0)
        noise = self._squares() / self.freedom
        if self.spread:
            distance = x / n - self.sums.x / self.sums.n
            of_line = n * n * (1 / self.sums.n + distance * distance / self.spread)
        elif self.slope:
            of_line = x * x * self.sums.n / (self.sums.x * self.sums.x)
        else:
            of_line = n * n / self.sums.n
        return Prediction(total=total, variance=noise * (of_line + n))

    def _squares(self) -> float:
        """The sum of the squares of what the line misses."""
        each, a, b = self.sums, self.base, self.slope
        squares = each.yy + a * a * each.n + b * b * each.xx
        return max(0.0, squares + 2 * (a * b * each.x - a * each.y - b * each.xy))


def fit(sums: Sums) -> CostLine:
    """The line through at least one pair; neither its base nor its slope is below 0."""
    ratio = CostLine(sums=sums, base=0.0, slope=sums.y / sums.x) if sums.x > 0 else None
    mean = CostLine(sums=sums, base=sums.y / sums.n, slope=0.0)
    spread = sums.xx - sums.x * sums.x / sums.n
    if sums.n < _LINE or spread <= _SPREAD * sums.xx:
        return ratio or mean
    slope = (sums.xy - sums.x * sums.y / sums.n) / spread
    if slope <= 0:
        return mean
    base = (sums.y - slope * sums.x) / sums.n
    return (
        CostLine(sums=sums, base=base, slope=slope, spread=spread) if base >= 0 else ratio or mean
    )


def margin(variance: float, freedom: int) -> float:
    """Half the width of an interval that holds the sum in 19 of 20 cases, by Student's t."""
    z = 1.96
    # https://en.wikipedia.org/wiki/Student%27s_t-distribution: the expansion over the normal's.
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom * freedom)
    return t * math.sqrt(variance)
