"""A loopback server for /files and /batches that costs far less than any client.

`python batchapi.py FOLDER [BYTES]` prints its base URL and serves until it is ended. A batch is
complete when it is created. Uploads are kept in FOLDER; answers are made of them while they are
fetched, in blocks whose lines come in reverse order. With BYTES each answer is a PNG of about that
size. GET /stats shows what was received.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web
from server import ANSWER_TOKENS

# Lines of a block, and bytes of an upload that are read at a time.
BLOCK = 500
PIECE = 1024 * 1024


def png(size: int) -> bytes:
    """A picture of noise, of about `size` bytes: it does not shrink."""
    side = max(1, int((size / 3) ** 0.5))
    lines = b"".join(b"\0" + os.urandom(3 * side) for _ in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def answer_to(content: str) -> str:
    """What is answered to a prompt: its number comes back, so that a table can be checked."""
    number = content.partition(":")[0]
    return (
        f"{number}: a short and useful answer that a model might have written to the prompt, "
        "and no more than that."
    )


class Api:
    """Files and batches. `picture` is the answer to everything, or None for texts."""

    def __init__(self, folder: Path, picture: bytes | None) -> None:
        self._folder = folder
        self._drawn = (
            json.dumps({"created": 1, "data": [{"b64_json": b64encode(picture).decode()}]})
            if picture
            else ""
        )
        self._batches: list[dict[str, Any]] = []
        self._files = self._uploaded = 0

    async def take(self, request: web.Request) -> web.Response:
        """POST /files."""
        parts = await request.multipart()
        while isinstance(part := await parts.next(), BodyPartReader):
            if part.name == "file":
                self._files += 1
                with (self._folder / f"file-{self._files}").open("wb") as file:
                    while piece := await part.read_chunk(PIECE):
                        self._uploaded += file.write(piece)
            else:
                await part.release()
        return web.json_response(
            {"id": f"file-{self._files}", "object": "file", "purpose": "batch"}
        )

    async def create(self, request: web.Request) -> web.Response:
        """POST /batches."""
        order, now = await request.json(), int(time.time())
        with (self._folder / order["input_file_id"]).open("rb") as file:
            lines = sum(1 for _ in file)
        batch = {
            "id": f"batch_{len(self._batches)}",
            "object": "batch",
            **order,
            "created_at": now,
            "completed_at": now,
            "status": "completed",
            "request_counts": {"total": lines, "completed": lines, "failed": 0},
            "output_file_id": order["input_file_id"],
        }
        self._batches.append(batch)
        return web.json_response(batch)

    async def all(self, request: web.Request) -> web.Response:
        """The list of batches, the newest first."""
        return web.json_response({"object": "list", "data": self._batches[::-1], "has_more": False})

    async def retrieve(self, request: web.Request) -> web.Response:
        """GET /batches/{id}."""
        return web.json_response(
            self._batches[int(request.match_info["id"].removeprefix("batch_"))]
        )

    async def content(self, request: web.Request) -> web.StreamResponse:
        """GET /files/{id}/content."""
        response = web.StreamResponse()
        await response.prepare(request)
        for block in self._answers(self._folder / request.match_info["id"]):
            await response.write(block)
        return response

    def _answers(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := list(islice(file, 1 if self._drawn else BLOCK)):
                yield "".join(self._answer(line) for line in reversed(block)).encode()

    def _answer(self, line: bytes) -> str:
        task = json.loads(line)
        body = self._drawn or json.dumps(
            completion(answer_to(task["body"]["messages"][-1]["content"]))
        )
        name = task["custom_id"]
        response = f'{{"status_code": 200, "request_id": "req_{name}", "body": {body}}}'
        head = f'{{"id": "batch_req_{name}", "custom_id": "{name}"'
        return f'{head}, "response": {response}, "error": null}}\n'

    async def stats(self, request: web.Request) -> web.Response:
        """GET /stats."""
        return web.json_response({"batches": len(self._batches), "uploaded": self._uploaded})


def completion(text: str) -> dict[str, Any]:
    """A chat completion with its usage."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-5.6-luna",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 60,
            "completion_tokens": ANSWER_TOKENS,
            "total_tokens": 60 + ANSWER_TOKENS,
        },
        "service_tier": "default",
    }


async def serve(folder: Path, size: int) -> None:
    """Serve until the process ends."""
    api, app = Api(folder, png(size) if size else None), web.Application()
    app.router.add_post("/v1/files", api.take)
    app.router.add_post("/v1/batches", api.create)
    app.router.add_get("/v1/batches", api.all)
    app.router.add_get("/v1/batches/{id}", api.retrieve)
    app.router.add_get("/v1/files/{id}/content", api.content)
    app.router.add_get("/stats", api.stats)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
