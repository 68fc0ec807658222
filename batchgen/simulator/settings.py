"""What the simulator simulates: its latency, faults, limits, batches and key."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchgen.errors import InputError, did_you_mean
from batchgen.simulator.faults import DEFAULT_FAULTS, FAULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a simulator behaves; replace it while it runs to change that.

    Raises InputError for a value out of bounds.

    latency: seconds that an answer takes, 0 or more, times a jitter of 0.75 to 1.25 drawn from the
        request
    faults: share of the valid requests answered by a fault, 0 to 1
    fault_kinds: names out of FAULTS that `faults` draws from
    rpm, tpm, ipm: requests, tokens and images per minute for each key, above 0; None is without a
        limit
    key: the bearer key that a call must have; None accepts any, or none
    hang: seconds that a `hang` stays silent before it closes; 0 or more
    seed: which requests meet which fault, and the order of a batch's output
    batch_speed: seconds that a batch takes; 0: it is done at the next poll; None: 5 to 15, drawn
        by `seed`
    batch_tokens: input tokens that the queue of a model holds, 1 or more; a batch leaves it when a
        poll has seen its end; None is without a limit
    """

    latency: float = 0
    faults: float = 0
    fault_kinds: tuple[str, ...] = DEFAULT_FAULTS
    rpm: float | None = None
    tpm: float | None = None
    ipm: float | None = None
    key: str | None = None
    hang: float = 30
    seed: int = 0
    batch_speed: float | None = None
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.faults <= 1:
            raise InputError(f"faults is a share from 0 to 1, not {self.faults}")
        for name in ("latency", "hang"):
            _bounded(name, getattr(self, name), "0 seconds or more", lowest=0)
        for name in ("rpm", "tpm", "ipm"):
            if getattr(self, name) is not None:
                _bounded(
                    name,
                    getattr(self, name),
                    "a number above 0, or None for no limit",
                    lowest=math.ulp(0),
                )
        if self.batch_speed is not None:
            _bounded(
                "batch_speed", self.batch_speed, "0 seconds or more, or None for 5 to 15", lowest=0
            )
        if self.batch_tokens is not None:
            _bounded("batch_tokens", self.batch_tokens, "1 or more, or None for no limit", lowest=1)
        for kind in self.fault_kinds:
            if kind not in FAULTS:
                raise InputError(
                    f"unknown fault {kind!r}{did_you_mean(kind, FAULTS)};"
                    f" known are {', '.join(FAULTS)}"
                )


def _bounded(name: str, value: float, wanted: str, *, lowest: float) -> None:
    if not lowest <= value < math.inf:
        raise InputError(f"{name} is {wanted}, not {value}")
