"""An HTTP proxy for the tests, and the connection to a server of theirs."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Any, Self

from hostile import ok, received

from batchgen.job import Connection


def connection(url: str, **parts: Any) -> Connection:
    fields: dict[str, Any] = {"organization": None, "project": None, "headers": {}, **parts}
    return Connection(base_url=url, provider_id="test", **fields)


@dataclass
class Proxy:
    """A proxy that leads every tunnel to `port` and answers what comes without one; `refusal` is
    what it answers instead."""

    port: int = 0
    refusal: bytes | None = None
    requests: list[bytes] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._tasks: set[asyncio.Task[Any]] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                self.requests.append(await received(reader))
                if self.refusal is not None:
                    writer.write(self.refusal)
                    await writer.drain()
                    break
                if self.requests[-1].startswith(b"CONNECT "):
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await self._tunnel(reader, writer)
                    break
                await ok()(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
            target.close()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(carry(reader, back))
                group.create_task(carry(there, writer))
        finally:
            back.transport.abort()

    def authorizations(self) -> list[str]:
        """User and password of every request that came, decoded."""
        lines = [line for head in self.requests for line in head.split(b"\r\n")]
        named = [
            line.partition(b" ")[2]
            for line in lines
            if line.lower().startswith(b"proxy-authorization: ")
        ]
        return [base64.b64decode(each.partition(b" ")[2]).decode() for each in named]
