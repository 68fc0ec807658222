"""What batchgen is compared with: each sends the same rows in its own process and prints its CPU as
JSON.

`python yardsticks.py NAME URL PROMPTS.csv WORKERS` prints {"cpu": seconds, "wall": seconds} of the
run phase: from the opened session to the last answer, without imports.
"""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MODEL, MOST = "gpt-5.6-luna", 100
KEY = "sk-bench-0123456789"

Body = dict[str, Any]
Send = Callable[[Body], Awaitable[Any]]


def bodies(prompts: Path) -> Iterator[Body]:
    """The request of each row, as batchgen's job renders it."""
    with prompts.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for _, text in rows:
            yield {
                "model": MODEL,
                "messages": [{"role": "user", "content": text}],
                "max_completion_tokens": MOST,
            }


async def bounded(send: Send, prompts: Path, workers: int) -> None:
    """Send every row once, so many at a time."""
    left = bodies(prompts)

    async def work() -> None:
        for body in left:
            await send(body)

    await asyncio.gather(*(work() for _ in range(workers)))


@asynccontextmanager
async def raw(url: str, workers: int) -> AsyncIterator[Send]:
    """aiohttp and the standard library's JSON, nothing else: the least that a plain Python client
    costs.
    """
    import aiohttp

    headers = {"authorization": f"Bearer {KEY}"}
    connector = aiohttp.TCPConnector(limit=workers)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def send(body: Body) -> Any:
            async with session.post(f"{url}/chat/completions", json=body) as reply:
                answer = json.loads(await reply.read())
            return answer["choices"][0]["message"]["content"]

        yield send


@asynccontextmanager
async def sdk(url: str, workers: int) -> AsyncIterator[Send]:
    """The openai SDK's create() over its aiohttp transport, with as many connections as workers."""
    import httpx2
    import openai

    limits = httpx2.Limits(max_connections=workers, max_keepalive_connections=workers)
    http = openai.DefaultAioHttpClient(limits=limits)
    async with openai.AsyncOpenAI(api_key=KEY, base_url=url, http_client=http) as client:
        yield lambda body: client.chat.completions.create(**body)


@asynccontextmanager
async def sdk_default(url: str, workers: int) -> AsyncIterator[Send]:
    """The openai SDK's create() with its defaults."""
    import openai

    async with openai.AsyncOpenAI(api_key=KEY, base_url=url) as client:
        yield lambda body: client.chat.completions.create(**body)


@asynccontextmanager
async def litellm(url: str, workers: int) -> AsyncIterator[Send]:
    """litellm's acompletion()."""
    from litellm import acompletion  # type: ignore[import-not-found,unused-ignore]

    yield lambda body: acompletion(
        **{**body, "model": f"openai/{MODEL}"}, api_base=url, api_key=KEY
    )


async def cookbook(url: str, prompts: Path, workers: int) -> None:
    """The pattern of OpenAI's cookbook for parallel requests, rewritten.

    One loop sleeps a millisecond in each round and fills two buckets by the clock. It makes a task
    for each request when both have room, and each task appends its result to a JSONL file. The
    limits are too high to hold anything back; the loop and aiohttp's default of 100 connections
    bound the requests in flight.
    """
    import aiohttp

    limit, pause = 1e12, 0.001
    left, results = bodies(prompts), prompts.with_name("cookbook.jsonl")
    room_for_requests = room_for_tokens = limit
    last, ahead = time.time(), next(left, None)
    open_tasks: set[asyncio.Task[None]] = set()
    again: asyncio.Queue[Body] = asyncio.Queue()

    async with aiohttp.ClientSession() as session:

        async def call(body: Body) -> None:
            try:
                headers = {"Authorization": f"Bearer {KEY}"}
                async with session.post(
                    url=f"{url}/chat/completions", headers=headers, json=body
                ) as reply:
                    answer = await reply.json()
            except aiohttp.ClientError:
                again.put_nowait(body)
                return
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps([body, answer]) + "\n")

        while ahead is not None or open_tasks or not again.empty():
            if ahead is None and not again.empty():
                ahead = again.get_nowait()
            now = time.time()
            room_for_requests = min(room_for_requests + limit * (now - last) / 60, limit)
            room_for_tokens = min(room_for_tokens + limit * (now - last) / 60, limit)
            last = now
            if ahead is not None:
                tokens = MOST + sum(
                    len(message["content"]) // 4 + 4 for message in ahead["messages"]
                )
                if room_for_requests >= 1 and room_for_tokens >= tokens:
                    room_for_requests, room_for_tokens = (
                        room_for_requests - 1,
                        room_for_tokens - tokens,
                    )
                    task = asyncio.create_task(call(ahead))
                    open_tasks.add(task)
                    task.add_done_callback(open_tasks.discard)
                    ahead = next(left, None)
            await asyncio.sleep(pause)


CLIENTS = {"raw": raw, "sdk": sdk, "sdk-default": sdk_default, "litellm": litellm}
NAMES = {
    "raw": "raw aiohttp, bounded workers",
    "cookbook": "cookbook pattern (our own of OpenAI's script)",
    "sdk": "openai create(), aiohttp transport",
    "sdk-default": "openai create(), default transport",
    "litellm": "litellm acompletion()",
}
# What is not in the developers' set-up, and is measured where it happens to be.
PEERS = ("litellm",)


def installed(name: str) -> bool:
    """Whether a yardstick can be measured here."""
    return name not in PEERS or find_spec(name) is not None


async def timed(name: str, url: str, prompts: Path, workers: int) -> dict[str, float]:
    """Run one yardstick over all rows."""
    if name == "cookbook":
        cpu, wall = time.process_time(), time.monotonic()
        await cookbook(url, prompts, workers)
    else:
        async with CLIENTS[name](url, workers) as send:
            # The first request pays for late imports.
            await send(next(bodies(prompts)))
            cpu, wall = time.process_time(), time.monotonic()
            await bounded(send, prompts, workers)
    return {"cpu": time.process_time() - cpu, "wall": time.monotonic() - wall}


if __name__ == "__main__":
    print(
        json.dumps(
            asyncio.run(timed(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
        )
    )
