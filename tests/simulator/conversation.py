"""What the tests of the simulator share: a client, a simulator of its own, and bodies."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from PIL import Image

from batchgen.simulator import Settings, Simulator

CHAT = "/chat/completions"
GENERATE = "/images/generations"
EDIT = "/images/edits"
KEY = "sk-canary-0123456789"


class Answer:
    """One HTTP answer, read whole."""

    def __init__(self, response: aiohttp.ClientResponse, raw: bytes) -> None:
        self.status, self.headers, self.raw = response.status, response.headers, raw

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> Any:
        return self.json["error"]


class Client:
    """Posts to one simulator."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator, self.session = simulator, session

    async def send(self, path: str, method: str = "POST", **options: Any) -> Answer:
        async with self.session.request(method, self.simulator.url + path, **options) as response:
            return Answer(response, await response.read())

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.send(path, json=body, headers=headers)


def talk(
    conversation: Callable[[Client], Awaitable[Any]],
    settings: Settings | None = None,
    **options: Any,
) -> Any:
    """Run `conversation` with a simulator of its own and return what it returns."""

    async def main() -> Any:
        async with Simulator(settings, **options) as simulator, aiohttp.ClientSession() as session:
            return await asyncio.wait_for(conversation(Client(simulator, session)), 60)

    return asyncio.run(main())


def once(path: str, body: Any, settings: Settings | None = None, **options: Any) -> Answer:
    """The answer to one request."""
    answer: Answer = talk(lambda client: client.post(path, body), settings, **options)
    return answer


def chat_body(text: Any = "Hello", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": text}], **more}


def image_body(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-image-2", "prompt": "A red fox", "size": "64x48", **more}


def decoded(item: dict[str, str]) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(item["b64_json"], validate=True)))
    picture.load()
    return picture


def png(size: tuple[int, int] = (40, 30), mode: str = "RGB", colour: Any = "navy") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def form_of(*files: tuple[str, bytes, str, str], **fields: str) -> aiohttp.FormData:
    texts = {"model": "gpt-image-2", "prompt": "Add a hat", "size": "80x64", **fields}
    form = aiohttp.FormData(texts, default_to_multipart=True)
    for name, content, filename, mime in files:
        form.add_field(name, content, filename=filename, content_type=mime)
    return form


GOOD = ("image", png(), "a.png", "image/png")
