"""What all jobs on this machine cost, from the journals that it knows.

The first run of a job that calls a real server leaves a note of its journal in the user's state
folder: a small file with the folder's path, and nothing of what is in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write, translating_errors
from batchgen.dispatch.limits.store import state_folder
from batchgen.errors import BatchgenError
from batchgen.job import Job
from batchgen.journal import Journal
from batchgen.journal.attempts import spent_by_day
from batchgen.journal.batches import set_aside
from batchgen.journal.database import NAME
from batchgen.pricing import dollars

# The folder of the notes, in the state folder.
NOTES = "journals"

# Letters below which a key may be guessed, so that nothing is derived from it.
_SHORT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a job spent on a day with one key.

    Attributes:
        day: such as `2026-11-29`, in UTC.
        job: the job's name.
        folder: its output folder.
        key: where the key came from, and a digest of 8 digits.
        calls: how many.
        tokens: input and output.
        cost: in USD, None if no call's is known; calls in flight or of unknown outcome count at
            their highest cost.
        unpriced: calls whose cost is not known, and in no sum.
    """

    day: str
    job: str
    folder: str
    key: str
    calls: int
    tokens: int
    cost: float | None
    unpriced: int

    @property
    def month(self) -> str:
        """Such as `2026-11`."""
        return self.day[:7]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is known of all jobs.

    Attributes:
        spent: by day, then job and key.
        in_batches: what batches that have not ended may still cost, in USD.
        unread: the folders whose journals are gone or cannot be read, each with why.
    """

    spent: tuple[Spent, ...]
    in_batches: float
    unread: tuple[str, ...]


def remember(folder: Path, name: str) -> None:
    """Note that the job of this name has a journal in this folder. Raises OutputError."""
    notes = state_folder() / NOTES
    path = notes / f"{hashlib.blake2b(str(folder).encode(), digest_size=16).hexdigest()}.json"
    note = json.dumps({"folder": str(folder), "job": name})
    with suppress(OSError):
        if path.read_text(encoding="utf-8") == note:
            return
    with translating_errors(path):
        notes.mkdir(mode=0o700, parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(note)


def key_label(job: Job, key: str | None) -> str:
    """What a key is called: the variable or the file that holds it, and 8 digits of its digest."""
    if key is None:
        return "no key"
    name = job.provider.api_key_file or job.provider.api_key_env
    if len(key) < _SHORT:
        return str(name)
    digest = hashlib.blake2b(key.encode(), digest_size=4, person=b"batchgen key").hexdigest()
    return f"{name} {digest}"


def account() -> Account:
    """What all known jobs spent, read from their journals. Raises OutputError."""
    spent: list[Spent] = []
    unread: list[str] = []
    in_batches = 0
    for folder, name in _notes():
        if not (folder / NAME).is_file():
            unread.append(f"{folder}: is gone, with what its job spent")
            continue
        try:
            with Journal.peek(folder) as journal, journal.snapshot():
                spent += _spent(journal, folder, name)
                in_batches += set_aside(journal) or 0
        except BatchgenError as error:
            unread.append(str(error))
    ordered = sorted(spent, key=lambda each: (each.day, each.job, each.folder, each.key))
    return Account(
        spent=tuple(ordered), in_batches=dollars(in_batches) or 0.0, unread=tuple(unread)
    )


def _notes() -> Iterator[tuple[Path, str]]:
    """The folder and the job's name of each note; one that is damaged is passed over."""
    for path in sorted((state_folder() / NOTES).glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(path.read_text(encoding="utf-8"))
            yield Path(note["folder"]), str(note["job"])


def _spent(journal: Journal, folder: Path, name: str) -> Iterator[Spent]:
    keys = {
        record["run"]: json.loads(record["provenance"]).get("key")
        for record in journal.query("SELECT run, provenance FROM runs")
    }
    by_key: dict[tuple[str, str], dict[str, Any]] = {}
    for record in spent_by_day(journal):
        key = keys.get(record["run"]) or "not recorded"
        sums = by_key.setdefault((record["day"], key), {})
        for number in ("calls", "tokens", "cost", "unpriced"):
            sums[number] = sums.get(number, 0) + record[number]
    for (day, key), sums in by_key.items():
        yield Spent(
            day=day,
            job=name,
            folder=str(folder),
            key=key,
            calls=sums["calls"],
            tokens=sums["tokens"],
            cost=dollars(sums["cost"]) if sums["unpriced"] < sums["calls"] else None,
            unpriced=sums["unpriced"],
        )
