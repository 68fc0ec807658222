"""Several runs on one key, in virtual time, over a real file."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import KEY, Lab
from sharing import LIMIT, URL, Job, bursts, never, play, pool_of, share, state_of
from virtual import Run, answer, fullest, now, requests, taken, virtually, work

from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.limits import shared as shared_module
from batchgen.dispatch.limits.gcra import lease
from batchgen.dispatch.limits.shared import SharedLimits
from batchgen.dispatch.limits.store import NAME, LimitStore
from batchgen.dispatch.limits.window import MAX_BUSY
from batchgen.requests import Request
from batchgen.simulator import Simulator


def deepest(sent: list[tuple[float, float]], limit: float) -> float:
    """How deep (seconds) a server's bucket must be to refuse nothing of this."""
    level, last = 0.0, sent[0][0]
    most = 0.0
    for at, amount in sent:
        level = max(0.0, level - (at - last) * limit / 60) + amount
        most, last = max(most, level), at
    return most / limit * 60


def between(least: float, most: float, seed: int = 1) -> Callable[[], float]:
    dice = random.Random(seed)
    return lambda: dice.uniform(least, most)


SCENES: dict[str, Callable[[], list[Job]]] = {
    "one": lambda: [Job()],
    "two": lambda: [Job(), Job()],
    "five": lambda: [Job() for _ in range(5)],
    "one idles": lambda: [Job(), Job(pause=lambda: 5.0)],
    "one is held by its concurrency": lambda: [
        Job(),
        Job(pause=bursts(1 / 17, 1.0, 1)),
        Job(pause=lambda: 0.05),
    ],
    "one is late, one ends": lambda: [Job(), Job(starts=30), Job(ends=40)],
    "one has a lower limit": lambda: [Job(), Job(limit=600), Job(limit=600)],
    "slow": lambda: [Job(limit=60, ends=600), Job(limit=60, ends=600)],
    "very slow": lambda: [Job(limit=2, ends=3600), Job(limit=2, ends=3600)],
    "one an hour": lambda: [Job(limit=1 / 60, ends=36_000), Job(limit=1 / 60, ends=36_000)],
    "large prompts": lambda: [
        Job(limit=200_000, amount=between(50, 400)),
        Job(limit=200_000, amount=between(1000, 6000)),
    ],
}


@pytest.mark.parametrize("scene", SCENES)
def test_together_they_keep_a_limit_and_use_it(scene: str) -> None:
    """P26 Runs that share a limit keep every 60 s below it and use at least 95 %.

    A server's bucket of one second (or of the largest request, if that is more) refuses nothing.
    """
    jobs = SCENES[scene]()
    sent, limit = play(*jobs), jobs[0].limit
    assert fullest(sent) <= max(1.0, limit) * (1 + 1e-9)
    assert share(sent, limit, jobs[0].ends) >= 0.95
    assert deepest(sent, limit) <= max(0.6, 0.6 + max(amount for _, amount in sent) / limit * 60)


