"""What a simulator remembers of its requests: counts, the log, and what a script sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from batchgen.simulator.calls import Body


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """What a script sees of a valid request that passed key and limits, or of a line of a batch.

    `n` is its number on this server, `seen` how many with the same path and body came so far, this
    one included; the body of a GET is its query.
    """

    n: int
    method: str
    path: str
    body: Body
    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One recorded request.

    headers: names in lower case
    body: JSON, or the form with files as `sha256:...`, or None
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Body | None


@dataclass(slots=True, kw_only=True)
class Stats:
    """What a simulator has done so far.

    received: all requests; by_path: the same, for each path
    answered: true answers given, the list of models included; faults: answers spoiled, for each
        kind
    limited: refused by its own limits with 429; refused: any other official error (400, 401, 404,
        405, 413)
    in_flight: being worked on now; peak: the most of them at once
    uploads: files taken; batches: batches created; lines: lines of batches answered, well or with
        an error
    """

    received: int = 0
    answered: int = 0
    limited: int = 0
    refused: int = 0
    in_flight: int = 0
    peak: int = 0
    uploads: int = 0
    batches: int = 0
    lines: int = 0
    by_path: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def arrive(self, path: str) -> None:
        """Count one request that begins."""
        self.received += 1
        self.by_path[path] += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
