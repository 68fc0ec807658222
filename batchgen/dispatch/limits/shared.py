"""One budget for all jobs of a user that have the same server and the same key, whichever processes run them.

Each limit has a line in a small file (dispatch.line, dispatch.linefile). A job leases what it needs for the next quarter of
a second in one short transaction, and spends that by itself. There is no server, nobody registers, and a job that is
killed loses no more than its lease. Times are the event loop's: monotonic, and the same for all processes since the
machine started. The key itself is not in the file.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from batchgen.dispatch.limits.gcra import (
    SPAN,
    Corrections,
    Lease,
    SharedLimit,
    depth,
    lease,
    post,
    slot,
)
from batchgen.dispatch.limits.store import NAME, LimitStore, StoreBusyError, state_folder
from batchgen.dispatch.limits.window import WINDOW, Limiter
from batchgen.errors import OutputError

T = TypeVar("T")

BOOT = Path("/proc/sys/kernel/random/boot_id")

# Seconds for which the file may be busy before the job goes on alone, and the longest pause between two attempts.
MAX_BUSY = 10.0
PAUSE = 0.005


class SharedLimits:
    """The limits that a job has in common with others of the same server (`base_url`) and `key` (None for none).

    `say` is told once when they cannot be shared; the job then has them for itself alone. Nothing is opened or written
    before there is a limit. `folder` is where the file is, by default the user's state folder.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        say: Callable[[str], None],
        folder: Path | None = None,
    ) -> None:
        self._about = f"{_machine()}\0{base_url}\0{key or ''}"
        self._say: Callable[[str], None] | None = say
        self._folder = folder
        self._file: LimitStore | None = None
        self._limiters: list[SharedLimiter] = []

    def limiter(self, name: str, limit: float) -> Limiter:
        """The limiter of the limit called `name`, of `limit` units a minute."""
        try:
            if self._file is None:
                self._file = LimitStore((self._folder or state_folder()) / NAME)
        except OutputError as error:
            self._failed(str(error))
            return Limiter(limit)
        pool = hashlib.blake2b(
            f"{self._about}\0{name}".encode(), digest_size=16, person=b"batchgen-limits"
        ).digest()
        limiter = SharedLimiter(limit, pool=pool, file=self._file, failed=self._failed)
        self._limiters.append(limiter)
        return limiter

    def _failed(self, reason: str) -> None:
        if self._say is not None:
            self._say(
                f"limits hold for this run alone, other runs with the same key are not seen: {reason}"
            )
            self._say = None

    def close(self) -> None:
        """Give back what was leased and not used."""
        for limiter in self._limiters:
            limiter.close()
        if self._file is not None:
            self._file.close()


def _machine() -> str:
    """What the clock's zero depends on: which start of which machine."""
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


