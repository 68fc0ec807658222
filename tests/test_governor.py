"""The governor in virtual time: storms cost little, and the server's rate is found."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest
from virtual import answer, now, requests, simulate, throttled, virtually

from batchgen.dispatch import Failure
from batchgen.dispatch.governor import Governor
from batchgen.dispatch.wire import Reply
from batchgen.requests import Request


class Throttling:
    """A server that allows `rpm` (from `later` on the second of two), its bucket one second deep, with an honest
    Retry-After."""

    def __init__(self, rpm: float, then: float | None = None, later: float = 10.0, *, honest: bool = True) -> None:
        self._rpm, self._then, self._later, self._honest = rpm, then or rpm, later, honest
        self._level = 0.0
        self._at = self._began = 1000.0
        self._dice = random.Random(1)
        self.refused = 0
        self.answered: list[float] = []

    async def __call__(self, request: Request, n: int) -> Reply | Failure:
        rate = (self._then if now() - self._began > self._later else self._rpm) / 60
        self._level = max(0.0, self._level - (now() - self._at) * rate)
        self._at = now()
        if self._level + 1 > max(1.0, rate) + 1e-9:
            self.refused += 1
            wait = (self._level + 1 - max(1.0, rate)) / rate
            await asyncio.sleep(0.02)
            return throttled(retry_after=wait if self._honest else None)
        self._level += 1
        self.answered.append(now())
        await asyncio.sleep(self._dice.uniform(0.2, 0.4))
        return answer()

    def per_minute(self, after: float) -> float:
        late = [at for at in self.answered if at - self._began > after]
        return (len(late) - 1) / (late[-1] - late[0]) * 60


@pytest.mark.parametrize(("before", "then", "rows"), [(3000, 600, 2000), (3000, 1500, 3000), (600, 60, 400)])
def test_a_storm_costs_little_and_ends(before: float, then: float, rows: int) -> None:
    """P21 A limit suddenly lowered: extra calls <= 20 % of the rows + 10, and 80 % of the new limit is reached again."""
    server = Throttling(before, then)
    run = simulate(requests(rows), server, concurrency=64, requests_per_minute=before)
    assert (run.why, len(run.answered)) == (None, rows)
    assert server.refused <= 0.2 * rows + 10
    assert server.per_minute(after=40) >= 0.8 * then


def test_throttling_without_retry_after_is_no_storm_either() -> None:
    """P21 A server that does not say how long."""
    server = Throttling(600, honest=False)
    run = simulate(requests(1500), server, concurrency=64)
    assert (run.why, len(run.answered)) == (None, 1500)
    assert server.refused <= 0.2 * 1500 + 10
    assert server.per_minute(after=60) >= 0.8 * 600


def test_a_burst_of_throttles_is_one_event() -> None:
    """P21 The rate is halved once for all calls that were sent before it was halved."""

    async def run() -> None:
        governor = Governor(now)
        for _ in range(100):
            await asyncio.sleep(0.1)
            governor.spoke()
            governor.succeeded()
        sent = now()
        await asyncio.sleep(0.1)
        for _ in range(30):
            governor.spoke()
            governor.throttled(sent, None, None)
        assert governor.state == "slowed"
        began = now()
        for _ in range(10):
            await governor.gate()
        # About ten a second were answered: half of it is five, not ten halved thirty times.
        assert 1 <= now() - began <= 2.5

    virtually(run())


def test_a_slowed_job_opens_again() -> None:
    """P21 Once the server no longer minds, nothing holds the job back."""

    async def run() -> None:
        governor = Governor(now)
        for _ in range(10):
            governor.succeeded()
        governor.throttled(now(), 5.0, None)
        began = now()
        await governor.gate()
        assert now() - began >= 5
        for _ in range(3000):
            await governor.gate()
        assert governor.state == "open"

    virtually(run())


def test_retry_after_is_a_floor_for_the_whole_job() -> None:
    """P22 Nobody asks while the server wants to be left alone."""

    def answering(request: Request, n: int) -> Reply | Failure:
        return throttled(retry_after=40.0) if request.id == "r3" and n == 1 else answer()

    run = simulate(requests(20), answering, concurrency=1)
    times = [at for at, _, _ in run.calls]
    assert max(later - earlier for earlier, later in pairwise(times)) >= 40
    assert len(run.answered) == 20


def test_throttling_spends_no_attempts() -> None:
    """P21 A row that is throttled more often than it has attempts is answered all the same."""
    run = simulate(requests(1), lambda request, n: answer() if n > 15 else throttled(retry_after=1.0), attempts=2)
    assert (run.why, run.answered) == (None, {"r0"})
