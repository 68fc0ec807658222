"""Several runs on one key, in virtual time: each `Shared` is what one process would have, and the file is a real one."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import sqlite3
import stat
import tempfile
from array import array
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import KEY, Lab
from virtual import Run, answer, fullest, now, requests, taken, virtually, work

from batchgen import disk
from batchgen.dispatch.limits import shared as shared_module
from batchgen.dispatch.limits import store
from batchgen.dispatch.limits.gcra import GcraLimit, lease
from batchgen.dispatch.limits.shared import SharedLimits
from batchgen.dispatch.limits.store import NAME, LimitStore, state_folder
from batchgen.dispatch.limits.window import MAX_BUSY
from batchgen.errors import OutputError
from batchgen.requests import Request
from batchgen.simulator import Simulator

URL = "https://api.test/v1"
LIMIT = "requests_per_minute"


@dataclass(kw_only=True)
class Job:
    """One process: what it takes each time, how long it pauses after, and when it starts and ends (seconds)."""

    limit: float = 6000.0
    amount: Callable[[], float] = lambda: 1.0
    pause: Callable[[], float] = lambda: 0.0
    held: Callable[[], float] = lambda: 0.0
    starts: float = 0.0
    ends: float = 90.0
    sent: list[tuple[float, float]] = field(default_factory=list)

    async def run(self, folder: Path) -> None:
        """Take and send until the end; what is taken is held for a while before it is sent."""
        began = now()
        shared = SharedLimits(URL, KEY, say=never, folder=folder)
        limiter = shared.limiter(LIMIT, self.limit)
        await asyncio.sleep(self.starts)
        while now() < began + self.ends:
            amount = self.amount()
            await limiter.take(amount)
            counted = limiter.sent(amount)
            if held := self.held():
                await asyncio.sleep(held)
                limiter.sent(amount, counted)
            self.sent.append((now(), amount))
            if pause := self.pause():
                await asyncio.sleep(pause)
        shared.close()


def never(text: str) -> None:
    raise AssertionError(text)


def play(*jobs: Job) -> list[tuple[float, float]]:
    """Run jobs at the same time on one key; what all sent, and when."""

    async def all_of_them(folder: Path) -> None:
        await asyncio.gather(*(job.run(folder) for job in jobs))

    with tempfile.TemporaryDirectory() as folder:
        virtually(all_of_them(Path(folder)))
    return sorted(itertools.chain.from_iterable(job.sent for job in jobs))


def share(sent: list[tuple[float, float]], limit: float, seconds: float) -> float:
    """How much of a limit was used from the first call on."""
    began = sent[0][0]
    return sum(amount for at, amount in sent if at < began + seconds) / (limit / 60 * seconds)


def deepest(sent: list[tuple[float, float]], limit: float) -> float:
    """How deep (seconds) a server's bucket must be to refuse nothing of this."""
    level, last = 0.0, sent[0][0]
    most = 0.0
    for at, amount in sent:
        level = max(0.0, level - (at - last) * limit / 60) + amount
        most, last = max(most, level), at
    return most / limit * 60


def bursts(odds: float, seconds: float, seed: int) -> Callable[[], float]:
    dice = random.Random(seed)
    return lambda: seconds if dice.random() < odds else 0.0


def between(least: float, most: float, seed: int = 1) -> Callable[[], float]:
    dice = random.Random(seed)
    return lambda: dice.uniform(least, most)


# -- what several make of a limit ---------------------------------------------------------------------------------------

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
    """P26 No 60 s of several runs together pass the limit, at least 95 % of it are used, and a server's bucket of one second
    (or of the largest request, if that is more) refuses nothing."""
    jobs = SCENES[scene]()
    sent, limit = play(*jobs), jobs[0].limit
    assert fullest(sent) <= max(1.0, limit) * (1 + 1e-9)
    assert share(sent, limit, jobs[0].ends) >= 0.95
    assert deepest(sent, limit) <= max(0.6, 0.6 + max(amount for _, amount in sent) / limit * 60)


