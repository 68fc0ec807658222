"""Jobs that share a limit in virtual time; each `SharedLimits` is what one process has."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from lab import KEY
from virtual import now, virtually

from batchgen.dispatch.limits.gcra import GcraLimit
from batchgen.dispatch.limits.shared import SharedLimits
from batchgen.dispatch.limits.store import NAME

URL = "https://api.test/v1"
LIMIT = "requests_per_minute"


@dataclass(kw_only=True)
class Job:
    """One process that shares a limit.

    limit: its own ceiling, in units a minute.
    amount: units that it takes each time.
    pause: seconds after each call.
    delay: seconds between taking units and sending them.
    starts, ends: seconds from the beginning.
    sent: when it sent how many units.
    """

    limit: float = 6000.0
    amount: Callable[[], float] = lambda: 1.0
    pause: Callable[[], float] = lambda: 0.0
    delay: Callable[[], float] = lambda: 0.0
    starts: float = 0.0
    ends: float = 90.0
    sent: list[tuple[float, float]] = field(default_factory=list)

    async def run(self, folder: Path) -> None:
        """Take and send until the end."""
        began = now()
        shared = SharedLimits(URL, KEY, say=never, folder=folder)
        limiter = shared.limiter(LIMIT, self.limit)
        await asyncio.sleep(self.starts)
        while now() < began + self.ends:
            amount = self.amount()
            await limiter.take(amount)
            counted_until = limiter.sent(amount)
            if delay := self.delay():
                await asyncio.sleep(delay)
                limiter.sent(amount, counted_until)
            self.sent.append((now(), amount))
            if pause := self.pause():
                await asyncio.sleep(pause)
        shared.close()


def never(message: str) -> None:
    """A warning that must not come."""
    raise AssertionError(message)


def play(*jobs: Job) -> list[tuple[float, float]]:
    """Run jobs at the same time on one key. Returns when all of them sent how many units."""

    async def all_of_them(folder: Path) -> None:
        await asyncio.gather(*(job.run(folder) for job in jobs))

    with tempfile.TemporaryDirectory() as folder:
        virtually(all_of_them(Path(folder)))
    return sorted(itertools.chain.from_iterable(job.sent for job in jobs))


def share(sent: list[tuple[float, float]], limit: float, seconds: float) -> float:
    """The share of a limit that was used in so many seconds from the first call on."""
    began = sent[0][0]
    return sum(amount for at, amount in sent if at < began + seconds) / (limit / 60 * seconds)


def bursts(odds: float, seconds: float, seed: int) -> Callable[[], float]:
    """Pauses of so many seconds, at random."""
    dice = random.Random(seed)
    return lambda: seconds if dice.random() < odds else 0.0


def state_of(folder: Path) -> GcraLimit:
    """The only valid state in a folder's file."""
    with closing(sqlite3.connect(folder / NAME)) as connection:
        ((limit, slots),) = connection.execute(
            "SELECT units, slots FROM line WHERE units > 0"
        ).fetchall()
    state = GcraLimit(limit=limit)
    state.unpack(slots)
    return state


def pool_of(folder: Path) -> bytes:
    """The only pool in a folder's file."""
    with closing(sqlite3.connect(folder / NAME)) as connection:
        (pool,) = connection.execute("SELECT DISTINCT pool FROM line").fetchone()
    assert isinstance(pool, bytes)
    return pool
