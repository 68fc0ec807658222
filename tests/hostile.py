"""A server that does what servers should not: raw HTTP over asyncio streams, so that it can break
off, lie, drip and hang."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]

JSON = "application/json"
CHAT: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "model": "gpt-5.6-luna",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "a real answer"},
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
}


@dataclass
class Hostile:
    """Answers the nth request (from 1) with `script(n)`; a behaviour that raises Gone, or closes,
    ends the connection."""

    script: Callable[[int], Behaviour]
    tls: Path | None = None
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        context = None
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.tls)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server = await asyncio.start_server(
            self._serve, self.host, self.port, ssl=context, limit=2**20
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while not writer.is_closing():
                self.requests.append(await received(reader))
                await self.script(len(self.requests))(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


async def received(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    body = await reader.readexactly(int(length[0].partition(b":")[2])) if length else b""
    return head + body


def http(
    status: int,
    body: bytes | str | Any,
    headers: Mapping[str, str] | None = None,
    *,
    mime: str = JSON,
) -> Behaviour:
    """A well-formed answer; a body that is neither bytes nor text is sent as JSON."""
    data = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    lines = {"Content-Type": mime, "Content-Length": str(len(data)), **(headers or {})}
    head = f"HTTP/1.1 {status} X\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in lines.items()
    )
    return raw(head.encode("latin-1") + b"\r\n" + data)


def raw(data: bytes, *, then: str = "keep") -> Behaviour:
    """Any bytes; then the connection is kept, closed, reset, or left hanging."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if then == "close":
            writer.close()
        elif then == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif then == "hang":
            await asyncio.sleep(3600)

    return behave


def ok(text: str = "a real answer") -> Behaviour:
    """A true chat answer."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    return http(200, {**CHAT, "choices": [choice]})


def dripping(*, head: bool = False) -> Behaviour:
    """A byte every few milliseconds, for ever: of the body, or already of the head."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nX-Slow: "
            if head
            else b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
        )
        while True:
            writer.write(b"a" if head else b" ")
            await writer.drain()
            await asyncio.sleep(0.005)

    return behave


def bomb(megabytes: int = 300) -> Behaviour:
    """So many megabytes of zeros in a few kilobytes."""
    packer, zeros = zlib.compressobj(9, wbits=31), bytes(1 << 20)
    packed = b"".join(packer.compress(zeros) for _ in range(megabytes)) + packer.flush()
    return http(200, packed, {"Content-Encoding": "gzip"})


