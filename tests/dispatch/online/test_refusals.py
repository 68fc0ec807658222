"""Refusals that only words explain: whether they are the rows' or the account's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import Hostile, http, ok
from lab import Lab, Server
from virtual import Run, answer, failure, requests, simulate

from batchgen.dispatch import Failure
from batchgen.dispatch.api.http import Reply
from batchgen.errors import AccountError
from batchgen.requests import Request

BROKE = "Not enough money"


def number(request: Request) -> int:
    return int(request.id[1:])


def refusing_from(first: int, **parts: Any) -> Callable[[Request, int], Any]:
    """Answers take a second, refusals a hundredth; from this row on all are refused."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        refused = number(request) >= first
        await asyncio.sleep(0.01 if refused else 1)
        return failure("row", "bad_request", message=BROKE, **parts) if refused else answer()

    return answering


@pytest.mark.parametrize("concurrency", [1, 8, 64])
@pytest.mark.parametrize("first", [1, 5, 100])
def test_twenty_in_the_middle_stop_the_job(first: int, concurrency: int) -> None:
    """P23 An account that is refused in the middle of a run, in words alone, stops it with 4; every
    row that was refused is pending again, and none that was answered."""
    run = simulate(requests(2000), refusing_from(first), concurrency=concurrency)
    assert isinstance(run.why, AccountError)
    assert BROKE in str(run.why)
    assert not run.failed
    assert run.answered == {f"r{n}" for n in range(first)}
    assert len(run.calls) < first + 20 + 100 * concurrency


def test_answers_in_between_that_were_sent_before_change_nothing() -> None:
    """P23 Slow answers to calls from before the account was refused do not hide that it is."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        if number(request) < 8:
            await asyncio.sleep(1 + number(request))
            return answer()
        await asyncio.sleep(0.5)
        return failure("row", "bad_request", message=BROKE)

    run = simulate(requests(2000), answering, concurrency=16)
    assert isinstance(run.why, AccountError)
    assert len(run.answered) == 8
    assert not run.failed
    assert len(run.calls) < 100


def test_calls_that_overtake_each_other_leave_no_row_failed() -> None:
    """P23 A call may reach the server before one that was sent earlier, and be the last answered
    one: those that it overtook are refused for the same cause."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        await asyncio.sleep(1)
        if number(request) in (0, 1, 5):
            return answer()
        return failure("row", "bad_request", message=BROKE)

    run = simulate(requests(200), answering, concurrency=8)
    assert isinstance(run.why, AccountError)
    assert (run.answered, run.failed) == ({"r0", "r1", "r5"}, set())


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_many_bad_rows_among_good_ones_are_their_own(share: float) -> None:
    """P23 Refusals that come back before the answers are not in a row for that."""
    chance = random.Random(1)
    bad = {f"r{n}" for n in range(600) if chance.random() < share}

    async def answering(request: Request, n: int) -> Reply | Failure:
        refused = request.id in bad
        await asyncio.sleep(0.01 if refused else 10)
        return failure("row", "bad_request", message="empty prompt") if refused else answer()

    run = simulate(requests(600), answering, concurrency=64)
    assert run.why is None
    assert run.failed == bad


def block(make: Callable[[int], Failure], rows: int = 40) -> Run:
    """Fifty rows that are answered, a block of refused ones, and fifty that are answered."""

    def answering(request: Request, n: int) -> Reply | Failure:
        within = 50 <= number(request) < 50 + rows
        return make(number(request)) if within else answer()

    return simulate(requests(100 + rows), answering, concurrency=4)


@pytest.mark.parametrize(
    "message",
    [
        "no credit (request id: req_{0:032x})",
        "no credit for '{1}'",
        'the input "{1}" is refused',
        "line {0}: no credit, try at 2026-11-05T12:00:{0}",
        "`{1}` of org_x{0} has no credit",
        "no credit, trace 9f86d081884c7d659a2feaa0c55ad015{0}",
    ],
)
def test_what_differs_from_row_to_row_is_left_out(message: str) -> None:
    """P23 Ids, numbers and quotations do not make refusals unlike."""
    words = ["apples", "pears", "don t", "plums and more"]
    run = block(
        lambda n: failure("row", "bad_request", message=message.format(n, words[n % len(words)]))
    )
    assert isinstance(run.why, AccountError)
    assert not run.failed


