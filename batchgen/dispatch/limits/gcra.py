"""What several jobs together took of one limit, and when they may take more: times, units, and no files.

One line for each limit, in which everybody stands in turn: a theoretical arrival time (the generic cell rate algorithm)
spaces what is leased, and what was leased stays counted until 60 s after the last moment at which it may be sent. So no
window of 60 s passes the limit, whoever sends, and a lease that nobody uses any more is forgotten by itself.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite

from batchgen.dispatch.limits.window import WINDOW

# Seconds: how finely the end of what is counted is remembered, what a lease is meant to last, and by how much what was
# leased may be taken, and sent, later than planned.
SLOT = 1 / 8
SPAN = 0.25
SLACK = 0.05

# How many times its usual turn one may lease where others need large ones.
LARGE_TURN = 4

# Nobody waits in line longer than this (seconds; more where a unit takes more than a minute): a line that says so is junk.
LONGEST = 3600.0

# What adding some thousand fractions may err by, as a share of the limit.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """`units` that may go from `opens` on, each when the line's depth allows it, counted from `arrival`. What is not taken
    by `last` is given back; what is taken may be sent until `until`. Times in seconds."""

    units: float
    arrival: float
    opens: float
    last: float
    until: float


@dataclass(slots=True, kw_only=True)
class Corrections:
    """What happened outside a lease: units by the end of the slot in which they count (below 0: they do not count there
    after all), and `paced`, the units by which the next ones come later (below 0: sooner)."""

    counted: dict[float, float] = field(default_factory=dict)
    paced: float = 0.0

    def add(self, until: float, units: float, *, paced: float = 0.0) -> None:
        """Count `units` until 60 s after `until`."""
        self.counted[until] = self.counted.get(until, 0.0) + units
        self.paced += paced

    def __bool__(self) -> bool:
        return bool(self.counted)


def _times() -> array[float]:
    return array("d")


@dataclass(slots=True, kw_only=True)
class SharedLimit:
    """One limit of `limit` units a minute. `arrival` is the theoretical arrival time of the next unit; `named` is until when
    a job with just this limit may send; `largest` what one request needed of late; `ends` are the slots' ends, ascending,
    and `units` what counts in each."""

    limit: float
    arrival: float = 0.0
    named: float = 0.0
    largest: float = 0.0
    ends: array[float] = field(default_factory=_times)
    units: array[float] = field(default_factory=_times)

    @property
    def pace(self) -> float:
        """Seconds a unit."""
        return WINDOW / self.limit

    @property
    def depth(self) -> float:
        """Units that may go at once after a pause."""
        return depth(self.limit)

    def turn(self) -> float:
        """Units that one may lease beyond need: more than usual where others need large ones, or it would get little."""
        return max(self.depth, min(self.largest, LARGE_TURN * self.depth))

    def gathering(self, amount: float) -> float:
        """Seconds for which `amount` units are gathered beyond the line's depth."""
        return max(0.0, amount - self.depth) * self.pace

    def forget(self, now: float) -> None:
        """Drop what no window from `now` on holds."""
        gone = bisect_right(self.ends, now - WINDOW)
        if gone:
            del self.ends[:gone], self.units[:gone]

    def opens(self, amount: float, at: float) -> float:
        """The first moment from `at` on at which `amount` units may go. More than the limit at once goes alone."""
        at = max(at, max(self.arrival, at) + (amount - self.depth) * self.pace)
        most, total = max(self.limit, amount) * (1 + _ROUNDING), sum(self.units) + amount
        for end, units in zip(self.ends, self.units, strict=True):
            if total <= most:
                break
            total -= units
            at = max(at, end + WINDOW)
        return at

    def still_opens(self, until: float, now: float) -> float:
        """When what was leased until `until` may go, now that those before it in line may have been later than they said."""
        ahead = bisect_right(self.ends, until)
        at, total = now, sum(self.units[:ahead])
        for end, units in zip(self.ends[: ahead - 1], self.units, strict=False):
            if total <= self.limit * (1 + _ROUNDING):
                break
            total -= units
            at = max(at, end + WINDOW)
        return at

    def room(self, at: float) -> float:
        """Units that the window which ends at `at` still has room for."""
        return self.limit - sum(self.units[bisect_right(self.ends, at - WINDOW) :])

    def count(self, until: float, units: float) -> None:
        """Count `units` more, or fewer, in the slot that ends at `until`; what was forgotten stays so."""
        place = bisect_left(self.ends, until)
        if place < len(self.ends) and self.ends[place] == until:
            self.units[place] = max(0.0, self.units[place] + units)
        elif units > 0:
            self.ends.insert(place, until)
            self.units.insert(place, units)

    def packed(self) -> bytes:
        """The slots as bytes, for `unpack`."""
        return self.ends.tobytes() + self.units.tobytes()

    def unpack(self, slots: bytes) -> None:
        """Set the slots to what was packed. Raises ValueError for what cannot have been."""
        half = len(slots) // 2
        self.ends.frombytes(slots[:half])
        self.units.frombytes(slots[half:])

    def plausible(self, now: float) -> bool:
        """Whether jobs can have left it."""
        if not self.limit > 0:
            return False
        latest = now + LONGEST * max(1.0, self.pace / WINDOW)
        return (
            len(self.ends) == len(self.units)
            and isfinite(sum(self.ends) + sum(self.units))
            and max(self.arrival, self.named, *self.ends) <= latest
            and min(self.units, default=0.0) >= 0
        )


def depth(limit: float) -> float:
    """Units of a limit that may go at once: a lease's span of them, and at least one."""
    return max(1.0, limit * SPAN / WINDOW)


def slot(at: float) -> float:
    """The end of the slot in which `at` lies."""
    return ceil(at / SLOT) * SLOT


def post(lines: Sequence[SharedLimit], posts: Corrections, now: float) -> None:
    """Take note of what happened outside a lease; lines as for `lease`."""
    for line in lines:
        for until, units in posts.counted.items():
            line.count(until, units)
        start = max(line.arrival, now) if posts.paced > 0 else line.arrival
        line.arrival = start + posts.paced * line.pace
    lines[0].named = max([lines[0].named, *posts.counted])


def lease(lines: Sequence[SharedLimit], amount: float, wanted: float, now: float) -> Lease:
    """Lease `amount` units, or up to `wanted` where there is room for more, from the first line and from all that hold it
    in: it comes first, and those of larger limits follow."""
    own = lines[0]
    opens = [line.opens(amount, now) for line in lines]
    at = max(opens)
    units = max(amount, min([wanted, own.turn(), *(line.room(at) for line in lines)]))
    # Where it waits for one line, the others are not held up.
    starts = [
        max(line.arrival, own_at - line.gathering(amount))
        for line, own_at in zip(lines, opens, strict=True)
    ]
    last = (
        max(at + SPAN if units > amount else at, starts[0] + (units - own.depth) * own.pace) + SLACK
    )
    until = slot(last + SLACK)
    for line, start in zip(lines, starts, strict=True):
        line.arrival = start + units * line.pace
        line.largest = max(amount, 0.9 * line.largest)
        line.count(until, units)
    own.named = max(own.named, until)
    return Lease(units=units, arrival=starts[0], opens=at, last=last, until=until)
