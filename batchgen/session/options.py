"""What the caller may set for a run, besides its job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.dispatch import Progress
from batchgen.job import Mode
from batchgen.prompts import GivenRows
from batchgen.staging import LinesCallback

# Receives the progress of a run, and the requests by status from before it.
ProgressCallback = Callable[[Progress, Mapping[str, int]], None]


@contextmanager
def unwatched() -> Iterator[LinesCallback]:
    """Reading that nobody watches."""
    yield lambda lines: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the caller may set for a run.

    Attributes:
        limit: send only the first rows of the prompts, this many (None: all).
        sample: send only this many rows at random, with all their combinations (None: all); of a
            job whose rows make conversations, this many whole conversations. `limit` is then not
            used.
        seed: chooses the rows of a sample; the same seed chooses the same rows.
        max_cost: spend at most this much in the run, in USD (None: no cap beyond the job's own).
        simulate: use the simulated API and an output folder of its own.
        wait: stay until the job's batches have ended.
        output: the folder that replaces the job's outputs folder.
        stdin: the stream that holds the prompts of a job whose `prompts.path` is "-".
        prompts: the rows, in place of the job's prompts: a pandas DataFrame, or an iterable of
            dicts, which is iterated once. They stay in the journal.
        mode: online or batch, in place of the job's (None: the job's).
        watch: called with the progress every `every` seconds. If it fails, the run goes on.
        every: seconds between two calls of `watch`.
        reading: makes the block in which prompts are read; it yields what receives, very often, how
            many lines were read.
        say: called with each message that a person should read while the run goes on.
    """

    limit: int | None = None
    sample: int | None = None
    seed: int = 1
    max_cost: float | None = None
    simulate: bool = False
    wait: bool = False
    output: Path | None = None
    stdin: BinaryIO | None = None
    prompts: GivenRows | None = None
    mode: Mode | None = None
    watch: ProgressCallback | None = None
    every: float = 1.0
    reading: Callable[[], AbstractContextManager[LinesCallback]] = unwatched
    say: Callable[[str], None] = field(default=lambda text: None)

    @property
    def selection(self) -> dict[str, Any]:
        """The options that choose rows, as `Workspace.scope` takes them."""
        return {"limit": self.limit, "sample": self.sample, "seed": self.seed}