class SharedLimiter(Limiter):
    """A limiter that is filled from the line of its `pool`, in which others stand too. Where that fails (`failed` is told
    why), it goes on with what it knows of itself alone."""

    def __init__(
        self, limit: float, *, pool: bytes, file: LimitStore, failed: Callable[[str], None]
    ) -> None:
        super().__init__(limit)
        self._pool, self._file, self._failed = pool, file, failed
        self._alone = False
        self._pace, self._ahead = WINDOW / limit, depth(limit) * WINDOW / limit
        self._lease = Lease(
            units=0.0, arrival=0.0, opens=0.0, last=float("-inf"), until=float("-inf")
        )
        self._left = self._arrival = 0.0
        # What others do not know yet, and when they will.
        self._posts = Corrections()
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, amount: float) -> None:
        """Wait until `amount` units may be sent."""
        loop = asyncio.get_running_loop()
        while not self._alone:
            if (amount > self._left or loop.time() > self._lease.last) and not await self._renew(
                amount
            ):
                continue
            self._left -= amount
            self._arrival += amount * self._pace
            seconds = max(self._lease.opens, self._arrival - self._ahead) - loop.time()
            while seconds > 0:
                await self._wait(seconds, amount)
                seconds = self._delayed() if seconds > WINDOW / 2 else 0.0
            # A process that was stopped meanwhile has lost its place.
            if loop.time() <= self._lease.until + WINDOW / 2:
                return
        await super().take(amount)

    def _delayed(self) -> float:
        """Seconds for which a place in line that was taken long ago must still wait: others may have been late."""
        until, loop = self._lease.until, asyncio.get_running_loop()
        opens = self._told(lambda lines, now: max(line.still_opens(until, now) for line in lines))
        return 0.0 if opens is None else opens - loop.time()

    async def _wait(self, seconds: float, amount: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self._left += amount
            self._arrival -= amount * self._pace
            raise

    def sent(self, amount: float, counted: float | None = None) -> float:
        """`amount` units are being sent now: see Limiter.sent."""
        if self._alone:
            return super().sent(amount, counted)
        now, until = (
            asyncio.get_running_loop().time(),
            self._lease.until if counted is None else counted,
        )
        if now <= until:
            return until
        later = slot(now)
        self._posts.add(until, -amount)
        self._posts.add(later, amount)
        self._tell_at(now + SPAN)
        return later

    def owe(self, amount: float) -> None:
        """`amount` units were used beyond what was taken: see Limiter.owe."""
        if self._alone:
            super().owe(amount)
            return
        now = asyncio.get_running_loop().time()
        self._posts.add(slot(now), amount, paced=amount)
        self._tell_at(now + SPAN)

    async def _renew(self, amount: float) -> bool:
        """Lease at least `amount`; False when that failed and the limiter is alone."""
        loop = asyncio.get_running_loop()
        self._give_back()
        # What would be left over only makes others wait.
        wanted = self._lease.units * (2 if loop.time() <= self._lease.last else 1)
        given_up = loop.time() + MAX_BUSY
        while (leased := self._told(lambda lines, now: lease(lines, amount, wanted, now))) is None:
            if loop.time() > given_up:
                self._go_alone(f"{self._file.path}: another process keeps it locked")
            if self._alone:
                return False
            await asyncio.sleep(random.uniform(0, PAUSE))
        self._lease, self._left, self._arrival = leased, leased.units, leased.arrival
        # For the day when it is alone.
        super().sent(leased.units)
        self._forget(loop.time())
        if leased.units > amount:
            self._tell_at(leased.last)
        return True

    def _give_back(self) -> None:
        if self._left > 0:
            self._posts.add(self._lease.until, -self._left, paced=-self._left)
            self._lease = replace(self._lease, units=self._lease.units - self._left)
            self._left = 0.0

    def _told(self, ask: Callable[[list[SharedLimit], float], T]) -> T | None:
        """Tell what others do not know yet, and ask in the same breath; None also when the file is busy or fails."""

        def work(lines: list[SharedLimit], now: float) -> T:
            post(lines, self._posts, now)
            return ask(lines, now)

        try:
            answer = self._file.update(
                self._pool, self.limit, asyncio.get_running_loop().time, work
            )
        except StoreBusyError:
            return None
        except OutputError as error:
            self._go_alone(str(error))
            return None
        self._posts = Corrections()
        return answer

    def _go_alone(self, reason: str) -> None:
        self._alone, self._posts = True, Corrections()
        self._failed(reason)

    def _tell_at(self, at: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(at, self._tell)

    def _tell(self) -> None:
        """Let others know what they do not yet; what is left of a lease that still runs is kept."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        if self._left > 0 and now < self._lease.last:
            self._tell_at(self._lease.last)
            return
        self._give_back()
        if self._posts and not self._alone:
            self._told(_nothing)
            if self._posts:
                self._tell_at(now + SPAN)

    def close(self) -> None:
        """Give back what is left, if the file is free."""
        if self._timer is not None:
            self._timer.cancel()
        self._give_back()
        if self._posts and not self._alone:
            self._told(_nothing)


def _nothing(lines: list[SharedLimit], now: float) -> None:
    """Ask for nothing."""
