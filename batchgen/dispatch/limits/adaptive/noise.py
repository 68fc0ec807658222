"""Which throttles say something about a rate, and which are noise.

Some servers throttle a share of all calls whatever the rate (an overloaded backend, a faulty
proxy). Slowing down for those costs time and gains nothing. Throttles are believed when there are
more of them than noise explains. When several cuts in a row change nothing, throttles count as
noise until the rate proves otherwise.
"""

from __future__ import annotations

from batchgen.dispatch.limits.adaptive.meter import Meter

# The share of calls that may be throttled without a reason; and the factor by which such a share,
# once measured, may vary.
NOISE_RATE = 0.01
NOISE_FACTOR = 2

# As many throttles in excess of the noise are believed while no limit is known.
THRESHOLD = 4

# Cuts in a row without an effect, seconds that they must span, and the largest share of throttles
# that can be noise.
INEFFECTIVE_CUTS = 3
INEFFECTIVE_SECONDS = 3.0
LARGEST_NOISE = 0.15

# A rate this close to another counts as the same.
SAME_RATE = 0.98


class NoiseFilter:
    """Weighs throttles. `suspicion` counts those in excess of the noise, whose share of all calls
    is `rate`.

    `best` is the rate (per second) that got through before cuts stopped having an effect, `fastest`
    the rate at that time.
    """

    def __init__(self) -> None:
        self.suspicion = 0.0
        self.rate = NOISE_RATE
        self.best = self._fastest = 0.0
        self.ineffective_cuts = 0
        # Before the first ineffective cut: when, requests and throttles; and the requests at the
        # last cut.
        self._before = (0.0, 0, 0)
        self._sent_at_cut = 0

    @property
    def is_usual(self) -> bool:
        """Whether throttles are rare enough to be taken seriously at once."""
        return self.rate <= NOISE_RATE

    def record_success(self) -> None:
        """Note that a request was answered."""
        if self.suspicion:
            self.suspicion = max(0.0, self.suspicion - self.rate)

    def record_throttle(self) -> None:
        """Note that a request was throttled."""
        self.suspicion += 1

    def is_believed(self, rate: float, *, limited: bool) -> bool:
        """Whether the throttles up to now mean that `rate` (per second) is too high."""
        return self.suspicion >= self._threshold(rate, limited=limited)

    def _threshold(self, rate: float, *, limited: bool) -> int:
        """The suspicion from which throttles are believed.

        One throttle is enough if a limit is known, two below a rate that got through (another job
        may have caused one); more are needed if nothing is known.
        """
        if not self.is_usual:
            return 2 * THRESHOLD
        if not limited:
            return THRESHOLD
        return 1 if rate >= self.best * SAME_RATE else 2

    def note_measured(self, now: float, meter: Meter, rate: float, throughput: float) -> None:
        """Note a cut from `rate` to a measured `throughput`."""
        if not self.ineffective_cuts:
            self.best, self._fastest = throughput, max(rate, 0.9 * self._fastest)
            self._before = (now, meter.sent, meter.throttled)

    def note_cut(self, sent: int) -> None:
        """Note that the rate was cut after `sent` requests: earlier throttles no longer count."""
        self.suspicion = 0.0
        self.rate = NOISE_RATE
        self._sent_at_cut = sent

    def restored_rate(
        self, now: float, meter: Meter, rate: float, *, limited: bool
    ) -> float | None:
        """The rate to go back to if throttles prove to be noise, else None.

        They do if they go on as before although the job sends at a `rate` below one that got
        through.
        """
        calm = meter.sent - self._sent_at_cut > 3 / NOISE_RATE
        if not limited or rate >= self.best * SAME_RATE or calm:
            self.ineffective_cuts = 0
            return None
        self.ineffective_cuts += 1
        at, sent, throttled = self._before
        sent, throttled = meter.sent - sent, meter.throttled - throttled
        if (
            # Nothing was measured before a limit that headers name: there is no rate to go back to.
            not self._fastest
            or self.ineffective_cuts < INEFFECTIVE_CUTS
            or now - at < INEFFECTIVE_SECONDS
            or throttled > LARGEST_NOISE * sent
        ):
            return None
        self.rate = max(NOISE_RATE, NOISE_FACTOR * throttled / sent)
        self.ineffective_cuts, self.suspicion = 0, 0.0
        return self._fastest
