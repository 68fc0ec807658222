"""The generic cell rate algorithm (GCRA) with a window of 60 s, as pure arithmetic.

The GCRA paces a limit (ITU-T Recommendation I.371, "Traffic control and congestion control in
B-ISDN"; this is its virtual scheduling form). It keeps one number, the theoretical arrival time
(`tat`) of the next unit. Each unit moves it on by the emission interval (60 s / limit), and units
may go up to one `burst` before it.

The GCRA alone lets one burst more than the limit through in its first minute. So all units are also
counted, in slots of 1/8 s, until 60 s after the last moment at which they may be sent. No window of
60 s then holds more than the limit, all jobs together.

Units are not admitted one by one but leased for the next quarter of a second. A lease that is not
used any more is forgotten after a minute, like every count, so a job that was killed leaves nothing
to clean up.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite

# Seconds: the window of every limit.
WINDOW = 60.0

# Seconds: the length of a slot, the time that a lease is meant to last, and the delay with which
# leased units may be taken, and again the delay with which they may be sent.
SLOT = 1 / 8
SPAN = 0.25
SLACK = 0.05

# The most bursts in one lease; it holds more than one only where other jobs need large leases.
MAX_LEASE_BURSTS = 4

# Seconds: the longest wait for a limit (longer where one unit takes more than a minute). A state
# with a longer wait is damaged.
MAX_WAIT = 3600.0

# The rounding error of a sum of some thousand fractions, as a share of the limit.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Units of a limit that one job may hand out by itself.

    units: how many.
    tat: the theoretical arrival time of the first one, from which the job paces them.
    opens_at: no unit may be sent before this time.
    take_by: units that are not taken by this time are given back.
    send_by: units that were taken may be sent until this time; they are counted for 60 s more.
    """

    units: float
    tat: float
    opens_at: float
    take_by: float
    send_by: float


@dataclass(slots=True, kw_only=True)
class Corrections:
    """What happened outside a lease and is not counted yet.

    slots: units to count, by the end of their slot (below 0: to count no longer).
    paced: units by which the next ones are delayed (below 0: advanced).
    """

    slots: dict[float, float] = field(default_factory=dict)
    paced: float = 0.0

    def add(self, end: float, units: float, *, paced: float = 0.0) -> None:
        """Count `units` until 60 s after `end`."""
        self.slots[end] = self.slots.get(end, 0.0) + units
        self.paced += paced

    def __bool__(self) -> bool:
        return bool(self.slots)


def _times() -> array[float]:
    return array("d")


