"""CPU per row of a whole run beside raw aiohttp on the same rows, in turns: python tests/bench/throughput.py [ROWS] [ROUNDS]

The run is less its start-up (a run of one row); raw aiohttp is a bounded set of workers that post the same bodies and
parse the answers.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from memory import run, simulator, write_job

WORKERS = 64


async def raw(url: str, bodies: list[dict[str, object]]) -> None:
    """Post every body once, WORKERS at a time."""
    left = iter(bodies)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=WORKERS)) as session:

        async def work() -> None:
            for body in left:
                async with session.post(f"{url}/chat/completions", json=body) as reply:
                    json.loads(await reply.read())

        await asyncio.gather(*(work() for _ in range(WORKERS)))


def raw_seconds(url: str, bodies: list[dict[str, object]]) -> float:
    """CPU seconds of `raw`."""
    before = time.process_time()
    asyncio.run(raw(url, bodies))
    return time.process_time() - before


def run_seconds(url: str, rows: int) -> float:
    """CPU seconds of a run of `rows` rows."""
    with tempfile.TemporaryDirectory() as folder:
        return run(write_job(Path(folder), url, rows, WORKERS))[1]


def main() -> None:
    """Print the medians and their ratio."""
    rows, rounds = map(int, [*sys.argv[1:], *("10000", "3")[len(sys.argv) - 1 :]])
    text = "A calm and factual sentence about the row that is long enough to be like one. " * 3
    message = [{"role": "user", "content": text}]
    bodies: list[dict[str, object]] = [{"model": "m", "messages": message, "max_completion_tokens": 100}] * rows
    ours, theirs = [], []
    with simulator() as url:
        start_up = run_seconds(url, 1)
        for _ in range(rounds):
            theirs.append(raw_seconds(url, bodies) / rows * 1000)
            ours.append((run_seconds(url, rows) - start_up) / rows * 1000)
    mine, bare = statistics.median(ours), statistics.median(theirs)
    print(f"start-up {start_up:.2f} s; {mine:.3f} ms a row; raw aiohttp {bare:.3f} ms; ratio {mine / bare:.2f}")


if __name__ == "__main__":
    main()
