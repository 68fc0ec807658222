"""A loopback server that costs far less than any client: prepared answers, latency, enforced
limits.

`python server.py [LATENCY [REQUESTS [TOKENS]]]` prints its base URL and serves until it is ended.
LATENCY is in seconds, REQUESTS and TOKENS are a minute ("-" for none). It answers POST
/v1/chat/completions; GET /stats shows what was received.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from math import ceil

ANSWER_TOKENS = 20

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Limit:
    """A bucket that fills with `rate` units a second and holds those of one second; a larger amount
    is never admitted.
    """

    rate: float
    level: float = field(init=False)
    at: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.level = self.rate

    def lacking(self, amount: float, now: float) -> float:
        """Seconds until there is room for `amount`; 0 for at once."""
        self.level = min(self.rate, self.level + (now - self.at) * self.rate)
        self.at = now
        return max(0.0, amount - self.level) / self.rate


@dataclass(slots=True)
class Stats:
    """What was received so far. `open_seconds` is the time that all requests spent in the server,
    `began` and `ended` are the first and last moment when one was open; `log` has (when, row,
    tokens, admitted) of each request, where limits are enforced.
    """

    requests: int = 0
    refused: int = 0
    open: int = 0
    peak: int = 0
    open_seconds: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    log: list[tuple[float, int, int, bool]] = field(default_factory=list)

    def change(self, by: int) -> None:
        """A request came (1) or was answered (-1)."""
        now = time.monotonic()
        if not self.requests:
            self.began = self.ended = now
        self.open_seconds += self.open * (now - self.ended)
        self.ended = now
        self.open += by
        self.requests += by > 0
        self.peak = max(self.peak, self.open)


def response(status: str, body: object, headers: str = "") -> bytes:
    """A whole HTTP response with a JSON body; `headers` are lines that each end in CRLF."""
    content = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
        f"x-request-id: req_bench\r\n{headers}"
    )
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def answer(prompt_tokens: int) -> bytes:
    """A chat completion with its usage."""
    text = (
        "A short and useful answer that a model might have written to the prompt it was given, "
        "and no more than that."
    )
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": ANSWER_TOKENS}
    message = {"role": "assistant", "content": text, "refusal": None}
    body = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-5.6-luna",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {**usage, "total_tokens": prompt_tokens + ANSWER_TOKENS},
        "service_tier": "default",
    }
    return response("200 OK", body)


def refusal(seconds: float) -> bytes:
    """A 429 that says when to retry."""
    error = {
        "message": "Rate limit reached.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    milliseconds = max(1, ceil(seconds * 1000))
    wait = f"retry-after: {max(1, ceil(seconds))}\r\nretry-after-ms: {milliseconds}\r\n"
    return response("429 Too Many Requests", {"error": error}, wait)


class Service:
    """What all connections share. Limits are by the minute, None for none."""

    def __init__(self, latency: float, requests: float | None, tokens: float | None) -> None:
        self.latency = latency
        self.stats = Stats()
        self._requests = Limit(requests / 60) if requests else None
        self._tokens = Limit(tokens / 60) if tokens else None
        self._prepared = answer(60)

    def reply(self, body: bytes) -> bytes:
        """The response to one request."""
        if not self._requests and not self._tokens:
            return self._prepared
        asked = json.loads(body)
        text: str = asked["messages"][-1]["content"]
        prompt_tokens = len(text.encode()) // 4
        # Charged as the API does: what is sent, and the most that may come back.
        tokens = prompt_tokens + asked["max_completion_tokens"]
        now = time.monotonic()
        wanted = [
            (limit, amount)
            for limit, amount in ((self._requests, 1), (self._tokens, tokens))
            if limit
        ]
        wait = max(limit.lacking(amount, now) for limit, amount in wanted)
        self.stats.log.append((now, int(text.partition(":")[0]), tokens, wait == 0))
        if wait > 0:
            self.stats.refused += 1
            return refusal(wait)
        for limit, amount in wanted:
            limit.level -= amount
        return answer(prompt_tokens)


class Connection(asyncio.Protocol):
    """One kept-alive connection: requests may come in pieces, and several at once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = b""
        # Responses that wait for their time, in the order of their requests.
        self._waiting: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            stop = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < stop:
                return
            line, body = self._buffer[: self._buffer.index(b"\r\n")], self._buffer[end + 4 : stop]
            self._buffer = self._buffer[stop:]
            self._answer(line, body)

    def _answer(self, line: bytes, body: bytes) -> None:
        service = self._service
        if line.startswith(b"POST /v1/chat/completions ") and body:
            service.stats.change(1)
            self._waiting.append(service.reply(body))
            if service.latency:
                asyncio.get_running_loop().call_later(service.latency, self._send)
            else:
                self._send()
        elif line.startswith(b"GET /stats "):
            self._transport.write(response("200 OK", asdict(service.stats)))
        else:
            # Chunked bodies and other paths would measure nothing, so they must be noticed.
            self._transport.write(
                response("404 Not Found", {"error": {"message": line.decode("latin-1")}})
            )

    def _send(self) -> None:
        self._service.stats.change(-1)
        self._transport.write(self._waiting.popleft())


async def serve(latency: float, requests: float | None, tokens: float | None) -> None:
    """Serve until the process ends."""
    service = Service(latency, requests, tokens)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(service), "127.0.0.1", 0, backlog=4096
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    given = [
        None if word == "-" else float(word)
        for word in [*sys.argv[1:], *"---"[len(sys.argv) - 1 :]]
    ]
    asyncio.run(serve(given[0] or 0.0, given[1], given[2]))
