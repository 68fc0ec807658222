"""The limits of the simulator: requests, tokens and images per minute, for each key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conversation import CHAT, GENERATE, Client, chat_body, image_body, talk
from hypothesis import given
from hypothesis import strategies as st

from batchgen.simulator import Settings
from batchgen.simulator.limits import Bucket, Cost, Limits, go_duration
from batchgen.simulator.refusals import RefusalError


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def waited(limits: Limits, clock: Clock, cost: Cost, key: str = "") -> float:
    """Seconds that a client which follows retry-after-ms waits until `cost` is admitted."""
    begun = clock.now
    while True:
        try:
            limits.admit(key, cost)
            return clock.now - begun
        except RefusalError as refusal:
            clock.now += int(refusal.headers["retry-after-ms"]) / 1000


def test_requests_pass_at_the_limit_and_no_faster() -> None:
    """P26 120 a minute: two at once, then one each half second."""
    clock = Clock()
    limits = Limits(rpm=120, clock=clock)
    waits = [waited(limits, clock, Cost(model="m", tokens=1)) for _ in range(122)]
    assert waits[:2] == [0, 0]
    assert all(wait == pytest.approx(0.5, abs=0.002) for wait in waits[2:])
    assert clock.now - 1000 == pytest.approx(60, abs=0.2)


def test_tokens_are_charged_up_front() -> None:
    """P26 6,000 tokens a minute are 100 a second, within the burst of one second."""
    clock = Clock()
    limits = Limits(tpm=6000, clock=clock)
    sizes = [50, 50, 30, 70, 100, 5, 95]
    for size in sizes:
        waited(limits, clock, Cost(model="m", tokens=size))
    assert clock.now - 1000 == pytest.approx((sum(sizes) - 100) / 100, abs=0.02)


def test_a_large_request_passes_once_enough_has_flowed_in() -> None:
    """P27 a request above the burst waits for its own size; one above the minute's limit never
    passes."""
    clock = Clock()
    limits = Limits(tpm=6000, clock=clock)
    limits.admit("", Cost(model="m", tokens=100))
    assert waited(limits, clock, Cost(model="m", tokens=3000)) == pytest.approx(30, abs=0.01)
    assert waited(limits, clock, Cost(model="m", tokens=10)) == pytest.approx(0.1, abs=0.01)
    with pytest.raises(RefusalError, match="Request too large") as caught:
        limits.admit("", Cost(model="m", tokens=6001))
    assert "retry-after" not in caught.value.headers


@given(st.lists(st.tuples(st.integers(1, 600), st.floats(0, 3)), max_size=40))
def test_a_paced_caller_is_never_refused(steps: list[tuple[int, float]]) -> None:
    """A client that lets each request's tokens flow in before it sends is never refused."""
    bucket, now = Bucket(600, 0), 0.0
    for amount, pause in steps:
        now += amount / bucket.rate + pause
        assert bucket.wait(amount, now) == 0
        bucket.take(amount, now)


def test_a_refused_request_costs_nothing_in_any_dimension() -> None:
    """A request refused for its images leaves requests and tokens as they were."""
    clock = Clock()
    limits = Limits(rpm=600, tpm=60_000, ipm=60, clock=clock)
    limits.admit("", Cost(model="m", tokens=10, images=1))
    before = limits.admit("", Cost(model="m", tokens=0))
    for _ in range(5):
        with pytest.raises(RefusalError) as caught:
            limits.admit("", Cost(model="m", tokens=10, images=1))
        assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "1")
        assert caught.value.headers["x-ratelimit-remaining-images"] == "0"
    after = limits.admit("", Cost(model="m", tokens=0))
    assert (
        before["x-ratelimit-remaining-tokens"] == after["x-ratelimit-remaining-tokens"] == "59990"
    )
    assert (before["x-ratelimit-remaining-requests"], after["x-ratelimit-remaining-requests"]) == (
        "598",
        "597",
    )


def test_each_key_has_its_own_limits() -> None:
    """One key's use leaves another's limit alone."""
    clock = Clock()
    limits = Limits(rpm=60, clock=clock)
    cost = Cost(model="m", tokens=1)
    assert waited(limits, clock, cost, "a") == 0
    assert waited(limits, clock, cost, "b") == 0
    assert waited(limits, clock, cost, "a") == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.017, "17ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (8.64, "8.64s"),
        (72, "1m12s"),
        (172.8, "2m52.8s"),
        (360, "6m0s"),
        (5400, "1h30m0s"),
    ],
)
def test_durations_read_as_go_prints_them(seconds: float, text: str) -> None:
    """The reset headers look like the API's."""
    assert go_duration(seconds) == text


def test_limits_over_the_socket() -> None:
    """P22 a success carries the x-ratelimit headers; a 429 its type, and retry-after in seconds and
    in milliseconds."""

    async def conversation(client: Client) -> None:
        passed = await client.post(CHAT, chat_body("four", max_completion_tokens=20, n=2))
        assert passed.headers["x-ratelimit-limit-requests"] == "1"
        assert passed.headers["x-ratelimit-remaining-requests"] == "0"
        assert passed.headers["x-ratelimit-reset-requests"] in ("1m0s", "59.999s")
        assert passed.headers["x-ratelimit-remaining-tokens"] == str(6000 - 1 - 40)
        refused = await client.post(CHAT, chat_body())
        assert (refused.status, refused.error["type"], refused.error["code"]) == (
            429,
            "requests",
            "rate_limit_exceeded",
        )
        assert int(refused.headers["retry-after"]) == 60
        assert 50_000 < int(refused.headers["retry-after-ms"]) <= 60_000
        large = await client.post(CHAT, chat_body(max_completion_tokens=9000))
        assert (large.status, large.error["type"]) == (429, "tokens")
        assert client.simulator.requests.limited == 2
        client.simulator.settings = replace(client.simulator.settings, rpm=None, tpm=None)
        free = await client.post(CHAT, chat_body())
        assert free.status == 200
        assert not [name for name in free.headers if name.lower().startswith("x-ratelimit")]

    talk(conversation, Settings(rpm=1, tpm=6000))


def test_failed_requests_count_against_the_limits() -> None:
    """A refused body is charged like any other request."""

    async def conversation(client: Client) -> None:
        assert (await client.post(CHAT, {})).status == 400
        assert (await client.post(CHAT, chat_body())).status == 429

    talk(conversation, Settings(rpm=1))


def test_images_are_limited_by_their_number() -> None:
    """ipm counts every picture of a request, before it is drawn."""

    async def conversation(client: Client) -> None:
        assert (await client.post(GENERATE, image_body(n=2))).status == 200
        refused = await client.post(GENERATE, image_body(n=2))
        assert (refused.status, refused.error["type"]) == (429, "images")
        assert (await client.post(CHAT, chat_body())).status == 200

    talk(conversation, Settings(ipm=2))
