"""What a run publishes of itself while it goes on, and who believes it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import Lab, stalling

from batchgen import disk, queries
from batchgen.cli.running_lines import running_lines
from batchgen.dispatch import Progress, Wait
from batchgen.errors import InputError
from batchgen.simulator import Simulator
from batchgen.workspace import Workspace, publishing, read_running

# 2026-01-02 03:04:05 UTC.
NOW = 1_767_323_045.0
WAITING = Progress(
    done=1200,
    failed=3,
    to_send=4966,
    rate=520.0,
    cap=5_000_000_000,
    cost=1_230_000_000,
    wait=Wait(cause="Retry-After", reason="the server asked for it", until=NOW + 34),
)


def test_only_a_run_that_goes_on_is_believed(lab: Lab, api: Simulator) -> None:
    """What a killed run left says nothing, and neither does a file that is no such note."""
    workspace = Workspace.of(lab.load(lab.job(api.url)))
    folder = workspace.folder
    with workspace.locked():
        assert read_running(folder) is None
        with publishing(folder) as note:
            note.write("sending", WAITING)
            running = read_running(folder)
            assert running is not None
            assert (running["pid"], running["phase"]) == (os.getpid(), "sending")
            left = (folder / "running.json").read_bytes()
        assert not (folder / "running.json").exists()
        for text in (b"", b"[]", b"{}", left[:40], left.replace(b'"done": 1200', b'"done": "x"')):
            (folder / "running.json").write_bytes(text)
            assert read_running(folder) is None
    (folder / "running.json").write_bytes(left)
    assert read_running(folder) is None
    # The question has not kept the lock.
    with workspace.locked():
        assert read_running(folder) is not None


def test_a_disk_that_takes_no_note_ends_no_run(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P03 A note that cannot be written is left out; the run goes on. It is never synced."""
    synced: list[str] = []
    monkeypatch.setattr(disk, "sync_folder", lambda path: synced.append(str(path)))
    with publishing(lab.folder) as note:
        note.write("sending", WAITING)
        assert synced == []
        assert json.loads((lab.folder / "running.json").read_bytes())["left"] == 3763
    with publishing(lab.folder / "not there") as note:
        note.write("sending", WAITING)


def test_a_run_is_seen_while_it_goes_on(lab: Lab) -> None:
    """`status` shows the run of another process as it goes on, and nothing of it at its end."""
    with stalling() as (api, arrived, released):
        job = lab.job(api.url, rows=4, limits={"concurrency": 2})
        with lab.start("run", job) as run:
            assert arrived.wait(30)
            while (state := _status(lab, job)).get("running") is None:
                assert run.poll() is None
            assert state["running"]["pid"] == run.pid
            assert state["running"]["left"] == 4
            released.set()
            run.communicate(timeout=60)
    assert run.returncode == 0
    assert _status(lab, job)["running"] is None
    assert not (lab.output() / "running.json").exists()


def _status(lab: Lab, job: Path) -> dict[str, Any]:
    try:
        return queries.status(lab.load(job))
    except InputError:  # the run has not staged its prompts yet
        return {}


def test_the_words_of_a_run_that_goes_on() -> None:
    """`status` says since when a run goes on, how fast, how long still and what it waits for."""
    from batchgen.report import progress_json

    running = {"started_at": NOW - 300, "phase": "sending", **progress_json(WAITING)}
    first, second, third = running_lines(running, NOW)
    assert re.fullmatch(r"running since \d\d:\d\d:\d\d \(5 min\), sending", first) or "-" in first
    assert second == (
        "  this run: 1,200 done, 3 failed, 3,763 to do, 520 a minute, 7 min left, $1.2300 of $5.00"
    )
    assert re.fullmatch(
        r"  waiting until (\S+ )?\d\d:\d\d:\d\d \(34 s\): the server asked for it", third
    )
    running |= {"stopping": True, "in_flight": 16}
    assert list(running_lines(running, NOW))[-1].endswith("16 answers already paid for")


def test_watching_ends_with_the_run(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`status --watch` shows the job until its run has ended, then how it stands."""
    job = lab.job(api.url)
    lab.go(job)
    from batchgen.report import progress_json

    goes_on = {"started_at": NOW, "phase": "sending", **progress_json(WAITING)}
    seen = [goes_on, goes_on, None]
    pauses: list[float] = []
    monkeypatch.setattr(queries, "read_running", lambda folder: seen.pop(0))
    monkeypatch.setattr("batchgen.cli.status.time.sleep", pauses.append)
    with pytest.raises(SystemExit) as ended:
        _main("status", str(job), "--watch")
    assert (ended.value.code, len(pauses), min(pauses) >= 30) == (0, 2, True)
    printed = capsys.readouterr().out
    assert printed.count("running since") == 2
    assert printed.splitlines()[-1] == "job: 5 rows: 5 succeeded; 5 calls, cost unknown"
    with pytest.raises(SystemExit) as ended:
        _main("status", str(job), "--watch", "--json")
    assert ended.value.code == 2


def _main(*args: str) -> None:
    from batchgen.cli import main

    main(list(args))


CAUSES = st.none() | st.builds(
    Wait,
    cause=st.sampled_from(["outage", "Retry-After"]),
    reason=st.just("why"),
    until=st.none() | st.floats(min_value=0, max_value=2000),
)


@given(st.lists(st.tuples(st.floats(min_value=0, max_value=30), CAUSES), max_size=60))
def test_a_wait_that_ends_had_begun(steps: list[tuple[float, Wait | None]]) -> None:
    """Begins and ends of long waits take turns, no short wait begins one, and none lasted less than
    nothing.
    """
    from batchgen.report import LongWaits
    from batchgen.report.running import LONG_WAIT

    waits, now, is_open = LongWaits(), 0.0, False
    for seconds, wait in steps:
        now += seconds
        begun, lasted = waits.observe(wait, now)
        if lasted is not None:
            assert is_open
            assert lasted >= 0
            is_open = False
        if begun is not None:
            assert not is_open
            assert begun.until is not None
            assert begun.until - now >= LONG_WAIT
            is_open = True


def test_an_outage_is_one_wait() -> None:
    """An outage of ten minutes, probed every half minute, begins once and ends once, with its
    length.
    """
    from batchgen.report import LongWaits

    waits, begun, lasted = LongWaits(), [], []
    for now in range(700):
        down = Wait(cause="outage", reason="down", until=(now // 30 + 1) * 30.0)
        wait = down if now < 600 else None
        began, ended = waits.observe(wait, float(now))
        begun += [now] if began else []
        lasted += [ended] if ended is not None else []
    assert (begun, lasted) == ([0], [600.0])


@given(per_second=st.integers(min_value=1, max_value=500), seconds=st.integers(5, 400))
def test_a_steady_pace_is_measured(per_second: int, seconds: int) -> None:
    """Requests that end evenly are measured as they end; nothing is said of the first seconds."""
    from batchgen.report import Pace

    pace = Pace()
    assert pace.per_minute(0, 0.0) is None
    assert pace.per_minute(per_second, 1.0) is None
    rates = [pace.per_minute(per_second * at, float(at)) for at in range(2, seconds)]
    known = [rate for rate in rates if rate is not None]
    assert known
    assert known == pytest.approx([per_second * 60] * len(known))
