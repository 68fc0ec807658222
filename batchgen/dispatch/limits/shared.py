"""Limits that a user's jobs share when they have the same server and the same key.

The state of each limit is in a small file (limits.store). A job leases what it needs for the next
quarter of a second in one short transaction, and hands it out without the file (limits.window). The
jobs need no server and do not register; a job that is killed loses only its lease. Times are the
event loop's: monotonic, and the same for all processes since the machine started. The key itself is
not in the file.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from batchgen.dispatch.limits.gcra import GcraLimit
from batchgen.dispatch.limits.state_file import StoreBusyError, state_folder
from batchgen.dispatch.limits.store import NAME, LimitStore
from batchgen.dispatch.limits.window import Limiter, LocalLimit
from batchgen.errors import OutputError

T = TypeVar("T")

BOOT = Path("/proc/sys/kernel/random/boot_id")


class SharedLimits:
    """The limiters that a job has in common with other jobs on the same server and key.

    No file is opened or written before there is a limit.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        say: Callable[[str], None],
        folder: Path | None = None,
    ) -> None:
        """Args:
        base_url: the server's address.
        key: the API key; None for a server without keys.
        say: called once if limits cannot be shared. Each limit then holds for this job alone.
        folder: where the file is; by default the user's state folder.
        """
        self._identity = f"{_machine()}\0{base_url}\0{key or ''}"
        self._say: Callable[[str], None] | None = say
        self._folder = folder
        self._store: LimitStore | None = None
        self._limiters: list[Limiter] = []

    def limiter(self, name: str, limit: float) -> Limiter:
        """The limiter of the limit called `name`, of `limit` units a minute."""
        limiter = Limiter(self._source(name, limit))
        self._limiters.append(limiter)
        return limiter

    def _source(self, name: str, limit: float) -> LocalLimit:
        try:
            if self._store is None:
                self._store = LimitStore((self._folder or state_folder()) / NAME)
        except OutputError as error:
            self._warn(str(error))
            return LocalLimit(limit)
        # A digest: neither the key nor the server may be read in the file.
        pool = hashlib.blake2b(
            f"{self._identity}\0{name}".encode(), digest_size=16, person=b"batchgen-limits"
        ).digest()
        return SharedLimit(limit, pool=pool, store=self._store, warn=self._warn)

    def _warn(self, reason: str) -> None:
        if self._say is not None:
            self._say(
                "limits hold for this run alone,"
                f" other runs with the same key are not seen: {reason}"
            )
            self._say = None

    def close(self) -> None:
        """Give back what was leased and not used."""
        for limiter in self._limiters:
            limiter.close()
        if self._store is not None:
            self._store.close()


def _machine() -> str:
    """An id of this machine since its last start: its monotonic clock began then."""
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


class SharedLimit(LocalLimit):
    """A limit whose state is in the file, under the id `pool`.

    If the file fails, `warn` receives the reason, and the limit continues in memory from the state
    that it read last.
    """

    is_shared = True

    def __init__(
        self, limit: float, *, pool: bytes, store: LimitStore, warn: Callable[[str], None]
    ) -> None:
        super().__init__(limit)
        self._pool, self._store, self._warn = pool, store, warn

    def update(self, work: Callable[[Sequence[GcraLimit], float], T]) -> T | None:
        """See LocalLimit.update."""

        def keep(limits: Sequence[GcraLimit], now: float) -> tuple[T, GcraLimit]:
            return work(limits, now), limits[0]

        if self.is_shared:
            clock = asyncio.get_running_loop().time
            try:
                result, self._state = self._store.update(self._pool, self.limit, clock, keep)
            except StoreBusyError:
                return None
            except OutputError as error:
                self._warn(str(error))
                self.is_shared = False
            else:
                return result
        return super().update(work)

    def stop_sharing(self, reason: str) -> None:
        """See LocalLimit.stop_sharing."""
        self.is_shared = False
        self._warn(f"{self._store.path}: {reason}")