def test_all_get_their_part() -> None:
    """P27 Runs that want all they can get get the same; one that needs large requests leaves the others theirs; a late one is
    not put off."""
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
    """P26 Whatever is asked, by how many, and however long what was taken is held up: no 60 s pass the limit; and those that
    name a smaller one keep that together."""
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
                held=between(0, held, seed) if held else lambda: 0.0,
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
    """P26 Two whole runs with retries, unequal prompts and two limits, recorded when they send: no window passes either."""
    dice = random.Random(3)
    runs = [Run(), Run()]

    async def answering(request: Request, n: int) -> object:
        await asyncio.sleep(dice.uniform(0.1, 15))
        return answer()

    async def both() -> None:
        shares = [SharedLimits(URL, KEY, say=never, folder=tmp_path) for _ in runs]
        rows = [requests(40, answer_bound=900), requests(40, answer_bound=100)]
        limits = {"requests_per_minute": 30, "tokens_per_minute": 15_000, "concurrency": 12}
        await asyncio.gather(
            *(
                work(todo, answering, run=run, limiters=shared.limiter, **limits)
                for todo, run, shared in zip(rows, runs, shares, strict=True)
            )
        )

    virtually(both())
    assert [len(run.answered) for run in runs] == [40, 40]
    assert fullest(sorted((at, 1) for run in runs for at, _, _ in run.calls)) <= 30
    each = [(runs[0], 925.0), (runs[1], 125.0)]
    assert fullest(sorted((at, tokens) for run, tokens in each for at, _, _ in run.calls)) <= 15_000


def test_the_next_run_knows_what_the_last_one_took(tmp_path: Path) -> None:
    """P26 A run that begins a second after another ended has what is left of the minute, not a minute of its own."""

    async def two() -> list[tuple[float, float]]:
        first, second = Job(limit=600, ends=30), Job(limit=600, ends=100)
        await first.run(tmp_path)
        await asyncio.sleep(1)
        await second.run(tmp_path)
        return first.sent + second.sent

    sent = virtually(two())
    assert fullest(sent) <= 600
    assert share(sent, 600, 120) > 0.95


# -- what goes wrong ----------------------------------------------------------------------------------------------------


def line_of(folder: Path) -> GcraLimit:
    """The only line in a folder's file that makes sense."""
    with closing(sqlite3.connect(folder / NAME)) as connection:
        ((limit, slots),) = connection.execute(
            "SELECT units, slots FROM line WHERE units > 0"
        ).fetchall()
    line = GcraLimit(limit=limit)
    line.unpack(slots)
    return line


def pool_of(folder: Path) -> bytes:
    with closing(sqlite3.connect(folder / NAME)) as connection:
        (pool,) = connection.execute("SELECT DISTINCT pool FROM line").fetchone()
    assert isinstance(pool, bytes)
    return pool


def test_a_killed_run_loses_its_lease_and_no_more(tmp_path: Path) -> None:
    """P26 Who leases and dies costs the others a quarter of a second; nobody has to clean up."""

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
    """P26 After a run has ended, by itself or cancelled while it waited, just what it sent is counted."""

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
    assert sum(line_of(tmp_path).units) == sent


def test_a_stopped_process_takes_its_place_again(tmp_path: Path) -> None:
    """P16 P26 A process that was stopped in its turn stands in line again, for others had its place meanwhile."""

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


def test_a_place_taken_long_ago_waits_for_those_who_were_late(tmp_path: Path) -> None:
    """P26 Who waited for more than half a minute looks again: what was to go before may have gone later than it said."""

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
    """P15 P26 No folder, no matter: one sentence says why, once, and each limit holds for the run alone."""
    (tmp_path / "state").write_text("a file", encoding="utf-8")
    said: list[str] = []

    async def run() -> list[list[tuple[float, float]]]:
        shared = SharedLimits(URL, KEY, say=said.append, folder=tmp_path / "state")
        sent = [await taken(shared.limiter(name, 60), [1.0] * 90) for name in ("a", "b")]
        shared.close()
        return sent

    for sent in virtually(run()):
        assert fullest(sent) <= 60
        assert share(sent, 60, 60) > 0.95
    assert len(said) == 1
    assert "this run alone" in said[0]
    assert KEY not in said[0]


