"""The attempts of a run -> what happened over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from batchgen.journal import Journal

# Parts of a run's time that charts show, if it has enough attempts for them.
MOST_PARTS = 40
ATTEMPTS_A_PART = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A run in parts of equal length. All sequences have one item for each part.

    Attributes:
        run: the run's number.
        began: when its first attempt began, in seconds since 1970.
        width: seconds of one part.
        answers: attempts that were answered in the part.
        failures: attempts that failed in the part, by reason.
        median, slow: seconds that the answers of the part took: half of them took no longer than
            `median`, 19 of 20 no longer than `slow`; None where none came.
    """

    run: int
    began: float
    width: float
    answers: Sequence[int]
    failures: dict[str, list[int]]
    median: Sequence[float | None]
    slow: Sequence[float | None]


def last_activity(journal: Journal) -> Activity | None:
    """What the last run that sent anything online did over time; None without such a run."""
    run = journal.query("SELECT max(run) FROM attempts WHERE batch IS NULL")[0][0]
    attempts = journal.query(
        "SELECT started_at, elapsed, reason FROM attempts "
        "WHERE run = ? AND batch IS NULL AND elapsed IS NOT NULL",
        run,
    )
    if not attempts:
        return None
    began = min(row["started_at"] for row in attempts)
    ended = max(row["started_at"] + row["elapsed"] for row in attempts)
    parts = max(1, min(MOST_PARTS, len(attempts) // ATTEMPTS_A_PART))
    width = max((ended - began) / parts, 1e-3)
    times: list[list[float]] = [[] for _ in range(parts)]
    failures: dict[str, Counter[int]] = {}
    for started_at, elapsed, reason in attempts:
        part = min(parts - 1, max(0, int((started_at + elapsed - began) / width)))
        if reason is None:
            times[part].append(elapsed)
        else:
            failures.setdefault(reason, Counter())[part] += 1
    for each in times:
        each.sort()
    return Activity(
        run=run,
        began=began,
        width=width,
        answers=[len(each) for each in times],
        failures={
            reason: [counts[part] for part in range(parts)]
            for reason, counts in sorted(failures.items())
        },
        median=[median(each) if each else None for each in times],
        slow=[each[(len(each) - 1) * 19 // 20] if each else None for each in times],
    )
