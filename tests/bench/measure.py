"""What the scenarios share: server, rows, jobs, processes with their CPU and peak memory, printed
tables.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yardsticks import KEY, MODEL, MOST

HERE = Path(__file__).parent
# The copy of batchgen that holds these files, whatever is installed; without the caller's API
# settings.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")},
    "PYTHONPATH": str(HERE.parent.parent),
}
# ru_maxrss is in KiB on Linux, in bytes on macOS.
MIB = 1024 if sys.platform == "linux" else 1024 * 1024

BATCHGEN = (sys.executable, "-m", "batchgen")
STAGES = (sys.executable, str(HERE / "stages.py"))

# With what surrounds it, a chat body of about 250 bytes; the row's number comes in front.
TEXT = "A calm and factual sentence about the row that is long enough to be like one. " * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a median should reach."""

    least: float | None = None
    most: float | None = None

    def verdict(self, value: float) -> str:
        """Met, or by how much of the target it is missed."""
        if self.most is not None and value > self.most:
            return f"missed by {(value / self.most - 1):.1%}" if self.most else "missed"
        if self.least is not None and value < self.least:
            return f"missed by {(1 - value / self.least):.1%}"
        return "met"

    def __str__(self) -> str:
        bounds = ((">=", self.least), ("<=", self.most))
        return " ".join(f"{sign} {bound:,.10g}" for sign, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class TableLine:
    """One line of a table: the values of all rounds in `unit`, the median first."""

    what: str
    values: Sequence[float]
    unit: str = ""
    target: Target | None = None

    def cells(self) -> tuple[str, str, str, str]:
        """What, measured, target, verdict."""
        middle = statistics.median(self.values)
        spread = (
            f" ({_short(min(self.values))} to {_short(max(self.values))})"
            if len(self.values) > 1
            else ""
        )
        measured = f"{_short(middle)}{spread} {self.unit}".rstrip()
        target = self.target
        return (
            self.what,
            measured,
            f"{target} {self.unit}".rstrip() if target else "",
            target.verdict(middle) if target else "",
        )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def show(name: str, lines: Sequence[TableLine]) -> None:
    """Print a scenario's table, as Markdown that reads well plain."""
    rows = [(name, "measured", "target", ""), *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    drawn = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    drawn.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print("\n".join(["", *drawn]), flush=True)


def note(text: str) -> None:
    """Show which step is being measured."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def serving(
    latency: float = 0.0, *, requests: float | None = None, tokens: float | None = None
) -> Iterator[str]:
    """The base URL of a new server in its own process: seconds for an answer, limits a minute."""
    words = [str(word) if word is not None else "-" for word in (latency, requests, tokens)]
    with _started("server.py", *words) as url:
        yield url


@contextmanager
def batching(folder: Path, size: int = 0) -> Iterator[str]:
    """The base URL of a new server for batches, which keeps its files in `folder`; with `size`,
    answers are pictures of that many bytes.
    """
    with _started("batchapi.py", folder, str(size)) as url:
        yield url


@contextmanager
def _started(script: str, *words: str | Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, HERE / script, *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def stats(url: str) -> dict[str, Any]:
    """What a server has seen; see server.Stats, batchapi.Api."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/stats") as reply:
        return dict(json.load(reply))


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards, with everything in it."""
    with tempfile.TemporaryDirectory(prefix="batchgen-bench-") as path:
        yield Path(path)


def write_rows(path: Path, rows: int) -> Path:
    """Rows of an id and a text without marks that CSV or JSON would quote; `path` ends in .csv or
    .jsonl.
    """
    line = "r{0},{0}: {1}\n" if path.suffix == ".csv" else '{{"id": "r{0}", "text": "{0}: {1}"}}\n'
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n" if path.suffix == ".csv" else "")
        file.writelines(line.format(n, TEXT) for n in range(rows))
    return path


def write_job(prompts: Path, url: str, limits: Mapping[str, float], **others: Any) -> Path:
    """A chat job over the rows beside it, with `limits` and other top-level keys of a job file."""
    job = {
        "kind": "chat",
        "prompts": {"path": prompts.name, "id": "id"},
        "request": {
            "model": MODEL,
            "messages": [{"role": "user", "content": "{{ text }}"}],
            "max_completion_tokens": MOST,
        },
        "limits": limits,
        "provider": {"base_url": url},
        **others,
    }
    path = prompts.with_name(f"{prompts.stem}.yaml")
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A process that has ended well: CPU and wall seconds, peak memory in MiB, and what it
    wrote.
    """

    cpu: float
    wall: float
    peak: float
    out: str
    err: str


def ran(*command: str | Path, code: int = 0, key: str | None = KEY) -> Ran:
    """Run a command to its end, with an API key or without one. Raises SystemExit when its exit
    code is not `code`: then there is nothing to measure.
    """
    environment = {**ENVIRONMENT, **({"OPENAI_API_KEY": key} if key else {})}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        process = subprocess.Popen([*map(str, command)], stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        done = Ran(
            cpu=usage.ru_utime + usage.ru_stime,
            wall=wall,
            peak=usage.ru_maxrss / MIB,
            out=out.read(),
            err=err.read(),
        )
    if process.returncode != code:
        raise SystemExit(
            f"{' '.join(map(str, command))} ended with {process.returncode}:\n{done.out}{done.err}"
        )
    return done


def staged(job: Path, *, code: int = 0) -> tuple[Ran, Mapping[str, float]]:
    """Run a job, and its CPU seconds by stage; for `code` see `ran`."""
    done = ran(*STAGES, "run", job, "--quiet", code=code)
    return done, json.loads(done.err.splitlines()[-1])


def yardstick(name: str, url: str, prompts: Path, workers: int) -> dict[str, float]:
    """Run a yardstick; its `cpu` and `wall` seconds."""
    return dict(
        json.loads(
            ran(sys.executable, HERE / "yardsticks.py", name, url, prompts, str(workers)).out
        )
    )