def test_one_alone_when_the_file_fails_midway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P03 P26 A disk that fills up under the file ends the sharing, not the run, and no window passes the limit at that."""
    said: list[str] = []

    async def run() -> list[tuple[float, float]]:
        shared = SharedLimits(URL, KEY, say=said.append, folder=tmp_path)
        limiter, sent = shared.limiter(LIMIT, 600), []
        began = now()
        while now() < began + 150:
            await limiter.take(1)
            limiter.sent(1)
            sent.append((now(), 1.0))
            if len(sent) == 300:
                monkeypatch.setattr(LimitStore, "_update", full)
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
    assert len(said) == 1


def junk(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 500)


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE somebodys (words)")
        connection.commit()


def otherwise(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE line (pool, other)")
        connection.execute(f"PRAGMA application_id = {store.APPLICATION_ID}")
        connection.commit()


def torn(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(5000)


def gone(path: Path) -> None:
    path.unlink()


def folder_gone(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("ruin", [junk, foreign, otherwise, torn, gone, folder_gone])
@pytest.mark.parametrize("while_open", [True, False])
def test_a_damaged_file_is_made_anew(
    tmp_path: Path, ruin: Callable[[Path], None], while_open: bool
) -> None:
    """P02 The file holds nothing of worth: whatever becomes of it, between runs or in the middle of one, runs go on, and
    share again what is made in its place."""

    async def run() -> None:
        shares = [SharedLimits(URL, KEY, say=never, folder=tmp_path / "state") for _ in range(2)]
        first, second = (shared.limiter(LIMIT, 100_000) for shared in shares)
        await first.take(1)
        if not while_open:
            shares[0].close()
        ruin(tmp_path / "state" / NAME)
        # Over the lease's end, so that both go to the file again.
        await asyncio.sleep(1)
        for limiter in (first, second):
            await limiter.take(5)
        for shared in shares:
            shared.close()
        # And what was taken before, where that survived.
        assert sum(line_of(tmp_path / "state").units) in (10, 11)

    virtually(run())


def values(column: str, value: object) -> Callable[[Path], None]:
    def set_it(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"UPDATE line SET {column} = ?", (value,))
            connection.commit()

    return set_it


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "change",
    [
        values("arrival", 1e9),
        values("arrival", INF),
        values("arrival", "soon"),
        values("named", None),
        values("units", 0),
        values("units", "many"),
        values("slots", "text"),
        values("slots", b"123"),
        values("slots", array("d", [NAN, 1.0]).tobytes()),
        values("slots", array("d", [1e9, 1.0]).tobytes()),
        values("slots", array("d", [1001.0, INF]).tobytes()),
        values("slots", array("d", [1001.0, -5.0]).tobytes()),
        values("slots", array("d", [1001.0]).tobytes()),
    ],
)
def test_nonsense_in_a_line_is_no_reason_to_wait(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """P16 A line that says what none can have left, from before the machine started say, is as if it were not there."""

    async def run() -> float:
        await Job(limit=60, ends=1).run(tmp_path)
        change(tmp_path / NAME)
        before = now()
        await Job(limit=60, ends=1).run(tmp_path)
        return now() - before

    assert virtually(run()) < 3


def test_a_clock_that_began_anew_is_another_line(tmp_path: Path) -> None:
    """P16 After a restart the clock is back at nothing: nobody waits for what was taken before."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        loop.now = 500_000.0  # type: ignore[attr-defined]
        await Job(limit=60, ends=50).run(tmp_path)
        for back in (499_900.0, 400_000.0, 10.0):
            loop.now = back  # type: ignore[attr-defined]
            await Job(limit=60, ends=0.5).run(tmp_path)
            assert now() - back < 2
        return now()

    virtually(run())


def test_a_busy_file_is_waited_for_without_blocking(tmp_path: Path) -> None:
    """P19 While another process has the file, others' calls go on; when it never comes free, the run goes on alone."""
    said: list[str] = []

    async def run() -> None:
        shared = SharedLimits(URL, KEY, say=said.append, folder=tmp_path)
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
            assert not said
            other.execute("BEGIN EXCLUSIVE")
            await asyncio.sleep(1)
            before = now()
            await limiter.take(1)
            assert MAX_BUSY <= now() - before < MAX_BUSY + 1
            assert "locked" in said[0]
            await limiter.take(1)
            other.execute("COMMIT")
        shared.close()

    virtually(run())
    assert len(said) == 1


# -- the file -----------------------------------------------------------------------------------------------------------


