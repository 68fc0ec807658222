"""Runs that share one limit, against a server that enforces it with a bucket one second deep.

`python tests/bench/shared.py [SECONDS] [SCENE...]` prints for each scene the share of the limit
that was used from the first call on, the fullest minute, refusals (429), and the part of each run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

LATENCY = 0.3
REQUESTS = 6_000
TOKENS = 600_000


@dataclass
class Strict:
    """A server that lets `limit` units a minute through; `calls` as (time, run, units)."""

    limit: float
    tokens: bool
    calls: list[tuple[float, str, float]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    level: float = 0.0
    at: float = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        body = json.loads(await request.read())
        # As the estimate has it: how well that fits a tokenizer is not what is measured here.
        asked = (len(json.dumps(body, separators=(",", ":"))) + 16) / 4
        units = asked + body["max_completion_tokens"] if self.tokens else 1
        rate = self.limit / 60
        self.level = min(max(rate, units), self.level + (now - self.at) * rate) if self.at else rate
        self.at = now
        if self.level < units:
            self.refused[body["model"]] += 1
            wait = {"retry-after-ms": str(round((units - self.level) / rate * 1000) + 1)}
            return web.json_response(
                {"error": {"message": "slower", "code": "rate_limit_exceeded"}},
                status=429,
                headers=wait,
            )
        self.level -= units
        self.calls.append((now, body["model"], units))
        await asyncio.sleep(LATENCY)
        usage = {
            "prompt_tokens": round(asked),
            "completion_tokens": 2,
            "total_tokens": round(asked) + 2,
        }
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "yes"},
            "finish_reason": "stop",
        }
        return web.json_response({"model": body["model"], "choices": [choice], "usage": usage})

    @asynccontextmanager
    async def serving(self) -> Any:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()


@dataclass(frozen=True)
class Run:
    """One `batchgen run`: when it starts and is killed (shares of the scene), and what it asks."""

    name: str
    concurrency: int = 64
    words: tuple[int, int] = (50, 50)
    limit: float | None = None
    starts: float = 0.0
    killed: float | None = None


SCENES: dict[str, tuple[bool, list[Run]]] = {
    "one": (False, [Run("a")]),
    "two": (False, [Run("a"), Run("b")]),
    "three": (False, [Run("a"), Run("b"), Run("c")]),
    "held": (False, [Run("a"), Run("held", concurrency=4)]),
    "late-and-killed": (False, [Run("a"), Run("killed", killed=0.5), Run("late", starts=0.33)]),
    "lower": (False, [Run("a"), Run("lower", limit=600)]),
    "tokens": (True, [Run("small", words=(10, 200)), Run("large", words=(500, 3000))]),
    "tokens-three": (
        True,
        [Run("a", words=(10, 2000)), Run("b", words=(10, 2000)), Run("c", words=(10, 200))],
    ),
}


def write_job(folder: Path, url: str, run: Run, rows: int, limits: dict[str, float]) -> Path:
    """The job of a run, with prompts enough for a scene."""
    dice = random.Random(run.name)
    lines = [json.dumps({"id": n, "text": "word " * dice.randint(*run.words)}) for n in range(rows)]
    (folder / f"{run.name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    message = {"role": "user", "content": "{{ text }}"}
    job = {
        "kind": "chat",
        "prompts": {"path": f"{run.name}.jsonl", "id": "id"},
        "request": {"model": run.name, "messages": [message], "max_completion_tokens": 20},
        "limits": {**limits, "concurrency": run.concurrency},
        "provider": {"base_url": url},
    }
    path = folder / f"{run.name}.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


async def play(name: str, seconds: float) -> None:
    """Play a scene and print a line."""
    tokens, runs = SCENES[name]
    server = Strict(TOKENS if tokens else REQUESTS, tokens)
    unit = "tokens_per_minute" if tokens else "requests_per_minute"
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "OPENAI_API_KEY": "sk-bench-0123456789", "XDG_STATE_HOME": folder}
        async with server.serving() as url:

            async def one(run: Run) -> None:
                job = write_job(
                    Path(folder),
                    url,
                    run,
                    int(REQUESTS / 60 * seconds),
                    {unit: run.limit or server.limit},
                )
                await asyncio.sleep(run.starts * seconds)
                command = [sys.executable, "-m", "batchgen", "run", str(job), "--quiet"]
                process = await asyncio.create_subprocess_exec(
                    *command,
                    env=environ,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
                with suppress(TimeoutError):
                    async with asyncio.timeout(((run.killed or 1) - run.starts) * seconds):
                        await process.wait()
                if process.returncode is None:
                    process.send_signal(signal.SIGKILL)
                    await process.wait()

            await asyncio.gather(*(one(run) for run in runs))
    print(line(name, server), flush=True)


def line(name: str, server: Strict) -> str:
    """The results of a scene, without its first and last second, in which runs start and end."""
    began, ended = server.calls[0][0], server.calls[-1][0]
    used = [(at, run, units) for at, run, units in server.calls if began + 1 <= at < ended - 1]
    total = sum(units for *_, units in used)
    got: dict[str, float] = defaultdict(float)
    for _, run, units in used:
        got[run] += units
    share = total / (server.limit / 60 * (ended - began - 2))
    parts = ", ".join(f"{run} {units / total:.1%}" for run, units in sorted(got.items()))
    minute, refused = fullest(server.calls) / server.limit, sum(server.refused.values())
    used_up = f"{share:6.1%} of the limit in {ended - began - 2:.0f} s, fullest minute {minute:.1%}"
    return f"{name:16} {used_up}, {refused} refused of {len(server.calls)}; {parts}"


def fullest(calls: Sequence[tuple[float, str, float]]) -> float:
    """The most units in any 60 s."""
    most = total = 0.0
    first = 0
    for at, _, units in calls:
        total += units
        while calls[first][0] <= at - 60:
            total -= calls[first][2]
            first += 1
        most = max(most, total)
    return most


def main() -> None:
    """Play the scenes one after the other."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 40.0
    for name in sys.argv[2:] or SCENES:
        asyncio.run(play(name, seconds))


if __name__ == "__main__":
    main()
