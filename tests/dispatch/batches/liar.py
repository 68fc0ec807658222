"""A simulator that lies: its replies about batches are changed on their way to the client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from lab import KEY, Lab, Server

from batchgen import maintenance
from batchgen.simulator import RequestInfo, Settings, Simulator

ROWS = 5

# Given a call such as "GET /v1/batches" and the true reply (JSON, or bytes of a file): the false
# one.
Lie = Callable[[str, Any], Any]


class Liar(Simulator):
    """A simulator whose successful replies go through `lie`; `asked` are the calls, with their
    queries."""

    def __init__(self) -> None:
        super().__init__(Settings(batch_speed=0), script=self._lose)
        self.lie: Lie | None = None
        self.asked: list[str] = []
        self.lose = 0
        # The calls that are refused, with their status; files that the simulator does not have.
        self.refuse: tuple[str, int] | None = None
        self.refusal: Any = "no"
        # How many of these calls are refused; None for all.
        self.refusals: int | None = None
        self.files: dict[str, bytes] = {}
        # How many polls find the server busy.
        self.busy = 0

    def _lose(self, request: RequestInfo) -> str | None:
        """Lose the replies to `POST /batches` while there are any to lose."""
        lost = (request.method, request.path) == ("POST", "/v1/batches") and self.lose > 0
        self.lose -= lost
        return "reset_body" if lost else None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = f"{request.method} {request.raw_path}"
        self.asked.append(asked)
        if self.refusals != 0 and self.refuse is not None and asked.startswith(self.refuse[0]):
            self.refusals = None if self.refusals is None else self.refusals - 1
            error = {"error": {"message": self.refusal}}
            return web.json_response(error, status=self.refuse[1])
        if self.busy and asked.startswith("GET /v1/batches/"):
            self.busy -= 1
            return web.Response(status=503, body=b'{"error": {"message": "busy"}}')
        if request.raw_path in self.files:
            return web.Response(body=self.files[request.raw_path])
        response = await super()._handle(request)
        if self.lie is None or response.status != 200 or response.prepared:
            return response
        reply: Any
        if isinstance(response, web.FileResponse):
            reply = response._path.read_bytes()
        else:
            assert isinstance(response, web.Response)
            assert isinstance(response.body, bytes)
            reply = json.loads(response.body)
        lied = self.lie(asked, reply)
        return web.Response(body=lied if isinstance(lied, bytes) else json.dumps(lied).encode())


@contextmanager
def lying() -> Iterator[Liar]:
    """A running Liar, honest until `lie` is set."""
    liar = Liar()
    server = Server(liar.start, liar.stop)
    try:
        yield liar
    finally:
        server.close()


def written(lab: Lab, api: Simulator, **parts: Any) -> Path:
    return lab.job(
        api.url, rows=ROWS, mode="batch", retry={"attempts": 2, "max_wait": 0.01}, **parts
    )


def paid(api: Simulator) -> int:
    """How many requests were executed."""
    return api.requests.lines + api.requests.by_path["/v1/chat/completions"]


def assert_done(lab: Lab, api: Simulator) -> None:
    """Every row has its answer and was paid once, the journal is valid, and the key is nowhere."""
    assert [row["output"] for row in lab.table()] == [f"answer {n}" for n in range(1, ROWS + 1)]
    assert paid(api) == ROWS
    assert maintenance.verify(lab.load(lab.folder / "job.yaml")) == []
    assert not list(lab.output().glob(".*.tmp"))
    assert not [
        path
        for path in lab.output().rglob("*")
        if path.is_file() and KEY.encode() in path.read_bytes()
    ]


def about_a_batch(**fields: Any) -> Lie:
    """The batch object has other fields, at every poll."""
    return lambda asked, reply: {**reply, **fields} if "GET /v1/batches/" in asked else reply


def without(*names: str) -> Lie:
    """The batch object lacks fields."""

    def lie(asked: str, reply: Any) -> Any:
        is_batch = "GET /v1/batches/" in asked
        return {name: reply[name] for name in reply if name not in names} if is_batch else reply

    return lie


def in_files(make: Callable[[bytes], bytes]) -> Lie:
    """The result files have other content."""
    return lambda asked, reply: make(reply) if isinstance(reply, bytes) else reply


def each_line(change: Callable[[dict[str, Any]], Any]) -> Lie:
    """Each line of a result file is changed."""
    return in_files(
        lambda data: b"".join(
            json.dumps(change(json.loads(line))).encode() + b"\n" for line in data.splitlines()
        )
    )


def only(**fields: Any) -> Lie:
    """The batch object has no other fields."""
    return lambda asked, reply: fields if "GET /v1/batches/" in asked else reply