def test_all_get_their_part() -> None:
    """P27 Runs that want all they can get receive equal parts.

    One that needs large requests leaves the others their part, and a late one is served at once.
    """
    equal = [Job() for _ in range(4)]
    total = sum(amount for _, amount in play(*equal))
    assert all(0.23 < len(job.sent) / total < 0.27 for job in equal)

    small, large = (
        Job(limit=200_000, amount=lambda: 100.0),
        Job(limit=200_000, amount=lambda: 4000.0),
    )
    total = sum(amount for _, amount in play(small, large))
    assert 0.4 < sum(amount for _, amount in small.sent) / total < 0.6

    # More than half a minute each: they alternate with the small ones.
    huge = [Job(limit=20_000, amount=lambda: 12_000.0, ends=600) for _ in range(2)]
    tiny = Job(limit=20_000, amount=lambda: 100.0, ends=600)
    play(*huge, tiny)
    assert abs(len(huge[0].sent) - len(huge[1].sent)) <= 1
    assert len(tiny.sent) >= len(huge[0].sent) >= 4

    late = Job(starts=60, ends=61)
    play(Job(), Job(), late)
    assert late.sent[0][0] - 1060 < 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_window_passes_the_limit_whatever_they_do(data: st.DataObject) -> None:
    """P26 No 60 s exceed the limit, whatever is taken, by how many, and however long it is delayed.

    Runs with a smaller limit keep that one together.
    """
    base = data.draw(st.sampled_from([0.5, 3.0, 10.0, 61.7, 500.0]))
    jobs = []
    for seed in range(data.draw(st.integers(2, 4))):
        limit = base * data.draw(st.sampled_from([1, 1, 2, 10]))
        most = max(1.0, limit * data.draw(st.sampled_from([0.001, 0.05, 0.9])))
        pause, held = (
            data.draw(st.sampled_from([0.0, 0.3, 20.0])),
            data.draw(st.sampled_from([0.0, 0.0, 0.2, 25.0])),
        )
        jobs.append(
            Job(
                limit=limit,
                amount=between(min(1.0, most), min(most, max(1.0, limit)), seed),
                pause=between(0, pause, seed) if pause else lambda: 0.0,
                delay=between(0, held, seed) if held else lambda: 0.0,
                starts=data.draw(st.sampled_from([0.0, 0.0, 10.0, 70.0])),
                ends=data.draw(st.sampled_from([50.0, 200.0])),
            )
        )
    play(*jobs)
    for limit in {job.limit for job in jobs}:
        within = sorted(
            itertools.chain.from_iterable(job.sent for job in jobs if job.limit <= limit)
        )
        largest = max((amount for _, amount in within), default=0.0)
        assert fullest(within) <= max(limit, largest) * (1 + 1e-9)


def test_the_whole_backend_shares_its_limits(tmp_path: Path) -> None:
    """P26 Two whole runs with retries, unequal prompts and two limits keep both.

    Calls are recorded at the moment of sending.
    """
    dice = random.Random(3)
    runs = [Run(), Run()]

    async def answering(request: Request, n: int) -> Reply:
        await asyncio.sleep(dice.uniform(0.1, 15))
        return answer()

    async def both() -> None:
        shares = [SharedLimits(URL, KEY, say=never, folder=tmp_path) for _ in runs]
        rows = [requests(40, answer_bound=900), requests(40, answer_bound=100)]
        await asyncio.gather(
            *(
                work(
                    todo,
                    answering,
                    run=run,
                    limiters=shared.limiter,
                    requests_per_minute=30,
                    tokens_per_minute=15_000,
                    concurrency=12,
                )
                for todo, run, shared in zip(rows, runs, shares, strict=True)
            )
        )

    virtually(both())
    assert [len(run.answered) for run in runs] == [40, 40]
    assert fullest(sorted((at, 1) for run in runs for at, _, _ in run.calls)) <= 30
    each = [(runs[0], 925.0), (runs[1], 125.0)]
    assert fullest(sorted((at, tokens) for run, tokens in each for at, _, _ in run.calls)) <= 15_000


def test_the_next_run_knows_what_the_last_one_took(tmp_path: Path) -> None:
    """P26 A run that starts a second after another ended gets the rest of the minute only."""

    async def two() -> list[tuple[float, float]]:
        first, second = Job(limit=600, ends=30), Job(limit=600, ends=100)
        await first.run(tmp_path)
        await asyncio.sleep(1)
        await second.run(tmp_path)
        return first.sent + second.sent

    sent = virtually(two())
    assert fullest(sent) <= 600
    assert share(sent, 600, 120) > 0.95


def test_a_killed_run_loses_its_lease_and_no_more(tmp_path: Path) -> None:
    """P26 A run that leases and dies costs the others a quarter of a second.

    Nobody has to clean up.
    """

    async def run() -> list[tuple[float, float]]:
        job = Job(ends=90)
        working = asyncio.create_task(job.run(tmp_path))
        await asyncio.sleep(20)
        pool, file = pool_of(tmp_path), LimitStore(tmp_path / NAME)
        for _ in range(3):
            file.update(pool, 6000.0, now, lambda lines, at: lease(lines, 1.0, 25.0, at))
        file.close()
        await working
        return job.sent

    sent = virtually(run())
    assert fullest(sent) <= 6000
    assert sum(amount for at, amount in sent if at < 1090) >= 0.98 * 9000 - 75


