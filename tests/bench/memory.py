"""Peak memory of runs of growing size, against a simulator in a process of its own: python tests/bench/memory.py [ROWS...]

A run of ten times the rows must not need 25 MiB more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = """
import asyncio
from batchgen.simulator import Settings, Simulator
async def serve():
    async with Simulator(Settings()) as simulator:
        print(simulator.url, flush=True)
        await asyncio.Event().wait()
asyncio.run(serve())
"""


@contextmanager
def simulator() -> Iterator[str]:
    """The base URL of a simulated API in another process, without latency."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def write_job(folder: Path, url: str, rows: int, concurrency: int = 64) -> Path:
    """A chat job over `rows` rows of about 250 bytes."""
    text = "A calm and factual sentence about the row that is long enough to be like one. " * 3
    lines = [f"r{n},{n}: {text}" for n in range(rows)]
    (folder / "prompts.csv").write_text("\n".join(["id,text", *lines]), encoding="utf-8")
    job = {
        "kind": "chat",
        "prompts": {"path": "prompts.csv", "id": "id"},
        "request": {
            "model": "gpt-5.6-luna",
            "messages": [{"role": "user", "content": "{{ text }}"}],
            "max_completion_tokens": 100,
        },
        "limits": {"concurrency": concurrency},
        "provider": {"base_url": url},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


def run(job: Path) -> tuple[float, float]:
    """Run a job's command; its peak memory in MiB, and its CPU seconds."""
    command = [sys.executable, "-m", "batchgen", "run", str(job), "--quiet"]
    pid = os.spawnve(os.P_NOWAIT, sys.executable, command, {**os.environ, "OPENAI_API_KEY": "sk-bench-0123456789"})
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"the run ended with status {status}")
    return usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024), usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print one line for each size."""
    sizes = [int(size) for size in sys.argv[1:]] or [1_000, 10_000]
    peaks = []
    with simulator() as url:
        for rows in sizes:
            with tempfile.TemporaryDirectory() as folder:
                peak, seconds = run(write_job(Path(folder), url, rows))
            peaks.append(peak)
            print(f"{rows:>9,} rows: {peak:7.1f} MiB at the most, {seconds:6.1f} s CPU")
    print(f"the largest takes {peaks[-1] - peaks[0]:+.1f} MiB beside the smallest")


if __name__ == "__main__":
    main()
