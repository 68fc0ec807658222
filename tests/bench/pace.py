"""How much of what the server allows is used: requests in flight at a latency, and limits that it
enforces.
"""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from measure import (
    BATCHGEN,
    TableLine,
    Target,
    folder,
    note,
    ran,
    serving,
    stats,
    write_job,
    write_rows,
    yardstick,
)
from yardsticks import MOST, NAMES

# What a server far away takes, and workers enough to hide it.
FAR, MANY = 0.2, 500

LATENCY = 0.3
SECONDS = 62
# What is left out at the beginning, while the server's bucket is still full.
START = 2.0


def inflight(rows: int | None, rounds: int | None) -> Iterator[TableLine]:
    """Rows a second of batchgen and of raw aiohttp, in turns, beside the ideal: workers that wait
    only for the server.
    """
    rows, rounds, seen = rows or 60_000, rounds or 3, defaultdict[str, list[float]](list)
    for number in range(rounds):
        with serving(FAR) as url, folder() as home:
            job = write_job(write_rows(home / "prompts.csv", rows), url, {"concurrency": MANY})
            ran(*BATCHGEN, "run", job, "--quiet")
            counts = stats(url)
        took = counts["ended"] - counts["began"]
        seen["batchgen"].append(rows / took)
        seen["open"].append(counts["open_seconds"] / took)
        with serving(FAR) as url, folder() as home:
            seen["raw"].append(
                rows / yardstick("raw", url, write_rows(home / "prompts.csv", rows), MANY)["wall"]
            )
        note(f"inflight, round {number + 1} of {rounds}")
    ideal = MANY / FAR
    yield TableLine(
        f"batchgen, {MANY} workers, {FAR * 1000:.0f} ms: ideal {ideal:,.0f}",
        seen["batchgen"],
        "rows/s",
    )
    yield TableLine(
        "its share of the ideal", _percent(seen["batchgen"], ideal), "%", Target(least=80)
    )
    yield TableLine("its mean of open requests at the server", seen["open"])
    yield TableLine(NAMES["raw"], seen["raw"], "rows/s")
    yield TableLine("its share of the ideal", _percent(seen["raw"], ideal), "%")
    ratios = [own / other for own, other in zip(seen["batchgen"], seen["raw"], strict=True)]
    yield TableLine(f"batchgen / {NAMES['raw']}", ratios, "x")


def _percent(values: list[float], whole: float) -> list[float]:
    return [100 * value / whole for value in values]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Limits a minute, the job's and the server's alike, and whether prompts are very unequal or
    all alike.
    """

    what: str
    unequal: bool
    limits: dict[str, float]


# Unequal requests are charged about 1,000 tokens in the mean, so in the last of these the limits
# bind in turn. No request is larger than the server's bucket, which holds one second's worth.
PACES = (
    Pace(what="6,000 requests", unequal=False, limits={"requests": 6_000}),
    Pace(what="600,000 tokens, prompts of 50 to 4,000", unequal=True, limits={"tokens": 600_000}),
    Pace(
        what="6,000 requests and 6,000,000 tokens",
        unequal=True,
        limits={"requests": 6_000, "tokens": 6_000_000},
    ),
)


def limit(rows: int | None, rounds: int | None) -> Iterator[TableLine]:
    """The share of each limit that a minute's run uses while it is steady, the refusals, and how
    late a row was sent: the longest time after a row that follows it in the prompts. The number of
    rows is what one minute allows.
    """
    for pace in PACES:
        seen = defaultdict[str, list[float]](list)
        for _ in range(rounds or 1):
            note(f"limit: {pace.what}")
            for name, value in _paced(pace).items():
                seen[name].append(value)
        yield TableLine(f"{pace.what} a minute: refused", seen["refused"], "", Target(most=0))
        for name in pace.limits:
            # Of two limits, the other one may hold back.
            target = Target(least=95 if pace.unequal else 99) if len(pace.limits) == 1 else None
            yield TableLine(f"{name} used, of the limit", seen[name], "%", target)
        if len(pace.limits) > 1:
            yield TableLine("the limit that is used more", seen["used"], "%", Target(least=95))
        yield TableLine("latest row", seen["late"], "s")


def _paced(pace: Pace) -> dict[str, float]:
    """One run under limits, as the server saw it."""
    with serving(LATENCY, **pace.limits) as url, folder() as home:
        prompts = _write_paced(home / "prompts.csv", pace)
        job = write_job(
            prompts, url, {f"{name}_per_minute": limit for name, limit in pace.limits.items()}
        )
        ran(*BATCHGEN, "run", job, "--quiet")
        counts = stats(url)
    sent = [(when, row, tokens) for when, row, tokens, admitted in counts["log"] if admitted]
    shares = _shares(pace, sent)
    return {
        **shares,
        "used": max(shares.values()),
        "late": _latest(sent),
        "refused": counts["refused"],
    }


def _write_paced(path: Path, pace: Pace) -> Path:
    """Rows for SECONDS under every limit of a pace."""
    lots, left = (
        random.Random(0),
        {name: limit / 60 * SECONDS for name, limit in pace.limits.items()},
    )
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "text"))
        for n in count():
            tokens = round(50 * 80 ** lots.random()) if pace.unequal else 60
            table.writerow((f"r{n}", f"{n}: {'word ' * tokens}"[: tokens * 4]))
            for name, amount in (("requests", 1), ("tokens", tokens + MOST)):
                if name in left:
                    left[name] -= amount
            if min(left.values()) <= 0:
                return path
    raise AssertionError


def _shares(pace: Pace, sent: list[Any]) -> dict[str, float]:
    """Percent of each limit that was used from START to the last request."""
    begin, end = sent[0][0] + START, sent[-1][0]
    steady = [(1, tokens) for when, _, tokens in sent if begin < when <= end]
    used = dict(
        zip(
            ("requests", "tokens"),
            (sum(amounts) for amounts in zip(*steady, strict=True)),
            strict=True,
        )
    )
    return {
        name: 100 * used[name] / (limit / 60 * (end - begin)) for name, limit in pace.limits.items()
    }


def _latest(sent: list[Any]) -> float:
    """The longest time that a row was sent after one that follows it in the prompts."""
    latest, earliest = 0.0, float("inf")
    first = {row: when for when, row, _ in reversed(sent)}
    for row in sorted(first, reverse=True):
        latest = max(latest, first[row] - earliest)
        earliest = min(earliest, first[row])
    return latest