def test_what_was_not_used_is_given_back(tmp_path: Path) -> None:
    """P26 After a run has ended or was cancelled while it waited, only what it sent is counted."""

    async def run() -> int:
        job = Job(limit=600, ends=3.21, pause=bursts(0.2, 0.4, 1))
        await job.run(tmp_path)
        shared = SharedLimits(URL, KEY, say=never, folder=tmp_path)
        limiter = shared.limiter(LIMIT, 600)
        await limiter.take(5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await limiter.take(300)
        shared.close()
        return len(job.sent) + 5

    sent = virtually(run())
    assert sum(state_of(tmp_path).units) == sent


def test_a_stopped_process_queues_again(tmp_path: Path) -> None:
    """P16 P26 A process that was stopped in its turn queues again: others may have used it."""

    async def run() -> float:
        shared = SharedLimits(URL, KEY, say=never, folder=tmp_path)
        limiter = shared.limiter(LIMIT, 60)
        await limiter.take(1)
        waiting = asyncio.create_task(limiter.take(1))
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().now += 200  # type: ignore[attr-defined]
        continued, file = now(), LimitStore(tmp_path / NAME)
        file.update(
            pool_of(tmp_path),
            60.0,
            lambda: continued - 60,
            lambda lines, at: lease(lines, 60.0, 60.0, at),
        )
        file.close()
        await waiting
        shared.close()
        return now() - continued

    assert virtually(run()) > 50


def test_a_lease_taken_long_ago_waits_for_late_calls(tmp_path: Path) -> None:
    """P26 A limiter that waits for more than a second reads the states again.

    Earlier calls may have left later than planned.
    """

    async def run() -> list[tuple[float, float]]:
        shares = [SharedLimits(URL, KEY, say=never, folder=tmp_path) for _ in range(2)]
        held, other = (shared.limiter(LIMIT, 10) for shared in shares)
        await held.take(6)
        counted = held.sent(6)
        waiting = asyncio.create_task(other.take(10))
        await asyncio.sleep(25)
        held.sent(6, counted)
        sent = [(now(), 6.0)]
        await waiting
        other.sent(10)
        sent.append((now(), 10.0))
        for shared in shares:
            shared.close()
        return sent

    assert fullest(virtually(run())) <= 10


def test_one_alone_when_the_folder_cannot_be_written(tmp_path: Path) -> None:
    """P15 P26 Without a folder, each limit holds for the run alone.

    One sentence says why, once.
    """
    (tmp_path / "state").write_text("a file", encoding="utf-8")
    messages: list[str] = []

    async def run() -> list[list[tuple[float, float]]]:
        shared = SharedLimits(URL, KEY, say=messages.append, folder=tmp_path / "state")
        sent = [await taken(shared.limiter(name, 60), [1.0] * 90) for name in ("a", "b")]
        shared.close()
        return sent

    for sent in virtually(run()):
        assert fullest(sent) <= 60
        assert share(sent, 60, 60) > 0.95
    assert len(messages) == 1
    assert "this run alone" in messages[0]
    assert KEY not in messages[0]


def test_one_alone_when_the_file_fails_midway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P03 P26 A disk that fills up ends the sharing, not the run.

    No window exceeds the limit while it does.
    """
    messages: list[str] = []

    async def run() -> list[tuple[float, float]]:
        shared = SharedLimits(URL, KEY, say=messages.append, folder=tmp_path)
        limiter, sent = shared.limiter(LIMIT, 600), []
        began = now()
        while now() < began + 150:
            await limiter.take(1)
            limiter.sent(1)
            sent.append((now(), 1.0))
            if len(sent) == 300:
                monkeypatch.setattr(LimitStore, "_transact", full)
        limiter.owe(3)
        shared.close()
        return sent

    def full(*args: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    sent = virtually(run())
    assert fullest(sent) <= 600
    assert share(sent, 600, 150) > 0.95
    assert len(messages) == 1


def test_a_busy_file_is_waited_for_without_blocking(tmp_path: Path) -> None:
    """P19 While another process has the file locked, other calls go on.

    If the lock is never released, the run goes on alone.
    """
    messages: list[str] = []

    async def run() -> None:
        shared = SharedLimits(URL, KEY, say=messages.append, folder=tmp_path)
        limiter = shared.limiter(LIMIT, 6000)
        await limiter.take(1)
        with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await asyncio.sleep(1)
            taking = asyncio.create_task(limiter.take(1))
            await asyncio.sleep(MAX_BUSY / 2)
            assert not taking.done()
            other.execute("COMMIT")
            await taking
            assert not messages
            other.execute("BEGIN EXCLUSIVE")
            await asyncio.sleep(1)
            before = now()
            await limiter.take(1)
            assert MAX_BUSY <= now() - before < MAX_BUSY + 1
            assert "locked" in messages[0]
            await limiter.take(1)
            other.execute("COMMIT")
        shared.close()

    virtually(run())
    assert len(messages) == 1


def test_who_shares_with_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P26 The same server, key and limit on the same clock share, and nobody else does.

    Without a key, the same server does.
    """
    shares = [
        SharedLimits(URL, KEY, say=never, folder=tmp_path),
        SharedLimits(URL, KEY, say=never, folder=tmp_path),
        SharedLimits(URL, "sk-other", say=never, folder=tmp_path),
        SharedLimits("https://other.test/v1", KEY, say=never, folder=tmp_path),
        SharedLimits(URL, None, say=never, folder=tmp_path),
        SharedLimits(URL, None, say=never, folder=tmp_path),
    ]
    monkeypatch.setattr(shared_module, "BOOT", tmp_path / "none")
    shares.append(SharedLimits(URL, KEY, say=never, folder=tmp_path))

    async def run() -> list[int]:
        for shared in shares:
            await shared.limiter(LIMIT, 60).take(1)
            await shared.limiter("tokens_per_minute", 60).take(1)
            shared.close()
        with closing(sqlite3.connect(tmp_path / NAME)) as connection:
            rows = connection.execute("SELECT slots FROM line").fetchall()
        return sorted(len(slots) // 16 for (slots,) in rows)

    # Two of each kind share a state; the others have their own.
    assert virtually(run()) == [1] * 6 + [2] * 4


def test_two_commands_at_once_count_together(lab: Lab, api: Simulator) -> None:
    """P26 The file counts every call of two processes, and no more."""
    lab.env["XDG_STATE_HOME"] = str(lab.folder / "state")
    limits = {"requests_per_minute": 60_000, "concurrency": 4}
    processes = [
        lab.start("run", lab.job(api.url, name=name, rows=40, limits=limits), "--quiet")
        for name in ("a", "b")
    ]
    assert [process.communicate(timeout=60)[1] for process in processes] == ["", ""]
    assert sum(state_of(lab.folder / "state" / "batchgen").units) == 80


def test_nothing_is_written_without_limits_or_simulated(lab: Lab, api: Simulator) -> None:
    """P38 A run of the simulated API leaves the user's state folder alone; one without limits
    leaves nothing there but a note of its journal and what its key spent.
    """
    state = Path(os.environ["XDG_STATE_HOME"])
    assert (
        lab.go(lab.job(api.url, limits={"requests_per_minute": 6000}), simulate=True).exit_code == 0
    )
    assert not state.exists()
    assert lab.go(lab.job(api.url)).exit_code == 0
    names = {path.name.partition(".")[0] for path in (state / "batchgen").iterdir()}
    assert names == {"journals", "spending-1"}
    assert (
        lab.go(lab.job(api.url, name="other", limits={"requests_per_minute": 6000})).exit_code == 0
    )
    assert (state / "batchgen" / NAME).exists()


def test_a_run_that_cannot_share_says_so_once(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P15 The warning is on stderr and in run.log, once, and the run does its work."""
    lab.env["XDG_STATE_HOME"] = "/proc/none"
    limits = {"requests_per_minute": 6000, "tokens_per_minute": 600_000}
    done = lab.run("run", lab.job(api.url, limits=limits))
    assert done.returncode == 0
    assert done.stderr.count("this run alone") == 1
    assert (lab.output() / "run.log").read_text(encoding="utf-8").count("this run alone") == 1