def test_the_file_is_the_users_own_and_holds_no_key(tmp_path: Path) -> None:
    """P40 The file is for its owner only, and neither the key nor the server can be read in it."""
    folder = tmp_path / "a" / "batchgen"
    virtually(Job(ends=1).run(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir() if path.stat().st_size] == [NAME]
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600
    content = (folder / NAME).read_bytes()
    assert KEY.encode() not in content
    assert b"api.test" not in content


@pytest.mark.parametrize("name", [NAME, f"{NAME}-journal"])
def test_planted_links_are_not_followed(tmp_path: Path, name: str) -> None:
    """P34 A link where the file, its journal or its folder should be is left alone, and limits are not shared."""
    precious = tmp_path / "precious"
    precious.write_text("mine", encoding="utf-8")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / name).symlink_to(precious)
    (tmp_path / "linked").symlink_to(tmp_path / "state")
    for folder in ("state", "linked"):
        with pytest.raises(OutputError, match="link"):
            LimitStore(tmp_path / folder / NAME)
    assert precious.read_text(encoding="utf-8") == "mine"


def test_no_file_on_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P05 Locks of a network file system are not to be trusted, nor waited for."""
    (tmp_path / "mounts").write_text(f"server:/home {tmp_path} nfs4 rw 0 0\n", encoding="utf-8")
    monkeypatch.setattr(disk, "MOUNTS", tmp_path / "mounts")
    with pytest.raises(OutputError, match="XDG_STATE_HOME"):
        LimitStore(tmp_path / NAME)


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """P15 XDG_STATE_HOME when it is absolute, else below the home folder, as the system has it; without one, a sentence."""
    assert state_folder({"XDG_STATE_HOME": "/x"}) == Path("/x/batchgen")
    for ignored in ({}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "x/y"}):
        monkeypatch.setattr("sys.platform", "linux")
        assert state_folder(ignored) == Path.home() / ".local/state/batchgen"
        monkeypatch.setattr("sys.platform", "darwin")
        assert state_folder(ignored) == Path.home() / "Library/Application Support/batchgen"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OutputError, match="home"):
        state_folder({})


def test_who_shares_with_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P26 The same server, key and limit on the same clock, and nobody else; without a key, the same server."""
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
            found = connection.execute("SELECT slots FROM line").fetchall()
        return sorted(len(slots) // 16 for (slots,) in found)

    # Two of each kind stand in one line; the others in lines of their own.
    assert virtually(run()) == [1] * 6 + [2] * 4


def test_old_lines_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 What nobody touched for a day, by the wall's clock, goes when the file is opened."""

    def keys() -> int:
        with closing(sqlite3.connect(tmp_path / NAME)) as connection:
            return int(connection.execute("SELECT count(*) FROM line").fetchone()[0])

    async def touch(key: str) -> None:
        shared = SharedLimits(URL, key, say=never, folder=tmp_path)
        await shared.limiter(LIMIT, 60).take(1)
        shared.close()

    virtually(touch("a"))
    monkeypatch.setattr("time.time", lambda: 0.0)
    virtually(touch("b"))
    assert keys() == 1


# -- whole runs ---------------------------------------------------------------------------------------------------------


def test_two_commands_at_once_count_in_one_line(lab: Lab, api: Simulator) -> None:
    """P26 Two processes, one line: it has every call of both, and no more."""
    lab.env["XDG_STATE_HOME"] = str(lab.folder / "state")
    limits = {"requests_per_minute": 60_000, "concurrency": 4}
    processes = [
        lab.start("run", lab.job(api.url, name=name, rows=40, limits=limits), "--quiet")
        for name in ("a", "b")
    ]
    assert [process.communicate(timeout=60)[1] for process in processes] == ["", ""]
    assert sum(line_of(lab.folder / "state" / "batchgen").units) == 80


def test_nothing_is_written_without_limits_or_simulated(lab: Lab, api: Simulator) -> None:
    """P38 A run without limits, or of the simulated API, leaves nothing in the user's state folder."""
    state = Path(os.environ["XDG_STATE_HOME"])
    assert lab.go(lab.job(api.url)).exit_code == 0
    assert (
        lab.go(lab.job(api.url, limits={"requests_per_minute": 6000}), simulate=True).exit_code == 0
    )
    assert not state.exists()
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