@pytest.mark.parametrize(
    "make",
    [
        lambda n: failure("row", "policy", message="flagged"),
        lambda n: failure("row", "too_long", message="too long"),
        lambda n: failure("row", "bad_image", message="no picture"),
        lambda n: failure("row", "bad_request", message="don't " + "xyz"[n % 3]),
        lambda n: failure("row", "bad_request", message="m", code="ab"[n % 2]),
        lambda n: failure("row", "bad_request", message="m", status=400 + n % 2),
        lambda n: failure("row", "input", message="no such file", status=None),
    ],
)
def test_what_is_certainly_the_rows_stops_nothing(make: Callable[[int], Failure]) -> None:
    """P23 A block of flagged, of too long or of differently refused rows fails row by row."""
    run = block(make)
    assert run.why is None
    assert len(run.failed) == 40
    assert len(run.answered) == 100


def test_nineteen_are_the_rows() -> None:
    """P23 One less than twenty stops nothing, and the rows are failed."""
    refused = failure("row", "bad_request", message=BROKE)
    run = block(lambda n: refused, rows=19)
    assert (run.why, len(run.failed)) == (None, 19)
    assert isinstance(block(lambda n: refused, rows=20).why, AccountError)


def test_what_passes_does_not_interrupt() -> None:
    """P23 A 429 or a 500 between refusals says nothing of the account."""

    def answering(request: Request, n: int) -> Reply | Failure:
        if number(request) < 30:
            return answer()
        if number(request) % 3 == 0 and n == 1:
            return failure("throttled" if number(request) % 2 else "transient")
        return failure("row", "bad_request", message=BROKE)

    run = simulate(requests(200), answering, concurrency=1, max_wait=0.1)
    assert isinstance(run.why, AccountError)
    assert not run.failed


def test_unlike_refusals_cost_no_memory() -> None:
    """P31 However many rows are refused, few are remembered."""
    run = simulate(
        requests(3000),
        lambda request, n: failure("row", "bad_request", code=str(number(request) % 2)),
        concurrency=2,
    )
    assert (run.why, len(run.failed)) == (None, 3000)
    assert len(run.backend._streak._refusals) <= 60


# -- a 403 -----------------------------------------------------------------------------------------

FORBIDDEN = failure("account", "forbidden", message="Input was flagged", status=403)


@pytest.mark.parametrize("concurrency", [1, 2, 64])
@pytest.mark.parametrize("position", [0, 2, 90])
def test_one_forbidden_row_is_its_own(position: int, concurrency: int) -> None:
    """P23 A 403 for one row among others that are answered fails that row, wherever it stands; the
    run goes on."""

    async def answering(request: Request, n: int) -> Reply | Failure:
        forbidden = number(request) == position
        await asyncio.sleep(0.1 if forbidden else 3)
        return FORBIDDEN if forbidden else answer()

    run = simulate(requests(100), answering, concurrency=concurrency)
    assert run.why is None
    assert run.failed == {f"r{position}"}
    assert len(run.answered) == 99


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_all_forbidden_is_the_account(rows: int) -> None:
    """P23 A 403 for everything stops the run soon, with every row pending."""

    async def answering(request: Request, n: int) -> Failure:
        await asyncio.sleep(0.1)
        return FORBIDDEN

    run = simulate(requests(rows), answering, concurrency=4)
    assert isinstance(run.why, AccountError)
    assert "does not permit this: Input was flagged" in str(run.why)
    assert not run.failed
    assert len(run.calls) <= 8


def test_a_permission_that_is_lost_midway_leaves_the_rows_pending() -> None:
    """P23 Twenty in a row are not flagged rows any more."""
    run = simulate(
        requests(200),
        lambda request, n: answer() if number(request) < 50 else FORBIDDEN,
        concurrency=4,
    )
    assert isinstance(run.why, AccountError)
    assert (len(run.answered), run.failed) == (50, set())


def test_after_a_top_up_the_same_command_goes_on(lab: Lab, tmp_path: Path) -> None:
    """P07 P17 P23 Refused midway in words alone: 4, and the next run does the rest."""
    body = {"error": {"type": "invalid_request_error", "message": "Out of tokens, dear customer."}}
    hostile = Hostile(lambda n: ok() if n <= 5 else http(400, body))
    server = Server(hostile.start, hostile.stop)
    try:
        job = lab.job(hostile.url, rows=60, limits={"concurrency": 8})
        report = lab.go(job)
        assert report.exit_code == 4
        assert set(report.job.rows) == {"succeeded", "pending"}
        hostile.script = lambda n: ok()
        assert lab.go(job).exit_code == 0
    finally:
        server.close()
    assert {row["status"] for row in lab.table()} == {"succeeded"}
