"""`running.json`: what a run publishes of itself while it goes on.

It is written whole every few seconds by the process that holds the lock, and removed when that
ends. It is not synced: after a crash it says nothing, because a note whose process does not hold
the lock is not believed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write
from batchgen.dispatch import Progress
from batchgen.errors import OutputError
from batchgen.report import progress_json
from batchgen.workspace.lock import is_locked

RUNNING = "running.json"

# Bytes that are read of the file: it has less than one thousand.
MOST = 100_000

# The fields, and the types of their values.
Number = (int, float)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "pid": (int,),
    "phase": (str,),
    "started_at": Number,
    "updated_at": Number,
    "done": (int,),
    "incomplete": (int,),
    "failed": (int,),
    "answered_remotely": (int,),
    "left": (int,),
    "in_flight": (int,),
    "silent_for": Number,
    "rows_per_minute": (*Number, type(None)),
    "seconds_left": (*Number, type(None)),
    "spent": Number,
    "cap": (*Number, type(None)),
    "stopping": (bool,),
    "wait": (dict, type(None)),
}
_WAIT_TYPES: Mapping[str, tuple[type, ...]] = {
    "cause": (str,),
    "reason": (str,),
    "until": (*Number, type(None)),
    "is_pace": (bool,),
}


class RunningNote:
    """Writes `running.json` in a job's folder. A disk that takes no more does not end the run."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RUNNING
        self._started_at = time.time()

    def write(self, phase: str, progress: Progress) -> None:
        """Publish what a run does, in words, and its progress."""
        note = {
            "pid": os.getpid(),
            "phase": phase,
            "started_at": self._started_at,
            "updated_at": time.time(),
            **progress_json(progress),
        }
        with suppress(OutputError), atomic_write(self._path, sync=False) as file:
            json.dump(note, file)


@contextmanager
def publishing(folder: Path) -> Iterator[RunningNote]:
    """What publishes a run until the block ends. Only under the lock."""
    try:
        yield RunningNote(folder)
    finally:
        with suppress(OSError):
            (folder / RUNNING).unlink()


def read_running(folder: Path) -> dict[str, Any] | None:
    """What the run of a job's folder publishes; None when no run goes on, or it says nothing."""
    try:
        with open(folder / RUNNING, "rb") as file:
            note = json.loads(file.read(MOST))
    except (OSError, ValueError, RecursionError):
        return None
    if not _fits(note, _TYPES) or not (note["wait"] is None or _fits(note["wait"], _WAIT_TYPES)):
        return None
    return {name: note[name] for name in _TYPES} if is_locked(folder) else None


def _fits(value: Any, types: Mapping[str, tuple[type, ...]]) -> bool:
    return isinstance(value, dict) and all(
        name in value and isinstance(value[name], kinds) for name, kinds in types.items()
    )
