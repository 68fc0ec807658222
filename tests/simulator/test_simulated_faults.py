"""The faults of the simulator, and which request meets them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from conversation import CHAT, Client, chat_body, once, talk

from batchgen.simulator import DEFAULT_FAULTS, FAULTS, RequestInfo, Settings

ERRORS = {
    "429": (429, "rate_limit_exceeded"),
    "500": (500, None),
    "503": (503, "server_is_overloaded"),
    "200_error": (200, 502),
    "quota": (429, "insufficient_quota"),
    "401": (401, "invalid_api_key"),
    "403": (403, "unsupported_country"),
    "404_model": (404, "model_not_found"),
    "400_policy": (400, "content_policy_violation"),
}
JUNK = ("truncated", "wrong_json", "empty", "html", "html_502")
SOCKET = {
    "reset": aiohttp.ClientConnectionError,
    "hang": aiohttp.ClientConnectionError,
    "reset_body": aiohttp.ClientPayloadError,
}


def test_every_fault_is_tested() -> None:
    """P18 the tables below name every fault there is, and the mix holds none that ends a job."""
    assert {*ERRORS, *JUNK, *SOCKET} == set(FAULTS)
    assert not {"hang", "quota", "401", "403", "404_model", "400_policy"} & set(DEFAULT_FAULTS)


@pytest.mark.parametrize(
    ("fault", "status", "code"), [(name, *value) for name, value in ERRORS.items()]
)
def test_faults_that_are_errors(fault: str, status: int, code: Any) -> None:
    """P18 these faults are official errors with their status and code."""
    answer = once(CHAT, chat_body(), script=lambda _: fault)
    assert (answer.status, answer.error["code"]) == (status, code)
    if fault == "429":
        assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "100")


@pytest.mark.parametrize("fault", JUNK)
def test_faults_that_are_junk(fault: str) -> None:
    """P18 these faults are whole HTTP answers with an unexpected body."""
    answer = once(CHAT, chat_body(), script=lambda _: fault)
    assert answer.status == (502 if fault == "html_502" else 200)
    assert answer.headers["content-type"].startswith(
        "text/html" if fault.startswith("html") else "application/json"
    )
    if fault == "wrong_json":
        assert not answer.json.get("choices")
    else:
        assert (answer.raw == b"") == (fault == "empty")
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            json.loads(answer.raw)


@pytest.mark.parametrize(("fault", "error"), SOCKET.items())
def test_faults_at_the_socket(fault: str, error: type[Exception]) -> None:
    """P18 a reset comes before an answer or in the middle; a hang ends without an answer."""

    async def conversation(client: Client) -> None:
        with pytest.raises(error):
            await client.post(CHAT, chat_body())
        assert client.simulator.requests.faults == {fault: 1}
        assert client.simulator.requests.answered == 0
        assert (await client.send("/models", "GET")).status == 200

    talk(conversation, Settings(hang=0), script=lambda request: fault)


def test_a_hang_does_not_hold_up_the_stop() -> None:
    """A hanging request ends when its client disconnects or the simulator stops, and is in flight
    until then."""

    arrived = asyncio.Event()

    def script(_: RequestInfo) -> str:
        arrived.set()
        return "hang"

    async def conversation(client: Client) -> None:
        hanging = asyncio.ensure_future(client.post(CHAT, chat_body()))
        await arrived.wait()
        assert client.simulator.requests.in_flight == 1
        await client.simulator.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await hanging
        assert client.simulator.requests.in_flight == 0

    talk(conversation, Settings(hang=3600), script=script)


def outcomes(behaviour: Settings, bodies: list[dict[str, Any]], **options: Any) -> list[int]:
    """The HTTP status of each body in turn."""

    async def conversation(client: Client) -> list[int]:
        return [(await client.post(CHAT, body)).status for body in bodies]

    statuses: list[int] = talk(conversation, behaviour, **options)
    return statuses


def test_faults_are_drawn_the_same_on_every_run_and_a_retry_passes() -> None:
    """The seed, the body and its repetitions decide the fault; about the requested share is
    spoiled."""
    mixed = Settings(faults=0.3, fault_kinds=("500", "503"), seed=7)
    bodies = [chat_body(str(number)) for number in range(200)]
    first = outcomes(mixed, bodies)
    assert first == outcomes(mixed, bodies)
    assert first != outcomes(replace(mixed, seed=8), bodies)
    assert 35 <= sum(status != 200 for status in first) <= 85
    assert {500, 503} <= set(first)
    again = outcomes(mixed, [chat_body("0")] * 20)
    assert 200 in again
    assert set(again) != {200}


def test_a_script_names_faults_and_the_share_may_change_meanwhile() -> None:
    """A script sees number, path, body and repetitions of each request; settings can be replaced
    while it runs."""
    seen_by_script: list[RequestInfo] = []

    def script(request: RequestInfo) -> str | None:
        seen_by_script.append(request)
        return "500" if request.seen == 1 else None

    async def conversation(client: Client) -> None:
        assert [(await client.post(CHAT, chat_body())).status for _ in range(3)] == [500, 200, 200]
        assert [(request.n, request.seen) for request in seen_by_script] == [(1, 1), (2, 2), (3, 3)]
        assert (seen_by_script[0].path, seen_by_script[0].body) == (
            "/v1/chat/completions",
            chat_body(),
        )
        client.simulator.settings = replace(
            client.simulator.settings, faults=1, fault_kinds=("503",)
        )
        assert (await client.post(CHAT, chat_body())).status == 503
        stats = client.simulator.requests
        assert (stats.received, stats.answered, stats.faults) == (4, 2, {"500": 1, "503": 1})

    talk(conversation, script=script)
