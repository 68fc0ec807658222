"""kill -9 at random instants and at chosen system calls, and a disk that fails to sync: nothing
recorded is lost."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from lab import Lab, serving
from scenes import SLACK, Cells, Killer, cells, killed, owed, run, write_job

from batchgen.simulator import Settings, Simulator

CONCURRENCY = 4
STRACE = shutil.which("strace")


def unbroken(folder: Path, api: Simulator, kind: str, rows: int) -> Cells:
    """The cells that a run gives when nothing happens to it."""
    folder.mkdir()
    lab = Lab(folder)
    assert run(write_job(lab, api.url, kind, rows=rows, concurrency=CONCURRENCY)).exit_code == 0
    return cells(lab)


@pytest.mark.parametrize(
    ("kind", "rows", "calls"), [("chat", 60, 60), ("conversation", 14, 42), ("image", 16, 16)]
)
def test_killed_at_random_instants(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, kind: str, rows: int, calls: int
) -> None:
    """P01 kill -9 at any instant loses at most what is in flight: after a resume the table equals
    that of an unbroken run."""
    seed = random.randrange(2**32)
    dice, killer, crashes = random.Random(seed), Killer(), 0
    with serving(Settings(latency=0.01), killer) as api:
        job = write_job(lab, api.url, kind, rows=rows, concurrency=CONCURRENCY)
        for _ in range(3):
            crashes += killed(lab, job, killer, dice.randint(1, calls // 2)) == -9
        killer.arm(0)
        done = lab.run("run", job)
        answered = api.requests.answered
        whole = unbroken(tmp_path_factory.mktemp("whole") / "lab", api, kind, rows)
    assert (done.returncode, crashes > 0) == (0, True), f"seed {seed}: {done.stderr}"
    assert cells(lab) == whole, f"seed {seed}"
    assert answered <= calls + (CONCURRENCY + SLACK) * crashes, f"seed {seed}"
    assert lab.run("verify", job).returncode == 0, f"seed {seed}"


@cache
def why_no_strace() -> str:
    """Why system calls cannot be tampered with here, or ''."""
    if STRACE is None:
        return "strace is not installed"
    command = [
        STRACE,
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync",
        "-e",
        "inject=fsync:error=EIO",
        "true",
    ]
    tried = subprocess.run(command, capture_output=True, check=False)
    return "" if tried.returncode == 0 else "ptrace is not allowed here"


def tampered(lab: Lab, job: Path, calls: str, what: str) -> subprocess.CompletedProcess[str]:
    """Run a job under strace, which does `what` to its system calls."""
    if reason := why_no_strace():
        pytest.skip(reason)
    assert STRACE is not None
    trace = ["-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:{what}"]
    command = [STRACE, *trace, sys.executable, "-m", "batchgen", "run", str(job)]
    env = lab.environ(PYTHONDONTWRITEBYTECODE="1")
    return subprocess.run(
        command, cwd=lab.folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


# strace counts for each thread; with one row done before, these fall into the opening, the sending
# and the end of a run.
INSTANTS = [
    ("fdatasync", (2, 4, 5)),
    ("fsync", (3, 5, 6)),
    ("pwrite64", (10, 20, 30)),
    ("write", (2, 4, 5)),
    ("rename", (1, 3, 4)),
]


@pytest.mark.parametrize(("call", "numbers"), INSTANTS, ids=[call for call, _ in INSTANTS])
def test_killed_at_system_calls(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, call: str, numbers: tuple[int, ...]
) -> None:
    """P01 P04 Killed at its N-th sync, write or rename, one run after another, a job still comes to
    the same table."""
    rows, concurrency = 16, 2
    with serving() as api:
        job = write_job(lab, api.url, "image", rows=rows, concurrency=concurrency)
        assert run(job, limit=1).exit_code == 0
        for number in numbers:
            assert tampered(lab, job, call, f"signal=SIGKILL:when={number}").returncode in (-9, 137)
        assert run(job).exit_code == 0
        answered = api.requests.answered
        whole = unbroken(tmp_path_factory.mktemp("whole") / "lab", api, "image", rows)
    assert cells(lab) == whole
    assert answered <= rows + (concurrency + SLACK) * len(numbers)
    assert lab.run("verify", job).returncode == 0


@pytest.mark.parametrize("when", ["1", "4", "8+"])
@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_a_failed_sync_ends_the_run(lab: Lab, call: str, when: str) -> None:
    """P03 A failed fsync ends the run with 74 and a sentence; the same command goes on when the
    disk is well again."""
    with serving() as api:
        job = write_job(lab, api.url, "image", rows=12, concurrency=2)
        done = tampered(lab, job, call, f"error=EIO:when={when}")
        assert done.returncode == 74, done.stderr
        assert "run again" in done.stderr
        assert "Traceback" not in done.stderr
        before = api.requests.answered
        assert run(job).exit_code == 0
        # What was not recorded is in flight at the most.
        assert owed(api, before) + before <= 12 + 2 + SLACK
    assert [row["status"] for row in lab.table()] == ["succeeded"] * 12
