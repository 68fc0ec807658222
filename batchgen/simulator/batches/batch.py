"""One batch: what it was created with, its fate, and its status by the clock.

A batch that takes T seconds (`Settings.batch_speed`) goes this way:

```text
0           T/10           9T/10         T
validating  in_progress    finalizing    completed
            failed: if its input file is wrong
            expired: at T or after 24 hours, if that is its fate
            cancelling: from when a client asks for it; cancelled T/10 later
```
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen.simulator.batches.tasks import Tasks
from batchgen.simulator.calls import Body
from batchgen.simulator.draws import roll
from batchgen.simulator.settings import Settings

WINDOW = 86_400  # seconds

ENDS = ("completed", "expired", "failed", "in_progress", "finalizing")
_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The reply to one line of a batch: an HTTP answer, or (`status` 0) an error in `body`."""

    status: int
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInfo:
    """What is known of a new batch when its fate is decided; `n` counts the batches from 1."""

    n: int
    endpoint: str
    model: str | None
    lines: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of a batch whose input file is valid.

    ends: the last status that it reaches by itself, out of ENDS
    answers: share of its lines that are answered until then, 0 to 1
    code: of the error that it fails with
    shows: the statuses that the first polls see, one each, before anything happens
    """

    ends: str = "completed"
    answers: float = 1
    code: str = "simulated_failure"
    shows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ends not in ENDS or not 0 <= self.answers <= 1:
            raise ValueError(
                f"no batch ends as {self.ends!r} with a share of {self.answers} answered"
            )


FateOf = Callable[[BatchInfo], Fate | None]
AnswerLine = Callable[[str, Body], Awaitable[Reply]]


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch. Its files are `id` with a suffix in the folder of Files.

    order: the body that created it
    created_at: Unix seconds
    takes: seconds until it completes
    tasks: its input file
    fate: what becomes of it
    folder: where its files are
    turns: numbers of its lines, from 0, in the order in which they are answered
    shows: what is left of the statuses that its fate shows
    most: how many lines are answered at most
    timeline: when each status begins, in Unix seconds
    done, completed: lines that are answered, and those of them that succeeded
    closed: whether it has ended and a client has seen that
    usage: tokens of its answers
    files: ids of its `output` and `error`, when it is closed
    lock: held while one client polls it
    """

    id: str
    order: Body
    created_at: float
    takes: float
    tasks: Tasks
    fate: Fate
    folder: Path
    turns: array[int]
    shows: list[str]
    most: int
    timeline: list[tuple[float, str]]
    done: int = 0
    completed: int = 0
    closed: bool = False
    usage: Counter[str] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def status(self, now: float) -> str:
        """The status by the clock."""
        return [status for at, status in self.timeline if at <= now][-1]

    def due(self, now: float) -> int:
        """How many of its lines must be answered by now."""
        begins = next((at for at, status in self.timeline if status == "in_progress"), None)
        if begins is None or now < begins:
            return 0
        span = 0.8 * self.takes
        passed = min(now, self.created_at + WINDOW) - begins
        share = min(1.0, passed / span if span else 1.0)
        return min(self.most, int(len(self.turns) * self.fate.answers * share))

    def path(self, suffix: str) -> Path:
        """One of its files on disk: `input`, `output` or `error`."""
        return self.folder / f"{self.id}-{suffix}"

    @property
    def queued_tokens(self) -> int:
        """Input tokens that count against the queue of its model."""
        return 0 if self.closed or self.tasks.errors else self.tasks.tokens

    def as_json(self, status: str, now: float = -math.inf) -> Body:
        """The official batch object, with the times of what has happened by `now`."""
        passed = {f"{name}_at": int(at) for at, name in self.timeline if at <= now}
        expires_at = next(
            (int(at) for at, name in self.timeline if name == "expired"),
            int(self.created_at) + WINDOW,
        )
        errors = {"object": "list", "data": self.tasks.errors} if status == "failed" else None
        usage = self.usage
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.order["endpoint"],
            "model": self.tasks.model,
            "errors": errors,
            "input_file_id": self.order["input_file_id"],
            "completion_window": "24h",
            "status": status,
            "output_file_id": self.files.get("output"),
            "error_file_id": self.files.get("error"),
            "created_at": int(self.created_at),
            "expires_at": expires_at,
            **dict.fromkeys(_TIMES),
            **{name: at for name, at in passed.items() if name in _TIMES},
            "request_counts": {
                "total": 0 if status in ("validating", "failed") else len(self.turns),
                "completed": self.completed,
                "failed": self.done - self.completed,
            },
            "usage": {
                "input_tokens": usage["input"],
                "input_tokens_details": {"cached_tokens": usage["cached"]},
                "output_tokens": usage["output"],
                "output_tokens_details": {"reasoning_tokens": usage["reasoning"]},
                "total_tokens": usage["input"] + usage["output"],
            },
            "metadata": self.order.get("metadata"),
        }

    def add_usage(self, usage: Any) -> None:
        """Add the usage of one answer, under the names of either kind of endpoint."""
        if not isinstance(usage, dict):
            return
        for name, fields in (
            ("input", ("input_tokens", "prompt_tokens")),
            ("output", ("output_tokens", "completion_tokens")),
        ):
            self.usage[name] += next((usage[field] for field in fields if field in usage), 0)
        details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
        self.usage["cached"] += details.get("cached_tokens", 0)
        details = usage.get("output_tokens_details") or usage.get("completion_tokens_details") or {}
        self.usage["reasoning"] += details.get("reasoning_tokens", 0)


def seconds_taken(settings: Settings, number: int) -> float:
    """How long the batch with this number, from 1, takes."""
    if settings.batch_speed is not None:
        return settings.batch_speed
    return 5 + 10 * roll(settings.seed, "batch", number).jitter


def timeline_of(created: float, takes: float, ends: str) -> list[tuple[float, str]]:
    """When each status begins, until the one that the batch ends with."""
    begins, over = created + takes / 10, created + takes
    if ends == "failed":
        return [(created, "validating"), (begins, "failed")]
    first = [(created, "validating"), (begins, "in_progress")]
    if ends == "expired" or (takes > WINDOW and ends != "in_progress"):
        return [*first, (min(over, created + WINDOW), "expired")]
    later = [(created + 0.9 * takes, "finalizing"), (over, "completed")]
    return first + later[: ("in_progress", "finalizing", "completed").index(ends)]
