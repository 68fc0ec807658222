"""Jobs in `mode: batch`: the cost of submitting in one run and collecting in the next, beside a
script.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from life import wrong_lines
from measure import (
    HERE,
    Ran,
    TableLine,
    Target,
    batching,
    folder,
    note,
    ran,
    staged,
    stats,
    write_job,
    write_rows,
)

ROWS = 200_000
PICTURES = 400

# Bytes of a picture; in base64 a third more.
SIZE = 6_000_000

# What the server may have in one batch.
MOST = 50_000

STEPS = ("submit", "collect")
IMAGE = {"kind": "image", "request": {"model": "gpt-image-2", "prompt": "{{ text }}"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """The two runs of one job: CPU seconds of their dispatch by step, what the server received, and
    wrong lines.
    """

    runs: Mapping[str, Ran]
    dispatch: Mapping[str, float]
    batches: int
    uploaded: int
    wrong: int


def _lived(rows: int, *, size: int = 0) -> Lived:
    """Submit a job and collect it: texts, or pictures of so many bytes."""
    with folder() as home, folder() as files, batching(files, size) as url:
        prompts = write_rows(home / "prompts.csv", rows)
        job = write_job(prompts, url, {}, mode="batch", **(IMAGE if size else {}))
        done = {name: staged(job, code=code) for name, code in zip(STEPS, (6, 0), strict=True)}
        results = home / "outputs" / job.stem / "results.csv"
        wrong = wrong_lines(prompts, results) + (_lost(results) if size else _stale(results))
        seen = stats(url)
    return Lived(
        runs={name: run for name, (run, _) in done.items()},
        dispatch={name: stages["dispatch"] for name, (_, stages) in done.items()},
        batches=seen["batches"],
        uploaded=seen["uploaded"],
        wrong=wrong,
    )


def _stale(results: Path) -> int:
    """Answers that belong to another row."""
    with results.open(encoding="utf-8", newline="") as file:
        return sum(
            line["output"].partition(":")[0] != line["text"].partition(":")[0]
            for line in csv.DictReader(file)
        )


def _lost(results: Path) -> int:
    """Pictures that are missing."""
    with results.open(encoding="utf-8", newline="") as file:
        return sum(not (results.parent / line["output"]).is_file() for line in csv.DictReader(file))


def _script(rows: int) -> dict[str, Any]:
    """The yardstick's CPU seconds by step, and its `peak` in MiB."""
    with folder() as home, folder() as files, batching(files) as url:
        done = ran(
            sys.executable, HERE / "batchscript.py", url, write_rows(home / "prompts.csv", rows)
        )
    return {**json.loads(done.out), "peak": done.peak}


def batch(rows: int | None, rounds: int | None) -> Iterator[TableLine]:
    """A chat job of ROWS rows (or `rows`) and one of a tenth, in turns with the script.

    The CPU of a row is that of the dispatch with all threads, from the first rendered request or
    read answer to the last commit, less that of one row. Wall time, CPU and memory are of the whole
    process, with pass 1 or the tables.
    """
    rows, rounds = rows or ROWS, rounds or 3
    lives: list[Lived] = []
    scripts: list[dict[str, Any]] = []
    one, tenth = _lived(1), _lived(rows // 10)
    for number in range(rounds):
        lives.append(_lived(rows))
        scripts.append(_script(rows))
        note(f"batch, round {number + 1} of {rounds}")
    yield TableLine(
        f"batches of {rows:,} rows", [lives[0].batches], "", Target(least=-(-rows // MOST))
    )
    yield TableLine("uploaded", [lives[0].uploaded / 1e6], "MB")
    for name in STEPS:
        yield TableLine(f"{name}: wall", [life.runs[name].wall for life in lives], "s")
        yield TableLine("its CPU", [life.runs[name].cpu for life in lives], "s")
        yield TableLine(
            "its peak", [life.runs[name].peak for life in lives], "MiB", Target(most=120)
        )
        growth = [life.runs[name].peak / tenth.runs[name].peak for life in lives]
        yield TableLine(
            f"its peak beside that of {rows // 10:,} rows", growth, "x", Target(most=1.1)
        )
    own = {
        name: [(life.dispatch[name] - one.dispatch[name]) / rows * 1e6 for life in lives]
        for name in STEPS
    }
    own["both"] = [sum(pair) for pair in zip(own["submit"], own["collect"], strict=True)]
    by_hand = {name: [script[name] / rows * 1e6 for script in scripts] for name in STEPS}
    by_hand["both"] = [
        sum(pair) for pair in zip(by_hand["submit"], by_hand["collect"], strict=True)
    ]
    for name, values in own.items():
        yield TableLine(
            f"{name}: CPU of the dispatch",
            values,
            "us a row",
            Target(most=200) if name == "both" else None,
        )
    for name, values in by_hand.items():
        yield TableLine(f"{name}: CPU of the script", values, "us a row")
    for name, values in own.items():
        ratios = [mine / other for mine, other in zip(values, by_hand[name], strict=True)]
        yield TableLine(f"{name}: dispatch / script", ratios, "x")
    yield TableLine("peak of the script", [script["peak"] for script in scripts], "MiB")
    yield TableLine(
        "lines of results.csv that are wrong",
        [max(life.wrong for life in lives)],
        "",
        Target(most=0),
    )


def pictures(rows: int | None, rounds: int | None) -> Iterator[TableLine]:
    """Batches of PICTURES pictures (or `rows`) of some 6 MB each, and of half as many: whether
    memory stays flat.

    A few dozen pictures are too few to tell: each thread of the pool keeps some of its memory, and
    the threads take turns. Needs 15 MB of disk for each picture. There are no rounds.
    """
    rows = rows or PICTURES
    half = max(1, rows // 2)
    before = _lived(half, size=SIZE).runs["collect"]
    life = _lived(rows, size=SIZE)
    collect = life.runs["collect"]
    note(f"{rows:,} pictures")
    yield TableLine(f"output file of {rows:,} pictures", [rows * SIZE * 4 / 3 / 1e9], "GB")
    yield TableLine("collect: wall", [collect.wall], "s")
    yield TableLine("its CPU", [collect.cpu / rows * 1000], "ms a picture")
    yield TableLine("its peak", [collect.peak], "MiB")
    yield TableLine(
        f"its peak beside that of {half:,} pictures",
        [collect.peak / before.peak],
        "x",
        Target(most=1.1),
    )
    yield TableLine("lines of results.csv that are wrong", [life.wrong], "", Target(most=0))