@dataclass(slots=True, kw_only=True)
class GcraLimit:
    """The state of one limit.

    limit: units a minute.
    tat: the theoretical arrival time of the next unit.
    active_until: until when some job that has exactly this limit may send.
    largest: units of the largest recent request.
    ends: the ends of the slots, ascending.
    units: what is counted in each slot.
    """

    limit: float
    tat: float = 0.0
    active_until: float = 0.0
    largest: float = 0.0
    ends: array[float] = field(default_factory=_times)
    units: array[float] = field(default_factory=_times)

    @property
    def emission_interval(self) -> float:
        """Seconds for each unit."""
        return WINDOW / self.limit

    @property
    def burst(self) -> float:
        """Units that may go at once after a pause: those of a lease's span, and at least one."""
        return max(1.0, self.limit * SPAN / WINDOW)

    def max_lease(self) -> float:
        """The most units in a lease beyond need.

        It grows where other jobs need large leases, else this job would get little beside them.
        """
        return max(self.burst, min(self.largest, MAX_LEASE_BURSTS * self.burst))

    def gathering_time(self, amount: float) -> float:
        """Seconds in which the units beyond a burst accrue."""
        return max(0.0, amount - self.burst) * self.emission_interval

    def forget(self, now: float) -> None:
        """Drop the slots that are in no window that ends at `now` or later."""
        gone = bisect_right(self.ends, now - WINDOW)
        if gone:
            del self.ends[:gone], self.units[:gone]

    def opens_at(self, amount: float, now: float) -> float:
        """The first moment from `now` on at which `amount` units may go.

        An amount larger than the limit goes alone, when the window is empty.
        """
        at = max(now, max(self.tat, now) + (amount - self.burst) * self.emission_interval)
        most, total = max(self.limit, amount) * (1 + _ROUNDING), sum(self.units) + amount
        for end, units in zip(self.ends, self.units, strict=True):
            if total <= most:
                break
            total -= units
            at = max(at, end + WINDOW)
        return at

    def reopens_at(self, send_by: float, now: float) -> float:
        """When units leased until `send_by` may go.

        It differs from the lease's `opens_at` when earlier calls left later than planned.
        """
        earlier = bisect_right(self.ends, send_by)
        at, total = now, sum(self.units[:earlier])
        for end, units in zip(self.ends[: earlier - 1], self.units, strict=False):
            if total <= self.limit * (1 + _ROUNDING):
                break
            total -= units
            at = max(at, end + WINDOW)
        return at

    def room(self, at: float) -> float:
        """Units that still fit into the window that ends at `at`."""
        return self.limit - sum(self.units[bisect_right(self.ends, at - WINDOW) :])

    def count(self, end: float, units: float) -> None:
        """Count `units` more (or fewer, below 0) in the slot that ends at `end`."""
        index = bisect_left(self.ends, end)
        if index < len(self.ends) and self.ends[index] == end:
            self.units[index] = max(0.0, self.units[index] + units)
        # A slot that was forgotten has nothing left to take back.
        elif units > 0:
            self.ends.insert(index, end)
            self.units.insert(index, units)

    def pack(self) -> bytes:
        """The slots as bytes, for `unpack`."""
        return self.ends.tobytes() + self.units.tobytes()

    def unpack(self, slots: bytes) -> None:
        """Set the slots to what `pack` returned. Raises ValueError for other bytes."""
        half = len(slots) // 2
        self.ends.frombytes(slots[:half])
        self.units.frombytes(slots[half:])

    def is_plausible(self, now: float) -> bool:
        """Whether this is a state that jobs can leave; a damaged one is not."""
        if not self.limit > 0:
            return False
        latest = now + MAX_WAIT * max(1.0, self.emission_interval / WINDOW)
        return (
            len(self.ends) == len(self.units)
            and isfinite(sum(self.ends) + sum(self.units))
            and max(self.tat, self.active_until, *self.ends) <= latest
            and min(self.units, default=0.0) >= 0
        )


def slot_end(at: float) -> float:
    """The end of the slot that holds the time `at`: counts expire late rather than early."""
    return ceil(at / SLOT) * SLOT


def correct(limits: Sequence[GcraLimit], corrections: Corrections, now: float) -> None:
    """Count what happened outside a lease; `limits` as for `lease`."""
    for limit in limits:
        for end, units in corrections.slots.items():
            limit.count(end, units)
        tat = max(limit.tat, now) if corrections.paced > 0 else limit.tat
        limit.tat = tat + corrections.paced * limit.emission_interval
    limits[0].active_until = max([limits[0].active_until, *corrections.slots])


def lease(limits: Sequence[GcraLimit], amount: float, wanted: float, now: float) -> Lease:
    """Lease units from a limit, and count them in all limits that they must keep.

    limits: the job's own limit first; then the larger ones of other jobs on the same key.
    amount: units that the next request needs.
    wanted: units to lease where there is room for more.
    now: seconds on the clock of all times here.
    """
    own = limits[0]
    opens = [limit.opens_at(amount, now) for limit in limits]
    at = max(opens)
    units = max(amount, min([wanted, own.max_lease(), *(limit.room(at) for limit in limits)]))
    # If this lease waits for one limit only, it does not delay the others.
    starts = [
        max(limit.tat, opened - limit.gathering_time(amount))
        for limit, opened in zip(limits, opens, strict=True)
    ]
    last_tat = starts[0] + (units - own.burst) * own.emission_interval
    take_by = max(at + SPAN if units > amount else at, last_tat) + SLACK
    send_by = slot_end(take_by + SLACK)
    for limit, start in zip(limits, starts, strict=True):
        limit.tat = start + units * limit.emission_interval
        # The largest request is forgotten bit by bit: one large request must not make leases large
        # for ever.
        limit.largest = max(amount, 0.9 * limit.largest)
        limit.count(send_by, units)
    own.active_until = max(own.active_until, send_by)
    return Lease(units=units, tat=starts[0], opens_at=at, take_by=take_by, send_by=send_by)