def error(
    message: str = "told", kind: str | None = None, code: Any = None, param: str | None = None
) -> dict[str, Any]:
    """The official shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


INVALID = "invalid_request_error"

# name, status, body, headers, what it means, why
ERRORS: list[tuple[str, int, Any, dict[str, str], str, str]] = [
    (
        "rate limit",
        429,
        error(kind="requests", code="rate_limit_exceeded"),
        {"Retry-After": "1"},
        "throttled",
        "throttled",
    ),
    ("a proxy without a password", 407, "Proxy Authentication Required", {}, "account", "proxy"),
    (
        "rate limit of tokens",
        429,
        error(kind="tokens", code="rate_limit_exceeded"),
        {},
        "throttled",
        "throttled",
    ),
    ("rate limit error", 429, error(kind="rate_limit_error"), {}, "throttled", "throttled"),
    (
        "slow down",
        429,
        error(kind="rate_limit_error", code="slow_down"),
        {},
        "throttled",
        "throttled",
    ),
    ("slow down, formerly", 503, error(code="slow_down"), {}, "throttled", "throttled"),
    ("bare 429", 429, b"", {}, "throttled", "throttled"),
    ("429 in HTML", 429, b"<html>Too many</html>", {}, "throttled", "throttled"),
    (
        "quota",
        429,
        error(kind="insufficient_quota", code="insufficient_quota"),
        {"Retry-After": "5"},
        "account",
        "quota",
    ),
    ("quota by type", 429, error(kind="insufficient_quota", code=None), {}, "account", "quota"),
    (
        "credit",
        429,
        error(kind="insufficient_quota", code="credit_balance_exhausted"),
        {},
        "account",
        "quota",
    ),
    (
        "spend, organisation",
        429,
        error(code="organization_spend_limit_exceeded"),
        {},
        "account",
        "quota",
    ),
    ("spend, project", 429, error(code="project_spend_limit_exceeded"), {}, "account", "quota"),
    (
        "usage, organisation",
        429,
        error(code="organization_usage_limit_exceeded"),
        {},
        "account",
        "quota",
    ),
    ("hard limit", 400, error(code="billing_hard_limit_reached"), {}, "account", "quota"),
    ("billing", 429, error(code="billing_not_active"), {}, "account", "quota"),
    ("LiteLLM's budget", 400, error(kind="budget_exceeded", code="400"), {}, "account", "quota"),
    ("402", 402, error(code=402), {}, "account", "quota"),
    ("402 that passes", 402, error(code=402), {"Retry-After": "2"}, "throttled", "throttled"),
    (
        "too large",
        429,
        error("Request too large for m", "tokens", "rate_limit_exceeded"),
        {},
        "row",
        "too_long",
    ),
    ("key", 401, error(kind=INVALID, code="invalid_api_key"), {}, "account", "key"),
    ("no key", 401, error(kind=INVALID), {}, "account", "key"),
    (
        "region",
        403,
        error(kind=INVALID, code="unsupported_country_region_territory"),
        {},
        "account",
        "permission",
    ),
    ("model", 404, error(kind=INVALID, code="model_not_found"), {}, "account", "model"),
    ("model, as 400", 400, error(kind=INVALID, code="model_not_found"), {}, "account", "model"),
    ("404", 404, b"404 page not found", {}, "row", "not_found"),
    (
        "tier",
        400,
        error(kind=INVALID, code="invalid_value", param="service_tier"),
        {},
        "account",
        "service_tier",
    ),
    ("context", 400, error(kind=INVALID, code="context_length_exceeded"), {}, "row", "too_long"),
    ("string", 400, error(kind=INVALID, code="string_above_max_length"), {}, "row", "too_long"),
    ("413", 413, b"", {}, "row", "too_long"),
    (
        "bad request",
        400,
        error(kind=INVALID, code="invalid_value", param="temperature"),
        {},
        "row",
        "bad_request",
    ),
    ("policy", 400, error(kind=INVALID, code="content_policy_violation"), {}, "row", "policy"),
    (
        "picture's policy",
        400,
        error(kind="image_generation_user_error", code="moderation_blocked"),
        {},
        "row",
        "policy",
    ),
    (
        "Azure's filter",
        400,
        {
            "error": {
                "message": "told",
                "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        {},
        "row",
        "policy",
    ),
    ("408", 408, error(), {}, "transient", "server"),
    ("409", 409, error(), {}, "transient", "server"),
    ("498, Groq", 498, error(code="capacity_exceeded"), {}, "transient", "server"),
    ("500", 500, error(kind="server_error"), {}, "transient", "server"),
    ("502 in HTML", 502, b"<html>Bad Gateway</html>", {}, "transient", "server"),
    (
        "503",
        503,
        error(kind="server_error", code="server_is_overloaded"),
        {},
        "transient",
        "server",
    ),
    (
        "503, llama.cpp",
        503,
        {"error": {"code": 503, "message": "told", "type": "unavailable_error"}},
        {},
        "transient",
        "server",
    ),
    ("504", 504, b"", {}, "transient", "server"),
    ("524", 524, b"error code: 524", {}, "transient", "server"),
    (
        "LiteLLM's 429 as 500",
        500,
        error("told", "rate_limit_error", "429"),
        {},
        "throttled",
        "throttled",
    ),
    (
        "vLLM",
        400,
        {"object": "error", "message": "told", "type": "BadRequestError", "code": 400},
        {},
        "row",
        "bad_request",
    ),
    (
        "vLLM with 200",
        200,
        {"object": "error", "message": "told", "type": "x", "code": 400},
        {},
        "row",
        "bad_request",
    ),
    ("Ollama", 400, {"error": "told"}, {}, "row", "bad_request"),
    (
        "Ollama's model",
        404,
        {"error": {"message": "told", "type": "api_error"}},
        {},
        "row",
        "not_found",
    ),
    (
        "Gemini",
        400,
        [{"error": {"code": 400, "message": "told", "status": "INVALID_ARGUMENT"}}],
        {},
        "row",
        "bad_request",
    ),
    (
        "Gemini's rate",
        429,
        [{"error": {"code": 429, "message": "told"}}],
        {},
        "throttled",
        "throttled",
    ),
    ("FastAPI", 422, {"detail": [{"loc": ["body"], "msg": "told"}]}, {}, "row", "bad_request"),
    (
        "OpenRouter",
        502,
        {"error": {"code": 502, "message": "told", "metadata": {}}},
        {},
        "transient",
        "server",
    ),
    (
        "200 with an error",
        200,
        {"error": {"code": 502, "message": "told"}},
        {},
        "transient",
        "server",
    ),
    (
        "200 with a rate limit",
        200,
        {"error": {"code": 429, "message": "told"}},
        {},
        "throttled",
        "throttled",
    ),
    ("200 with a quota", 200, {"error": {"code": 402, "message": "told"}}, {}, "account", "quota"),
    ("200 with a text", 200, {"error": "told"}, {}, "transient", "server"),
    (
        "response failed",
        200,
        {"status": "failed", "error": {"code": "invalid_prompt", "message": "told"}},
        {},
        "row",
        "policy",
    ),
    (
        "response's picture",
        200,
        {"error": {"code": "image_too_small", "message": "told"}},
        {},
        "row",
        "bad_image",
    ),
    ("deep", 400, b'{"error":' + b"[" * 900 + b"]" * 900 + b"}", {}, "row", "bad_request"),
    ("deeper", 500, b"[" * 200_000, {}, "transient", "server"),
    ("deep list", 400, b"[" * 900 + b'{"error":"x"}' + b"]" * 900, {}, "row", "bad_request"),
    (
        "odd charset",
        500,
        error(),
        {"Content-Type": "application/json; charset=hex"},
        "transient",
        "server",
    ),
    ("unknown code", 400, error(code={"a": 1}), {}, "row", "bad_request"),
    ("304", 304, b"", {}, "account", "redirect"),
]

# name, behaviour, what it means, why, whether the call may have been billed
BROKEN: list[tuple[str, Behaviour, str, str, bool]] = [
    (
        "HTML",
        http(200, "<!doctype html><form>Log in</form>", mime="text/html"),
        "transient",
        "invalid_response",
        True,
    ),
    ("truncated JSON", http(200, json.dumps(CHAT)[:90]), "transient", "invalid_response", True),
    ("empty", http(200, b""), "transient", "invalid_response", True),
    ("204", raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "transient", "invalid_response", True),
    ("not UTF-8", http(200, b'{"choices": "\xff\xfe\xfa"}'), "transient", "invalid_response", True),
    ("null", http(200, b"null"), "transient", "invalid_response", True),
    ("list", http(200, b"[1, 2]"), "transient", "invalid_response", True),
    ("number", http(200, b"1e999"), "transient", "invalid_response", True),
    ("empty object", http(200, b"{}"), "transient", "invalid_response", True),
    ("choices null", http(200, {**CHAT, "choices": None}), "transient", "invalid_response", True),
    ("no choices", http(200, {**CHAT, "choices": []}), "transient", "invalid_response", True),
    ("choice null", http(200, {**CHAT, "choices": [None]}), "transient", "invalid_response", True),
    (
        "message null",
        http(200, {**CHAT, "choices": [{"message": None}]}),
        "transient",
        "invalid_response",
        True,
    ),
    (
        "content a number",
        http(200, {**CHAT, "choices": [{"message": {"content": 1}}]}),
        "transient",
        "invalid_response",
        True,
    ),
    ("deep JSON", http(200, b"[" * 200_000), "transient", "invalid_response", True),
    (
        "not gzip",
        http(200, b"junk", {"Content-Encoding": "gzip"}),
        "transient",
        "invalid_response",
        True,
    ),
    (
        "half gzip",
        http(200, gzip.compress(b"x" * 999)[:20], {"Content-Encoding": "gzip"}),
        "transient",
        "invalid_response",
        True,
    ),
    (
        "brotli unasked",
        http(200, b"junk", {"Content-Encoding": "br"}),
        "transient",
        "invalid_response",
        True,
    ),
    ("gzip bomb", bomb(), "transient", "invalid_response", True),
    (
        "short body",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", then="close"),
        "network",
        "reset",
        True,
    ),
    (
        "broken chunk",
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        "network",
        "reset",
        True,
    ),
    (
        "reset in the body",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", then="reset"),
        "network",
        "reset",
        True,
    ),
    ("reset", raw(b"", then="reset"), "network", "reset", True),
    ("closed", raw(b"", then="close"), "network", "reset", True),
    ("half a head", raw(b"HTTP/1.1 200 OK\r\nConte", then="close"), "network", "reset", True),
    ("not HTTP", raw(b"SSH-2.0-OpenSSH_9.9\r\n", then="close"), "network", "reset", True),
    (
        "an endless head",
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"),
        "network",
        "reset",
        True,
    ),
    ("hang", raw(b"", then="hang"), "timeout", "timeout", True),
    (
        "hang in the body",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", then="hang"),
        "timeout",
        "timeout",
        True,
    ),
    ("drip", dripping(), "timeout", "timeout", True),
    ("drip in the head", dripping(head=True), "timeout", "timeout", True),
]

# Made for these tests and trusted by nobody.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgLfV4D2ufJFR3T9Qd
fxVLYQcM3ueAWOscP+xWFcjmKHWhRANCAARLEdV4LmzqGllI2MT1MhP6cxGkY/+e
Wysksl6DShhOKA0eipkmBqPeSQwO/OUsjUbzsuZPWWmz/XAMSPsGgkec
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUekenaIfW/OfTX8ip3tODnfasd9kwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzA5NDUwMVoYDzIxMjYxMDMw
MDk0NTAxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARLEdV4LmzqGllI2MT1MhP6cxGkY/+eWysksl6DShhOKA0eipkmBqPe
SQwO/OUsjUbzsuZPWWmz/XAMSPsGgkeco28wbTAdBgNVHQ4EFgQUIIZKRStKv4a4
VrW2PQ2Dmv2CXZAwHwYDVR0jBBgwFoAUIIZKRStKv4a4VrW2PQ2Dmv2CXZAwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhAIpXK+QV/vaeyZ9IgABfNzYnSBAWAlWG8Cd0u7q0hPKkAiEA
zDfWyAq7YvW6uXvBx76Fp/VAEFs/wuu8yUYxxvYouF8=
-----END CERTIFICATE-----
"""
