"""The faults by name, and how each is acted out; draws.py decides which request meets which."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass, field

from aiohttp import web

FATAL_FAULTS = ("quota", "401", "403", "404_model", "400_policy")

# What `--faults` mixes: every fault that a retry can get past.
DEFAULT_FAULTS = (
    "429",
    "500",
    "503",
    "reset",
    "reset_body",
    "truncated",
    "wrong_json",
    "empty",
    "html",
    "html_502",
)

FAULTS = (*DEFAULT_FAULTS, "hang", "200_error", *FATAL_FAULTS)

# These spoil the true answer, which must be made first.
SPOILING = ("reset_body", "truncated")

_LOGIN = (
    b"<!doctype html><html><title>Log in</title>"
    b"<body><form>Simulated login page</form></body></html>"
)
_BAD_GATEWAY = (
    b"<html><head><title>502 Bad Gateway</title></head>"
    b"<body>502 Bad Gateway (simulated)</body></html>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canned:
    """An answer that is always the same: status, body, content type and headers."""

    status: int
    body: bytes
    mime: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def canned(kind: str, seen: int) -> Canned | None:
    """The answer for a fault; None if it happens at the socket, or spoils the true answer."""
    if kind == "wrong_json":
        junk = (
            b'{"unexpected": true}'
            if seen % 2
            else b'{"id": null, "choices": null, "data": null, "output": null}'
        )
        return Canned(status=200, body=junk)
    return _CANNED.get(kind)


async def misbehave(
    kind: str, seen: int, request: web.Request, answer: bytes, hang: float
) -> web.StreamResponse:
    """Act out a fault.

    kind: its name
    seen: how many times the request came, from 1
    request: what it answers
    answer: the true body, for a fault in SPOILING
    hang: seconds of silence
    """
    faulty = canned(kind, seen)
    if faulty is not None:
        return web.Response(
            status=faulty.status,
            body=faulty.body,
            content_type=faulty.mime,
            headers=faulty.headers,
        )
    if kind == "truncated":
        return web.Response(body=answer[: len(answer) // 2], content_type="application/json")
    if kind == "hang":
        await asyncio.sleep(hang)
    if kind == "reset_body":
        return await _half(request, answer)
    _cut(request, with_reset=kind == "reset")
    return web.Response()


async def _half(request: web.Request, answer: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(answer)
    await response.prepare(request)
    await response.write(answer[: len(answer) // 2])
    _cut(request, with_reset=False)
    return response


def _cut(request: web.Request, *, with_reset: bool) -> None:
    """Close the connection at once; `with_reset` sends RST in place of FIN."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if with_reset and connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _error(status: int, message: str, kind: str, code: str | int | None, **headers: str) -> Canned:
    error = {"message": f"{message} (simulated fault)", "type": kind, "param": None, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Canned(status=status, body=json.dumps({"error": error}).encode(), headers=named)


_INVALID = "invalid_request_error"
_CANNED = {
    "429": _error(
        429,
        "Rate limit reached.",
        "requests",
        "rate_limit_exceeded",
        retry_after="1",
        retry_after_ms="100",
    ),
    "500": _error(
        500, "The server had an error while processing your request.", "server_error", None
    ),
    "503": _error(503, "The server is overloaded.", "server_error", "server_is_overloaded"),
    "empty": Canned(status=200, body=b""),
    "html": Canned(status=200, body=_LOGIN, mime="text/html"),
    "html_502": Canned(status=502, body=_BAD_GATEWAY, mime="text/html"),
    "200_error": _error(200, "The provider behind this server failed.", "server_error", 502),
    "quota": _error(
        429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota"
    ),
    "401": _error(401, "Incorrect API key provided.", _INVALID, "invalid_api_key"),
    "403": _error(
        403, "Your country, region or territory is not supported.", _INVALID, "unsupported_country"
    ),
    "404_model": _error(
        404,
        "The model does not exist or you do not have access to it.",
        _INVALID,
        "model_not_found",
    ),
    "400_policy": _error(400, "The content was refused.", _INVALID, "content_policy_violation"),
}
