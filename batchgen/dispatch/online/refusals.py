"""Many calls in a row that were refused alike: the job or the account is wrong, not the rows."""

from __future__ import annotations

from bisect import insort
from itertools import takewhile
from typing import NamedTuple

from batchgen.dispatch import Failure
from batchgen.dispatch.api.codes import UNATTRIBUTED
from batchgen.dispatch.failure_limit import (
    SAME_REFUSALS,
    AllRefusedError,
    RefusalSort,
    all_refused_error,
    sort_of,
)
from batchgen.requests import Request


class _Refusal(NamedTuple):
    """A row that failed with the run's call `serial`."""

    serial: int
    sort: RefusalSort
    request: Request


class RefusalStreak:
    """Finds SAME_REFUSALS calls in a row that were all refused alike.

    They are in a row when they were sent one after another. Refusals come back sooner than answers,
    so by the order of the replies even a third of all rows can look like all. Calls that failed in
    passing, such as a 429, say nothing.

    Before anything was answered, status, code and reason must be alike. After that the messages
    must be, too, and only refusals count that no code attributes to the row.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._sent = 0
        self._in_flight: set[int] = set()
        self._most_in_flight = 0
        self._has_answered = False
        # The latest refusals, by serial, and the last call that ended a streak.
        self._refusals: list[_Refusal] = []
        self._broken_at = 0
        self._found: RefusalSort | None = None

    def record_sent(self) -> int:
        """Note that a call is sent; returns its serial."""
        self._sent += 1
        self._in_flight.add(self._sent)
        self._most_in_flight = max(self._most_in_flight, len(self._in_flight))
        return self._sent

    def record_end(self, serial: int) -> None:
        """Note that a call has ended, however."""
        self._in_flight.discard(serial)

    def record_answer(self, serial: int) -> None:
        """Note that a call was answered: until it was sent, nothing was wrong with the account."""
        self._has_answered = True
        self._break(serial)

    def record_failure(
        self, serial: int, request: Request, failure: Failure
    ) -> AllRefusedError | None:
        """Note that a row failed with this call. Returns what stops the run."""
        is_page = failure.reason == "invalid_response" and failure.status == 200
        if failure.status is None or (failure.is_passing and not is_page):
            return None
        if self._has_answered and failure.reason not in UNATTRIBUTED:
            self._break(serial)
            return None
        refusal = _Refusal(serial, sort_of(failure), request)
        insort(self._refusals, refusal, key=lambda each: each.serial)
        # Memory stays flat: alike, so many would hold a streak between two calls in flight.
        del self._refusals[: -SAME_REFUSALS * (self._most_in_flight + 1)]
        return self._stopping_error(refusal, failure)

    @property
    def requests(self) -> list[Request]:
        """The rows of the streak that was found, and all that were refused alike around it."""
        found = self._found
        if found is None:
            return []
        return [each.request for each in self._refusals if self._are_alike(each.sort, found)]

    def _break(self, serial: int) -> None:
        """End the streak of calls up to this one."""
        self._broken_at = max(self._broken_at, serial)
        # Calls in flight at one time may reach the server in another order, so that some that were
        # sent before the last answered one are refused for the same cause.
        oldest = self._broken_at - self._most_in_flight
        self._refusals = [each for each in self._refusals if each.serial > oldest]

    def _are_alike(self, one: RefusalSort, other: RefusalSort) -> bool:
        return one == other if self._has_answered else one[:3] == other[:3]

    def _stopping_error(self, refusal: _Refusal, failure: Failure) -> AllRefusedError | None:
        if refusal.serial < self._broken_at:
            return None
        position = self._refusals.index(refusal)
        in_flight = sorted(self._in_flight - {refusal.serial})
        before = max(each for each in (self._broken_at, *in_flight) if each < refusal.serial)
        after = min((each for each in in_flight if each > refusal.serial), default=self._sent + 1)

        def is_in_row(other: _Refusal) -> bool:
            return before < other.serial < after and self._are_alike(other.sort, refusal.sort)

        earlier = takewhile(is_in_row, reversed(self._refusals[:position]))
        later = takewhile(is_in_row, self._refusals[position:])
        if sum(1 for _ in earlier) + sum(1 for _ in later) < SAME_REFUSALS:
            return None
        self._found = refusal.sort
        return all_refused_error(f"{SAME_REFUSALS} requests in a row", self._host, failure)
