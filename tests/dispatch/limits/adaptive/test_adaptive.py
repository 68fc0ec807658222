"""The limiter in virtual time: storms cost little, and the server's rate is found."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from virtual import Run, answer, now, requests, simulate, throttled, virtually, work

from batchgen.dispatch import Failure, Learned
from batchgen.dispatch.api.headers import RateLimits, rate_limits
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.limits.adaptive.limiter import FIRST_RATE, AdaptiveLimiter
from batchgen.requests import Request


class Throttling:
    """A server that allows `rpm` (from `later` on the second of two), its bucket one second deep,
    with an honest Retry-After.
    """

    def __init__(
        self, rpm: float, then: float | None = None, later: float = 10.0, *, honest: bool = True
    ) -> None:
        self._rpm, self._then, self._later, self._honest = rpm, then or rpm, later, honest
        self._level = 0.0
        self._at = self._began = 1000.0
        self._dice = random.Random(1)
        self.refused = 0
        self.answered: list[float] = []

    async def __call__(self, request: Request, n: int) -> Reply | Failure:
        rate = (self._then if now() - self._began > self._later else self._rpm) / 60
        self._level = max(0.0, self._level - (now() - self._at) * rate)
        self._at = now()
        if self._level + 1 > max(1.0, rate) + 1e-9:
            self.refused += 1
            wait = (self._level + 1 - max(1.0, rate)) / rate
            await asyncio.sleep(0.02)
            return throttled(retry_after=wait if self._honest else None)
        self._level += 1
        self.answered.append(now())
        await asyncio.sleep(self._dice.uniform(0.2, 0.4))
        return answer()

    def per_minute(self, after: float) -> float:
        late = [at for at in self.answered if at - self._began > after]
        return (len(late) - 1) / (late[-1] - late[0]) * 60


@pytest.mark.parametrize(
    ("before", "then", "rows"), [(3000, 600, 2000), (3000, 1500, 3000), (600, 60, 400)]
)
def test_a_storm_costs_little_and_ends(before: float, then: float, rows: int) -> None:
    """P21 A limit suddenly lowered: extra calls <= 20 % of the rows + 10, and 80 % of the new limit
    is reached again.
    """
    server = Throttling(before, then)
    run = simulate(requests(rows), server, concurrency=64, requests_per_minute=before)
    assert (run.why, len(run.answered)) == (None, rows)
    assert server.refused <= 0.2 * rows + 10
    assert server.per_minute(after=40) >= 0.8 * then


def test_throttling_without_retry_after_is_no_storm_either() -> None:
    """P21 A server that does not say how long."""
    server = Throttling(600, honest=False)
    run = simulate(requests(1500), server, concurrency=64)
    assert (run.why, len(run.answered)) == (None, 1500)
    assert server.refused <= 0.2 * 1500 + 10
    assert server.per_minute(after=60) >= 0.8 * 600


def test_a_burst_of_throttles_is_one_event() -> None:
    """P21 The rate is cut once for all calls that were sent before it was cut, to just below what
    got through.
    """

    async def run() -> None:
        limiter = AdaptiveLimiter(now)
        for _ in range(100):
            await asyncio.sleep(0.1)
            await limiter.acquire()
            limiter.record_response()
            limiter.record_success(now())
        sent = now()
        await asyncio.sleep(0.1)
        for _ in range(30):
            limiter.record_response()
            limiter.record_throttle(sent, None, None)
        assert limiter.state == "limited"
        began = now()
        for _ in range(10):
            await limiter.acquire()
        # About ten a second were answered; cut thirty times it would be one.
        assert 1 <= now() - began <= 2.5

    virtually(run())


def test_a_limited_job_becomes_unlimited_again() -> None:
    """P21 Once the server no longer minds, nothing holds the job back."""

    async def run() -> None:
        limiter = AdaptiveLimiter(now)
        for _ in range(10):
            limiter.record_success(now())
        limiter.record_throttle(now(), 5.0, None)
        began = now()
        await limiter.acquire()
        assert now() - began >= 5
        for _ in range(3000):
            await limiter.acquire()
        assert limiter.state == "unlimited"

    virtually(run())


def test_retry_after_is_a_floor_for_the_whole_job() -> None:
    """P22 Nobody asks while the server wants to be left alone."""

    def answering(request: Request, n: int) -> Reply | Failure:
        return throttled(retry_after=40.0) if request.id == "r3" and n == 1 else answer()

    run = simulate(requests(20), answering, concurrency=1)
    times = [at for at, _, _ in run.calls]
    assert max(later - earlier for earlier, later in pairwise(times)) >= 40
    assert len(run.answered) == 20


def test_throttling_spends_no_attempts() -> None:
    """P21 A row that is throttled more often than it has attempts is answered all the same."""
    run = simulate(
        requests(1),
        lambda request, n: answer() if n > 15 else throttled(retry_after=1.0),
        attempts=2,
    )
    assert (run.why, run.answered) == (None, {"r0"})


# -- a limit that nobody named ---------------------------------------------------------------------


class Limited:
    """A server that lets through `limits`: requests a minute, each from a second of the run on;
    None for no limit.

    It gathers one second in a bucket, or (`sliding`) counts the last second. A throttle comes after
    30 ms, an answer after `latency` seconds; `noise` is the share of calls that are throttled for
    no reason.
    """

    def __init__(
        self,
        limits: Sequence[tuple[float, float | None]],
        *,
        sliding: bool = False,
        honest: bool = True,
        latency: float = 0.3,
        noise: float = 0.0,
        headers: bool = False,
    ) -> None:
        self._limits, self._sliding, self._honest = limits, sliding, honest
        self._latency, self._noise, self._headers = latency, noise, headers
        self._level, self._at = 0.0, 1000.0
        self._window: deque[float] = deque()
        self._dice = random.Random(7)
        self.answered: list[float] = []
        self.refused: list[float] = []

    def _limit(self) -> float | None:
        return next(limit for since, limit in reversed(self._limits) if now() - 1000 >= since)

    def _wait(self) -> float:
        limit = self._limit()
        if limit is None:
            return 0.0
        rate = limit / 60
        if self._sliding:
            while self._window and self._window[0] <= now() - 1:
                self._window.popleft()
            if len(self._window) + 1 > max(1.0, rate):
                return self._window[0] + 1 - now()
            self._window.append(now())
            return 0.0
        self._level = max(0.0, self._level - (now() - self._at) * rate)
        self._at = now()
        short = self._level + 1 - max(1.0, rate)
        if short <= 1e-9:
            self._level += 1
        return max(0.0, short) / rate

    async def __call__(self, request: Request, n: int) -> Reply | Failure:
        wait = self._wait()
        if wait or self._dice.random() < self._noise:
            self.refused.append(now() - 1000)
            await asyncio.sleep(0.03)
            return throttled(retry_after=wait if wait and self._honest else None)
        self.answered.append(now() - 1000)
        limit = self._limit()
        await asyncio.sleep(self._latency * self._dice.uniform(0.75, 1.25))
        headers = {"x-ratelimit-limit-requests": f"{limit:.0f}"} if self._headers and limit else {}
        return Reply(headers=headers, body=answer().body)

    def share(self, begin: float, end: float) -> float:
        """Of the limit at `begin`, what was used until `end`."""
        limit = next(limit for since, limit in reversed(self._limits) if begin >= since)
        assert limit is not None
        return sum(begin <= at < end for at in self.answered) / (end - begin) * 60 / limit

    @property
    def throttles(self) -> float:
        """The share of calls that were throttled."""
        return len(self.refused) / (len(self.refused) + len(self.answered))


@pytest.mark.parametrize(("limit", "rows", "concurrency"), [(600, 600, 64), (6000, 4000, 64)])
@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize("honest", [False, True])
def test_an_unknown_limit_is_found(
    limit: float, rows: int, concurrency: int, sliding: bool, honest: bool
) -> None:
    """P21 Whatever the server's limit is and however it counts, 90 % of it are used, and few calls
    are throttled for it.
    """
    server = Limited([(0, limit)], sliding=sliding, honest=honest)
    run = simulate(requests(rows), server, concurrency=concurrency)
    assert len(run.answered) == rows
    assert server.share(20, run.ended - 1000 - 1) >= 0.9
    # The first refusals are the price of finding out; they are few, and a short job pays no more of
    # them than a long one.
    assert len(server.refused) <= 0.01 * rows + 12


@pytest.mark.parametrize(("latency", "concurrency"), [(0.05, 8), (0.05, 1000), (5.0, 1000)])
def test_a_limit_is_found_at_any_latency(latency: float, concurrency: int) -> None:
    """P21 Answers may take long: what counts is that throttles come soon."""
    server = Limited([(0, 6000)], latency=latency)
    run = simulate(requests(4500), server, concurrency=concurrency)
    assert server.share(20, run.ended - 1000 - 2 * latency - 1) >= 0.9
    assert server.throttles <= 0.01


@pytest.mark.parametrize(("first", "then"), [(6000, 3000), (6000, 600), (3000, 6000), (600, 6000)])
def test_a_limit_that_changes_is_found_again(first: float, then: float) -> None:
    """P21 Half-way through the limit is another one, lower or higher."""
    server = Limited([(0, first), (40, then)])
    rows = round(first / 60 * 40 + then / 60 * 45)
    run = simulate(requests(rows), server, concurrency=64)
    assert run.why is None
    assert server.share(65, 80) >= 0.9
    assert server.throttles <= 0.02


@pytest.mark.parametrize("sliding", [False, True])
def test_jobs_share_a_limit(sliding: bool) -> None:
    """P21 Three jobs under one limit use it together, none of them starves, and few calls are
    throttled.
    """
    server = Limited([(0, 6000)], sliding=sliding)

    async def jobs() -> list[Run]:
        return await asyncio.gather(
            *(work(requests(2000), server, concurrency=64) for _ in range(3))
        )

    ends = [run.ended - 1000 for run in virtually(jobs())]
    assert server.share(20, min(ends)) >= 0.9
    assert max(ends) < 2 * min(ends)
    assert server.throttles <= 0.015


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.1])
def test_throttles_that_mean_nothing_slow_nobody(noise: float) -> None:
    """P21 Throttles that come as often however slowly the job goes are no rate: it goes on, at a
    quarter of full speed or more over a job this short.
    """
    server = Limited([(0, None)], noise=noise)
    run = simulate(requests(3000), server, concurrency=64)
    assert len(run.answered) == 3000
    assert run.ended - run.began <= 4 * 3000 / (64 / 0.3)


@pytest.mark.parametrize(
    ("latency", "concurrency", "rows"), [(0.0128, 64, 5000), (0.3, 64, 3000), (20.0, 1000, 3000)]
)
def test_a_server_without_a_limit_is_not_slowed(
    latency: float, concurrency: int, rows: int
) -> None:
    """The modest start costs a second at the most."""
    runs = []
    for modest in (True, False):
        server = Limited([(0, None)], latency=latency)

        async def freely(backend: object) -> None:
            backend._adaptive._mode = "unlimited"  # type: ignore[attr-defined]

        run = simulate(
            requests(rows), server, concurrency=concurrency, during=None if modest else freely
        )
        runs.append(run.ended - run.began)
    assert runs[0] <= runs[1] + (1 if concurrency == 64 else 2)


def test_a_job_starts_modestly() -> None:
    """P21 A thousand workers do not ask at once."""
    server = Limited([(0, None)], latency=5.0)
    run = simulate(requests(2000), server, concurrency=1000)
    assert sum(at - run.began < 0.2 for at, _, _ in run.calls) <= FIRST_RATE * 0.3


# -- the limiter: what headers name ----------------------------------------------------------------


def test_a_limit_that_headers_name_is_kept_to() -> None:
    """P21 It is used well from the first reply on, followed when it changes, and hardly a call is
    throttled.
    """
    server = Limited([(0, 3000), (30, 600), (60, 6000)], headers=True)
    run = simulate(requests(6000), server, concurrency=64)
    assert run.why is None
    assert min(server.share(2, 29), server.share(45, 59), server.share(62, 80)) >= 0.95
    assert server.throttles <= 0.005
    assert run.backend._progress.learned.named_requests == 6000


def test_a_limit_that_headers_name_wrongly_is_left_behind() -> None:
    """P21 Sixty a minute that are sixty a second: after a while the job finds out."""

    async def answering(request: Request, n: int) -> Reply:
        await asyncio.sleep(0.3)
        return Reply(headers={"x-ratelimit-limit-requests": "60"}, body=answer().body)

    run = simulate(requests(3000), answering, concurrency=64)
    assert run.ended - run.began <= 90


def test_headers_never_lower_an_explicit_limit() -> None:
    """P26 Only a throttle does."""

    async def answering(request: Request, n: int) -> Reply:
        await asyncio.sleep(0.3)
        return Reply(headers={"x-ratelimit-limit-requests": "60"}, body=answer().body)

    run = simulate(requests(500), answering, concurrency=64, requests_per_minute=3000)
    assert run.ended - run.began <= 12


def test_tokens_that_headers_name_pace_requests() -> None:
    """P21 150 tokens each under 90,000 a minute are ten a second."""

    async def answering(request: Request, n: int) -> Reply:
        await asyncio.sleep(0.3)
        usage = {"prompt_tokens": 50, "completion_tokens": 100}
        return Reply(headers={"x-ratelimit-limit-tokens": "90000"}, body=answer(usage=usage).body)

    run = simulate(requests(300), answering, concurrency=64)
    late = [at for at, _, _ in run.calls if 3 <= at - run.began < 9]
    assert 50 <= len(late) <= 65


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({}, RateLimits()),
        (
            {"X-RateLimit-Limit-Requests": "60", "x-ratelimit-limit-tokens": "150000"},
            RateLimits(requests=60, tokens=150_000),
        ),
        (
            {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "5"},
            RateLimits(requests=60, nearly_used=True),
        ),
        (
            {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "-27"},
            RateLimits(requests=60, nearly_used=True),
        ),
        (
            {"x-ratelimit-limit-project-tokens": "60", "x-ratelimit-remaining-project-tokens": "1"},
            RateLimits(nearly_used=True),
        ),
        (
            {"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "-1"},
            RateLimits(),
        ),
        ({"x-ratelimit-limit-requests": "0", "x-ratelimit-limit-tokens": "nan"}, RateLimits()),
        # Full again in 6 s after one request: a limit of a day. In 6 ms: one of a minute.
        (
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14399",
                "x-ratelimit-reset-requests": "6s",
            },
            RateLimits(),
        ),
        (
            {
                "x-ratelimit-limit-requests": "10000",
                "x-ratelimit-remaining-requests": "9999",
                "x-ratelimit-reset-requests": "6ms",
            },
            RateLimits(requests=10000),
        ),
        # Whole seconds, or those until a window ends, say nothing of that.
        (
            {
                "x-ratelimit-limit-requests": "100",
                "x-ratelimit-remaining-requests": "99",
                "x-ratelimit-reset-requests": "10",
            },
            RateLimits(requests=100),
        ),
        (
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2026-11-05T12:00:01Z",
            },
            RateLimits(requests=50),
        ),
        (
            {"x-ratelimit-limit-requests": "1e999", "x-ratelimit-limit-tokens": "2m52.8s"},
            RateLimits(),
        ),
        (
            {
                "x-ratelimit-reset-requests": "1m12s",
                "x-ratelimit-limit": "5",
                "x-ratelimit-reset": "1793",
            },
            RateLimits(),
        ),
    ],
)
def test_headers_are_read(headers: dict[str, str], limits: RateLimits) -> None:
    """P22 Numbers, durations, nonsense, negative ones: what is no limit is none."""
    assert rate_limits(headers) == limits


# -- the limiter: what was learned -----------------------------------------------------------------


def test_what_was_learned_is_told() -> None:
    """P21 What got through when the server throttled, to five per cent; nothing before a whole
    minute showed it, and nothing of a server that held nothing back.
    """
    run = simulate(requests(8000), Limited([(0, 6000)]), concurrency=64)
    assert run.backend._progress.learned.requests == pytest.approx(6000, rel=0.05)
    short = simulate(requests(3000), Limited([(0, 6000)]), concurrency=64)
    assert short.backend._progress.learned.requests is None
    free = simulate(requests(500), Limited([(0, None)]), concurrency=64)
    assert free.backend._progress.learned == type(free.backend._progress.learned)()


def test_nothing_is_learned_that_did_not_get_through() -> None:
    """P21 Groq's headers name a day's limit of requests, and its limit of a minute lets a burst
    through: neither the day's nor the burst's rate is told.
    """
    sent: list[float] = []

    def groq(request: Request, n: int) -> Reply | Failure:
        latest = [at for at in sent if now() - at < 60]
        if len(latest) >= 30:
            return throttled(retry_after=61 - (now() - latest[0]), ceiling=None)
        sent.append(now())
        headers = {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-remaining-requests": str(14400 - len(sent)),
            "x-ratelimit-reset-requests": f"{6 * len(sent)}s",
            "x-ratelimit-limit-tokens": "6000",
            "x-ratelimit-remaining-tokens": "5900",
        }
        return replace(answer(), headers=headers)

    learned = simulate(requests(100), groq, concurrency=8).backend._progress.learned
    assert learned.named_requests is None
    assert learned.requests is None or learned.requests <= 30
    assert learned.named_tokens == 6000


def test_a_server_that_answers_nothing_teaches_nothing() -> None:
    """P21 A limit that only refusals name is nobody's to write into a job."""
    named = {"x-ratelimit-limit-requests": "600"}

    def refusing(request: Request, n: int) -> Reply:
        return Reply(headers=named, body=b'{"error": {"code": 429, "message": "m"}}')

    run = simulate(requests(5), refusing, concurrency=2, give_up=30.0)
    assert run.why is not None
    assert run.backend._progress.learned == Learned()


def test_a_limit_in_the_job_is_no_reason_to_start_modestly() -> None:
    """P26 Who says how much a server lets through gets it from the first second on; who says
    nothing does not get it all at once.
    """

    async def answering(request: Request, n: int) -> Reply:
        await asyncio.sleep(0.3)
        return answer()

    def asked_at_once(**limits: float) -> int:
        run = simulate(requests(600), answering, concurrency=600, **limits)
        return sum(at - run.calls[0][0] < 0.5 for at, _, _ in run.calls)

    assert asked_at_once(requests_per_minute=60_000) > 300
    assert asked_at_once() < 200
