"""Which request meets which fault: named by a script, or drawn from the request and a seed."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from batchgen.simulator.calls import Call
from batchgen.simulator.faults import FAULTS
from batchgen.simulator.settings import Settings
from batchgen.simulator.stats import RequestInfo

Script = Callable[[RequestInfo], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dice:
    """Three draws, each at least 0 and below 1, for one request."""

    fault: float
    kind: float
    jitter: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What one request meets.

    seen: how many times the request came, this one included
    dice: its draws
    fault: its fault, or None
    """

    seen: int
    dice: Dice
    fault: str | None


def roll(seed: int, digest: str, seen: int) -> Dice:
    """Draw for a request that comes for the `seen`-th time, from 1: a retry draws anew."""
    raw = hashlib.sha256(f"{seed}:{digest}:{seen}".encode()).digest()
    fault, kind, jitter = (number / 2**64 for number in struct.unpack("<3Q", raw[:24]))
    return Dice(fault=fault, kind=kind, jitter=jitter)


class FaultDraws:
    """Draws the faults of one simulator; `script` names a fault, or None to leave it to chance."""

    def __init__(self, script: Script | None) -> None:
        self._script = script
        self._seen: Counter[str] = Counter()
        self._numbers = itertools.count(1)

    def draw(self, method: str, call: Call, settings: Settings) -> Draw:
        """What a call meets that passed the key and the limits."""
        seen = self._count(call, settings)
        dice = roll(settings.seed, call.digest, seen)
        fault = self._scripted(method, call, seen)
        if fault is None and dice.fault < settings.faults and settings.fault_kinds:
            fault = settings.fault_kinds[int(dice.kind * len(settings.fault_kinds))]
        return Draw(seen=seen, dice=dice, fault=fault)

    def _count(self, call: Call, settings: Settings) -> int:
        """How many times this request came, this one included; 1 if no fault depends on it."""
        # Without faults a million different requests must not cost a million entries.
        if self._script is None and not settings.faults:
            return 1
        self._seen[call.digest] += 1
        return self._seen[call.digest]

    def _scripted(self, method: str, call: Call, seen: int) -> str | None:
        number = next(self._numbers)
        if self._script is None:
            return None
        fault = self._script(
            RequestInfo(n=number, method=method, path=call.path, body=call.body, seen=seen)
        )
        if fault is not None and fault not in FAULTS:
            raise ValueError(
                f"the script named an unknown fault {fault!r}; known are {', '.join(FAULTS)}"
            )
        return fault
