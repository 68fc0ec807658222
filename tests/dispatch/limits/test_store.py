"""The file of shared limits: who may read it, and what happens when it is damaged."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
from array import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from lab import KEY
from sharing import LIMIT, URL, Job, never, state_of
from virtual import now, virtually

from batchgen import disk
from batchgen.dispatch.limits import store
from batchgen.dispatch.limits.shared import SharedLimits
from batchgen.dispatch.limits.state_file import state_folder
from batchgen.dispatch.limits.store import NAME, LimitStore
from batchgen.errors import OutputError


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
    """P02 Whatever happens to the file, between runs or during one, runs go on.

    The file holds nothing of value: runs share the one that is made in its place.
    """

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
        assert sum(state_of(tmp_path / "state").units) in (10, 11)

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
def test_a_damaged_state_makes_nobody_wait(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """P16 A state that no job can have left is ignored, such as one from before a restart."""

    async def run() -> float:
        await Job(limit=60, ends=1).run(tmp_path)
        change(tmp_path / NAME)
        before = now()
        await Job(limit=60, ends=1).run(tmp_path)
        return now() - before

    assert virtually(run()) < 3


def test_a_state_from_before_a_restart_is_ignored(tmp_path: Path) -> None:
    """P16 After a restart the clock is back at zero: nobody waits for what was taken before."""

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


def test_the_file_is_the_users_own_and_holds_no_key(tmp_path: Path) -> None:
    """P40 The file is for its owner only, and holds neither the key nor the server's name."""
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
    """P34 A link where the file, its journal or its folder should be is left alone.

    Limits are then not shared.
    """
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
    """P05 Locks of a network file system are neither trusted nor waited for."""
    (tmp_path / "mounts").write_text(f"server:/home {tmp_path} nfs4 rw 0 0\n", encoding="utf-8")
    monkeypatch.setattr(disk, "MOUNTS", tmp_path / "mounts")
    with pytest.raises(OutputError, match="XDG_STATE_HOME"):
        LimitStore(tmp_path / NAME)


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """P15 The file is in XDG_STATE_HOME if that is absolute, else in the system's folder for state.

    Without a home folder, one sentence says so.
    """
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


def test_old_states_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 States that nobody used for a day of wall time go when the file is opened."""

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
