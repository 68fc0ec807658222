"""What all jobs on this machine cost, from the journals that it knows.

The first run of a job that calls a real server leaves a note of its journal in the user's state
folder: a small file with the folder's path, and nothing of what is in it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write, translating_errors
from batchgen.dispatch.limits.key_spending import NAME as FILE
from batchgen.dispatch.limits.key_spending import Cap, Owner, Period, begin_of, day_of, used
from batchgen.dispatch.limits.state_file import state_folder
from batchgen.errors import BatchgenError
from batchgen.job import Job, api_key
from batchgen.journal import Journal
from batchgen.journal.attempts import spent_by_day
from batchgen.journal.batches import set_aside, set_aside_by_day
from batchgen.journal.database import NAME
from batchgen.pricing import NANO, dollars

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


def spent_by_key(journal: Journal) -> dict[str, dict[str, int]]:
    """What a job spent this month, in nano-dollars by day, for each key: see `known_as`.

    What its batches may still cost is included.
    """
    keys = _keys(journal)
    month = begin_of("month", day_of(time.time())).timestamp()
    days = [(each["day"], each["run"], each["cost"]) for each in spent_by_day(journal, month)]
    found: dict[str, dict[str, int]] = {}
    for day, run, cost in [*days, *set_aside_by_day(journal)]:
        of_key = found.setdefault(known_as(keys.get(run) or ""), {})
        of_key[day] = of_key.get(day, 0) + cost
    return found


def known_as(label: str) -> str:
    """What the file of all jobs knows a key by, from its label: where it came from is left out."""
    return label.rpartition(" ")[2]


def all_spending() -> Iterator[tuple[Owner, Mapping[str, int]]]:
    """What all known jobs spent with each key, from the journals that can be read."""
    for folder, name in _notes():
        with suppress(BatchgenError):
            if not (folder / NAME).is_file():
                continue
            with Journal.peek(folder) as journal, journal.snapshot():
                for key, days in spent_by_key(journal).items():
                    yield Owner(key=key, folder=str(folder), job=name), days


def cost_caps(job: Job) -> list[Cap]:
    """The job's caps on what its key may spend."""
    limits = job.limits
    caps: list[tuple[str, Decimal | None, Period]] = [
        ("limits.max_cost_per_day", limits.max_cost_per_day, "day"),
        ("limits.max_cost_per_month", limits.max_cost_per_month, "month"),
    ]
    return [
        Cap(name=name, amount=int(amount * NANO), period=period)
        for name, amount, period in caps
        if amount is not None
    ]


def left_of_caps(job: Job) -> dict[str, float]:
    """What is left of the job's caps on its key, in USD by their names.

    Empty without caps, or without the key.
    """
    caps = cost_caps(job)
    if not caps:
        return {}
    try:
        key = known_as(key_label(job, api_key(job)))
        path = state_folder() / FILE
    except BatchgenError:
        return {}
    day = day_of(time.time())
    return {
        cap.name: max(0, cap.amount - (used(path, key, cap.period, day) or 0)) / NANO
        for cap in caps
    }


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
    keys = _keys(journal)
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


def _keys(journal: Journal) -> dict[int, str | None]:
    """What the key of each run is called."""
    return {
        record["run"]: json.loads(record["provenance"]).get("key")
        for record in journal.query("SELECT run, provenance FROM runs")
    }
