"""CPU for each row, without latency."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator

from measure import (
    HERE,
    TableLine,
    Target,
    folder,
    note,
    ran,
    serving,
    staged,
    write_job,
    write_rows,
    yardstick,
)
from yardsticks import NAMES, installed

WORKERS = 64
OWN = {
    "staging": "of these pass 1",
    "dispatch": "of these dispatch: render, admit, send, read, record",
    "tables": "of these tables and report",
}


def cpu(rows: int | None, rounds: int | None) -> Iterator[TableLine]:
    """ms CPU a row of batchgen and of each yardstick, in turns, and their ratios round by round.

    For batchgen it is the CPU of the whole process with all threads, less that of a run of one row;
    a clock around its stages splits it.
    """
    rows, rounds, times = rows or 20_000, rounds or 3, defaultdict[str, list[float]](list)
    names = [name for name in NAMES if installed(name)]
    with serving() as url, folder() as home:
        prompts = write_rows(home / "prompts.csv", rows)
        for number in range(rounds):
            for name, milliseconds in _batchgen(url, rows).items():
                times[name].append(milliseconds)
            for name in names:
                times[name].append(yardstick(name, url, prompts, WORKERS)["cpu"] / rows * 1000)
            note(f"cpu, round {number + 1} of {rounds}")
    yield TableLine(f"batchgen, {rows:,} rows", times["whole"], "ms a row")
    for name, what in OWN.items():
        yield TableLine(what, times[name], "ms a row")
    for name in names:
        yield TableLine(NAMES[name], times[name], "ms a row")
    targets = {"raw": Target(most=1.8), "cookbook": Target(most=0.5)}
    for stage, what in {"dispatch": "batchgen's dispatch", "whole": "batchgen"}.items():
        for name in names:
            ratios = [own / other for own, other in zip(times[stage], times[name], strict=True)]
            yield TableLine(
                f"{what} / {NAMES[name]}",
                ratios,
                "x",
                targets.get(name) if stage == "dispatch" else None,
            )
    for name in NAMES.keys() - names:
        note(f"{NAMES[name]}: not installed")


def parts(rows: int | None, rounds: int | None) -> Iterator[TableLine]:
    """µs of CPU that each part of a row's way takes, alone and warm."""
    rows, times = rows or 5_000, defaultdict[str, list[float]](list)
    for number in range(rounds or 3):
        with folder() as home:
            prompts = write_rows(home / "prompts.csv", rows)
            job = write_job(prompts, "http://127.0.0.1:1/v1", {})
            for name, value in json.loads(
                ran(sys.executable, HERE / "parts.py", prompts, job).out
            ).items():
                times[name].append(value)
        note(f"parts, round {number + 1} of {rounds or 3}")
    for name, values in times.items():
        yield TableLine(name, values, "us a row")


def _batchgen(url: str, rows: int) -> dict[str, float]:
    """ms CPU a row: `whole`, and by stage."""
    spent = []
    for size in (1, rows):
        with folder() as home:
            done, stages = staged(
                write_job(write_rows(home / "prompts.csv", size), url, {"concurrency": WORKERS})
            )
            spent.append({"whole": done.cpu, **stages})
    start, run = spent
    return {name: (run[name] - start[name]) / (rows - 1) * 1000 for name in run}
