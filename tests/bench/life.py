"""A large job from its first plan to its tables: the cost of each command, the disk space, and
wrong lines.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

from measure import (
    BATCHGEN,
    Ran,
    TableLine,
    Target,
    folder,
    note,
    ran,
    serving,
    write_job,
    write_rows,
)

ROWS = 1_000_000
FORMATS = ("csv", "jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What was measured of one job: each command in a process of its own, the journal's MB after
    pass 1 and in the end, and in `wrong` the lines of results.csv that do not match the prompts.
    """

    plan: Ran
    staging: Ran
    staging_mb: float
    run: Ran
    run_mb: float
    plan_again: Ran
    run_again: Ran
    export: Ran
    wrong: int


@cache
def life(suffix: str, rows: int) -> Life:
    """Run a job of so many rows, in files that end in `suffix`, from plan to export. A million rows
    need some 3 GB of disk.
    """
    with serving() as url, folder() as home:
        prompts = write_rows(home / f"prompts.{suffix}", rows)
        job = write_job(prompts, url, {"concurrency": 64})
        output = home / "outputs" / job.stem
        note(f"{rows:,} rows of {suffix}: plan")
        plan = ran(*BATCHGEN, "plan", job)
        # The key is asked for when pass 1 is done: without one that is all.
        staging = ran(*BATCHGEN, "run", job, code=4, key=None)
        staging_mb = _journal(output)
        shutil.rmtree(output)
        note(f"{rows:,} rows of {suffix}: run")
        run = ran(*BATCHGEN, "run", job, "--quiet")
        run_mb = _journal(output)
        note(f"{rows:,} rows of {suffix}: what follows it")
        again = [ran(*BATCHGEN, command, job) for command in ("plan", "run")]
        (output / "results.csv").unlink()
        export = ran(*BATCHGEN, "export", job)
        wrong = wrong_lines(prompts, output / "results.csv")
    return Life(
        plan=plan,
        staging=staging,
        staging_mb=staging_mb,
        run=run,
        run_mb=run_mb,
        plan_again=again[0],
        run_again=again[1],
        export=export,
        wrong=wrong,
    )


def _journal(output: Path) -> float:
    """MB that a journal takes, its write-ahead log included."""
    return sum(path.stat().st_size for path in output.glob("journal.db*")) / 1e6


def wrong_lines(prompts: Path, results: Path) -> int:
    """Lines that differ from the prompts in number, order, id, text, or have no answer."""
    with (
        prompts.open(encoding="utf-8", newline="") as asked,
        results.open(encoding="utf-8", newline="") as table,
    ):
        wanted = csv.DictReader(asked) if prompts.suffix == ".csv" else map(json.loads, asked)
        return sum(not _fits(*pair) for pair in zip_longest(wanted, csv.DictReader(table)))


def _fits(prompt: dict[str, str] | None, line: dict[str, str] | None) -> bool:
    if prompt is None or line is None:
        return False
    same = all(line[name] == prompt[name] for name in ("id", "text"))
    return same and line["status"] == "succeeded" and line["output"] != ""


def _if_million(rows: int, most: float) -> Target | None:
    """A target of a million rows, which fewer rows would meet without merit."""
    return Target(most=most) if rows == ROWS else None


def memory(rows: int | None, rounds: int | None) -> Iterator[TableLine]:
    """Peak memory of whole runs at growing sizes, the largest of `rows`; exact, so there are no
    rounds.
    """
    most = rows or ROWS
    for suffix in FORMATS:
        lives = {size: life(suffix, size) for size in (most // 100, most // 10, most)}
        for size, life_of_job in lives.items():
            yield TableLine(
                f"{suffix}, {size:,} rows: peak of the run",
                [life_of_job.run.peak],
                "MiB",
                _if_million(size, 120),
            )
        growth = lives[most].run.peak / lives[most // 100].run.peak
        yield TableLine(
            f"{suffix}: {most:,} rows beside {most // 100:,}", [growth], "x", _if_million(most, 1.1)
        )
        for size, life_of_job in lives.items():
            limit = _if_million(size, 400)
            yield TableLine(
                f"{suffix}, {size:,} rows: journal after pass 1",
                [life_of_job.staging_mb],
                "MB",
                limit,
            )
            yield TableLine(
                f"{suffix}, {size:,} rows: journal in the end", [life_of_job.run_mb], "MB"
            )


def million(rows: int | None, rounds: int | None) -> Iterator[TableLine]:
    """CPU of each command on a job of a million rows, or of `rows`, start-up included."""
    rows = rows or ROWS
    for suffix in FORMATS:
        life_of_job = life(suffix, rows)
        yield TableLine(
            f"{suffix}, {rows:,} rows: plan of a new job, CPU",
            [life_of_job.plan.cpu],
            "s",
            _if_million(rows, 60),
        )
        yield TableLine("its peak", [life_of_job.plan.peak], "MiB", _if_million(rows, 120))
        yield TableLine(
            "pass 1 into the journal, CPU", [life_of_job.staging.cpu], "s", _if_million(rows, 60)
        )
        yield TableLine("its peak", [life_of_job.staging.peak], "MiB", _if_million(rows, 120))
        yield TableLine("the whole run, CPU", [life_of_job.run.cpu], "s")
        yield TableLine("its wall time, server beside it", [life_of_job.run.wall], "s")
        yield TableLine(
            "plan when all is done, CPU", [life_of_job.plan_again.cpu], "s", _if_million(rows, 2)
        )
        yield TableLine(
            "run when all is done, CPU", [life_of_job.run_again.cpu], "s", _if_million(rows, 2)
        )
        yield TableLine("export, CPU", [life_of_job.export.cpu], "s", _if_million(rows, 15))
        yield TableLine("its peak", [life_of_job.export.peak], "MiB", _if_million(rows, 200))
        yield TableLine(
            "lines of results.csv that are wrong", [life_of_job.wrong], "", Target(most=0)
        )
