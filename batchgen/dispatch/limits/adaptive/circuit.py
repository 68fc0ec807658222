"""The circuit breaker: open while the server is down (Nygard, Release It!, chapter 5).

Closed is normal. Enough failures in a row that look like an outage open it; then one request per
interval is sent as a probe (half-open), and any response closes it.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

# Failures in a row that open the circuit, and the shortest and longest interval between probes in
# seconds.
FAILURES = 8
FIRST_INTERVAL = 1.0
LAST_INTERVAL = 30.0


class Hold(NamedTuple):
    """What holds a request back: an outage that is being probed, and three times on the run's clock
    before which none is sent: the server's Retry-After, the next probe, the pace.
    """

    probing: bool
    not_before: float
    probe_at: float
    paced_until: float


class Circuit:
    """Outages of one server. `answered`: whether it has ever answered. `changed` is set to wake
    tasks that wait for the circuit.

    While it `is_open`, the next probe may be sent at `probe_at` (seconds on the run's clock), and
    none while `probing`.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.answered = False
        self.probing = False
        self.probe_at = 0.0
        self.changed = asyncio.Event()
        self._failures = 0
        self._interval = FIRST_INTERVAL

    def record_response(self) -> bool:
        """Note a reply that is not an error of the server itself. Returns whether it closed the
        circuit.
        """
        self.answered = True
        self._failures = 0
        if not self.is_open:
            return False
        self.is_open = self.probing = False
        self._interval = FIRST_INTERVAL
        self.probe_at = 0.0
        self.changed.set()
        return True

    def record_failure(
        self, now: float, retry_after: float | None, *, probe: bool, answered: bool
    ) -> None:
        """Note that a request failed as in an outage.

        now: seconds on the run's clock
        retry_after: seconds that the server asks to wait, None where it names none
        probe: whether the request was the probe of an outage
        answered: whether the server sent an error of its own, rather than nothing
        """
        self.answered = self.answered or answered
        self._failures += 1
        if not self.is_open:
            # A host that has never answered is more likely misspelt than down: probe gently from
            # the start.
            if self._failures < FAILURES and self.answered:
                return
            self.is_open = True
        elif probe:
            self.probing = False
            self._interval = min(self._interval * 2, LAST_INTERVAL)
            self.changed.set()
        else:
            return
        self.probe_at = max(self.probe_at, now + max(self._interval, retry_after or 0.0))

    def release_probe(self) -> None:
        """Note that the probe was not sent after all: the next request may be one."""
        self.probing = False
        self.changed.set()
