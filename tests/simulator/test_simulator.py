"""The simulator as a server: counts, log, address, settings, and bodies of any kind."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import aiohttp
import pytest
from conversation import CHAT, EDIT, GENERATE, GOOD, Client, chat_body, form_of, talk
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.errors import InputError
from batchgen.simulator import Settings, Simulator, serve
from batchgen.simulator.draws import roll


def test_requests_are_counted_and_recorded() -> None:
    """Stats count each kind of end; the log holds path, headers and body, if it is switched on."""

    async def conversation(client: Client) -> None:
        await client.post(CHAT, chat_body(), **{"X-Client-Request-Id": "abc"})
        await client.send(EDIT, data=form_of(GOOD, n="2"))
        await client.post(CHAT, {})
        stats, log = client.simulator.requests, client.simulator.log
        assert (stats.received, stats.answered, stats.refused, stats.in_flight) == (3, 2, 1, 0)
        assert stats.by_path == {"/v1/chat/completions": 2, "/v1/images/edits": 1}
        assert (log[0].path, log[0].body) == ("/v1/chat/completions", chat_body())
        assert log[0].headers["x-client-request-id"] == "abc"
        assert log[1].body is not None
        assert log[1].body["n"] == 2
        assert log[1].body["image"][0].startswith("sha256:")

    talk(conversation, record=True)
    assert talk(lambda client: _log_length(client)) == 0


async def _log_length(client: Client) -> int:
    await client.post(CHAT, chat_body())
    return len(client.simulator.log)


def test_the_peak_in_flight_is_seen() -> None:
    """The peak counts the requests that overlap."""

    async def conversation(client: Client) -> None:
        await asyncio.gather(*(client.post(CHAT, chat_body(str(number))) for number in range(8)))
        assert 1 < client.simulator.requests.peak <= 8

    talk(conversation, Settings(latency=0.02))


def test_it_listens_on_loopback_only() -> None:
    """Any other address is refused, and so is a port in use."""

    async def main() -> None:
        for host in ("0.0.0.0", "example.com", "192.0.2.1"):
            with pytest.raises(InputError, match="loopback only"):
                await Simulator().start(host)
        async with Simulator() as simulator:
            assert simulator.url.startswith("http://127.0.0.1:")
            port = int(simulator.url.split(":")[2].removesuffix("/v1"))
            with pytest.raises(InputError, match="another port"):
                await Simulator().start(port=port)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example:80", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:8080", 421),
        ("[::2]:80", 421),
        ("192.0.2.1", 421),
        ("", 421),
        ("localhost", 200),
        ("LOCALHOST.:8080", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
    ],
)
def test_it_answers_loopback_names_only(host: str, status: int) -> None:
    """A page whose name was made to lead to loopback (DNS rebinding) reads nothing."""

    async def main() -> int:
        async with Simulator() as simulator, aiohttp.ClientSession() as session:
            headers = {"Host": host, "Authorization": "Bearer key"}
            async with session.get(f"{simulator.url}/models", headers=headers) as response:
                return response.status

    assert asyncio.run(main()) == status


def test_serve_runs_until_cancelled() -> None:
    """serve answers on its port, and frees it when cancelled."""

    async def main() -> None:
        async with Simulator() as simulator:
            port = int(simulator.url.split(":")[2].removesuffix("/v1"))
        server = asyncio.ensure_future(serve(Settings(), port))
        async with aiohttp.ClientSession() as session:
            status = 0
            while not status:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/v1/models") as response:
                        status = response.status
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0)
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server
        again = Simulator()
        await again.start(port=port)
        await again.stop()
        assert status == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        {"faults": 1.1},
        {"faults": float("nan")},
        {"latency": -1},
        {"hang": math.inf},
        {"rpm": 0},
        {"tpm": -5},
        {"fault_kinds": ("50",)},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    """A setting out of bounds is an InputError that names it."""
    with pytest.raises(
        InputError, match=next(iter(wrong)).removesuffix("_kinds").removesuffix("s")
    ):
        Settings(**wrong)


def test_latency_is_jittered_within_its_bounds() -> None:
    """The draws of latency and faults spread evenly from 0 to below 1, and differ between
    repetitions."""
    draws = [roll(0, "a" * 64, seen) for seen in range(1, 401)]
    for values in (
        [dice.fault for dice in draws],
        [dice.kind for dice in draws],
        [dice.jitter for dice in draws],
    ):
        assert all(0 <= value < 1 for value in values)
        assert sum(values) / len(values) == pytest.approx(0.5, abs=0.08)
        assert len(set(values)) == len(values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 40) | st.floats(-3, 3) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "role", "type"]), inner)
    ),
    max_leaves=8,
)
FIELDS = (
    "n",
    "size",
    "input",
    "prompt",
    "messages",
    "temperature",
    "dimensions",
    "max_tokens",
    "text",
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("m") | JSON},
    optional=dict.fromkeys((*FIELDS, "response_format", "quality"), JSON),
)
PATHS = [CHAT, "/responses", "/completions", "/embeddings", "/moderations", GENERATE]


@given(st.lists(st.tuples(st.sampled_from(PATHS), BODIES), min_size=20, max_size=40))
@settings(max_examples=25, deadline=None)
def test_no_body_crashes_the_server(calls: list[tuple[str, dict[str, Any]]]) -> None:
    """Any JSON object is answered or refused officially, never with a 500."""

    async def conversation(client: Client) -> None:
        for path, body in calls:
            answer = await client.post(path, body)
            is_missing = str(body["model"]).startswith("missing-")
            assert answer.status in ((200, 400, 404) if is_missing else (200, 400)), (path, body)

    talk(conversation, Settings(rpm=1e9, tpm=1e9))
