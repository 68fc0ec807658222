"""What each command costs before it does anything."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator

from measure import BATCHGEN, TableLine, Target, folder, note, ran, serving, write_job, write_rows


def startup(rows: int | None, rounds: int | None) -> Iterator[TableLine]:
    """ms CPU of a fresh process, in turns, on a job of one row that is done."""
    names = re.findall(
        r"^  (\w+)", ran(*BATCHGEN, "--help").out.partition("Commands:")[2], flags=re.MULTILINE
    )
    with serving() as url, folder() as home:
        job = str(write_job(write_rows(home / "prompts.csv", 1), url, {}))
        ran(*BATCHGEN, "run", job)
        commands: dict[str, tuple[str, ...]] = {
            "python -c pass": (sys.executable, "-c", "pass"),
            "python -c 'import click'": (sys.executable, "-c", "import click"),
            "--help": (*BATCHGEN, "--help"),
            **{f"{name} --help": (*BATCHGEN, name, "--help") for name in names},
            **{
                f"{name}, nothing to do": (*BATCHGEN, name, job)
                for name in ("plan", "status", "run")
            },
        }
        spent = defaultdict[str, list[float]](list)
        for number in range(rounds or 7):
            for what, command in commands.items():
                spent[what].append(ran(*command).cpu * 1000)
            note(f"startup, round {number + 1} of {rounds or 7}")
    for what, values in spent.items():
        yield TableLine(what, values, "ms")
    above = [
        own - click
        for own, click in zip(spent["--help"], spent["python -c 'import click'"], strict=True)
    ]
    yield TableLine("--help above import click", above, "ms", Target(most=40))
