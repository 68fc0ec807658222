"""A disk that is full, or an output folder that cannot be written: a sentence, exit 74, nothing
recorded is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from lab import Lab, serving
from scenes import Killer, at_most, cells, remount, run, tmpfs, write_job

from batchgen import OutputError
from batchgen.simulator import Simulator


def assert_explained(stderr: str) -> None:
    """One sentence that says what to do, and no traceback."""
    assert "run again" in stderr
    assert "Traceback" not in stderr
    assert "a bug" not in stderr


def succeeded(lab: Lab, job: Path) -> int:
    """Rows that the journal has an answer for."""
    done = lab.run("status", job)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split(" succeeded")[0].split()[-1]) if " succeeded" in done.stdout else 0


def test_a_journal_that_may_not_grow(lab: Lab, api: Simulator) -> None:
    """P03 Disk full (RLIMIT_FSIZE) in the middle: exit 74, nothing recorded is lost, the same
    command goes on with room."""
    rows = 300
    job = write_job(lab, api.url, "chat", rows=rows)
    done = lab.start("run", job, preexec_fn=at_most(400_000))
    _, stderr = done.communicate(timeout=60)
    assert done.returncode == 74, stderr
    assert_explained(stderr)
    kept, called = succeeded(lab, job), api.requests.answered
    assert 0 < kept < rows
    # What was answered and not recorded was in flight.
    assert called - kept <= 4 + 16
    assert run(job).exit_code == 0
    assert api.requests.answered == called + rows - kept
    assert [row[:3] for row in cells(lab)] == [
        (f"r{n}", "succeeded", f"answer {n}") for n in range(1, rows + 1)
    ]


def test_tables_that_do_not_fit(lab: Lab, api: Simulator) -> None:
    """P03 P04 With no room for the tables the old ones stay as they were, exit 74; with room the
    same command makes them."""
    job = write_job(lab, api.url, "chat", rows=300)
    assert run(job).exit_code == 0
    table = lab.output() / "results.csv"
    before, called = table.read_bytes(), api.requests.received
    job = write_job(
        lab, api.url, "chat", rows=300, output={"columns": {"length": "{{ output | length }}"}}
    )
    done = lab.start("run", job, preexec_fn=at_most(len(before) // 2))
    _, stderr = done.communicate(timeout=60)
    assert done.returncode == 74, stderr
    assert_explained(stderr)
    assert table.read_bytes() == before
    assert not list(lab.output().glob(".*.tmp"))
    assert run(job).exit_code == 0
    assert {row["length"] for row in lab.table()} == {"8", "9", "10"}
    assert api.requests.received == called


@pytest.fixture
def small(lab: Lab) -> Path:
    """Where a small file system may be mounted."""
    try:
        with tmpfs(lab.folder / "tried", "64k"):
            pass
    except PermissionError as error:
        pytest.skip(f"no tmpfs may be mounted here: {error}")
    return lab.folder / "small"


@pytest.mark.parametrize(("kind", "rows", "size"), [("chat", 300, "1200k"), ("image", 40, "700k")])
def test_a_full_file_system(
    lab: Lab, api: Simulator, small: Path, kind: str, rows: int, size: str
) -> None:
    """P03 A file system that fills up: exit 74, nothing recorded is lost, and the same folder goes
    on once it is larger."""
    with tmpfs(small, size):
        job = write_job(lab, api.url, kind, rows=rows, output={"dir": str(small / "job")})
        done = lab.run("run", job)
        assert done.returncode == 74, done.stderr
        assert_explained(done.stderr)
        kept, called = succeeded(lab, job), api.requests.answered
        assert 0 < kept < rows
        assert called - kept <= 4 + 16
        remount(small, "size=32m")
        again = lab.run("run", job)
        assert again.returncode == 0, again.stderr
        assert api.requests.answered == called + rows - kept
        assert succeeded(lab, job) == rows
        assert lab.run("verify", job).returncode == 0


def test_pictures_that_do_not_fit(lab: Lab, api: Simulator, small: Path) -> None:
    """P03 No room for a picture: exit 74, and no row is done without its whole picture."""
    job = write_job(lab, api.url, "image", rows=30)
    with tmpfs(lab.output() / "images", "40k"):
        done = lab.run("run", job)
        assert done.returncode == 74, done.stderr
        assert_explained(done.stderr)
        kept = succeeded(lab, job)
        assert kept < 30
        assert lab.run("verify", job).returncode == 0
        remount(lab.output() / "images", "size=32m")
        assert run(job).exit_code == 0
        assert len(cells(lab)) == 30


def a_file(lab: Lab) -> None:
    """A file where the job's folder should be."""
    lab.output().parent.mkdir()
    lab.output().write_text("mine")


def a_file_above(lab: Lab) -> None:
    """A file where the outputs folder should be."""
    lab.output().parent.write_text("mine")


def a_link(lab: Lab) -> None:
    """A link out of the outputs folder."""
    (lab.folder / "elsewhere").mkdir()
    lab.output().parent.mkdir()
    lab.output().symlink_to(lab.folder / "elsewhere")


def a_linked_journal(lab: Lab) -> None:
    """A link in the place of the journal."""
    lab.output().mkdir(parents=True)
    (lab.output() / "journal.db").symlink_to(lab.folder / "other.db")


@pytest.mark.parametrize("spoil", [a_file, a_file_above, a_link, a_linked_journal])
def test_an_output_that_cannot_be_written(lab: Lab, api: Simulator, spoil: object) -> None:
    """P05 P34 An output folder that cannot be written is found before the first call."""
    assert callable(spoil)
    spoil(lab)
    job = write_job(lab, api.url, "chat", rows=3)
    with pytest.raises(OutputError):
        run(job)
    assert api.requests.received == 0
    assert not (lab.folder / "other.db").exists()


@pytest.mark.parametrize("kind", ["chat", "image"])
def test_a_read_only_file_system(lab: Lab, api: Simulator, small: Path, kind: str) -> None:
    """P05 A file system that became read-only is found before the first call, with a journal on it
    or without."""
    job = write_job(lab, api.url, kind, rows=6, output={"dir": str(small / "job")})
    with tmpfs(small, "8m"):
        for limit in (None, 3):
            remount(small, "ro")
            called = api.requests.received
            done = lab.run("run", job)
            assert (done.returncode, api.requests.received) == (74, called), done.stderr
            assert "cannot be written" in done.stderr
            remount(small, "rw")
            if limit:
                assert run(job, limit=limit).exit_code == 0


def test_a_full_disk_before_the_first_call(lab: Lab, api: Simulator, small: Path) -> None:
    """P05 A disk without room for the journal is found before the first call."""
    job = write_job(lab, api.url, "chat", rows=3, output={"dir": str(small / "job")})
    with tmpfs(small, "64k"):
        (small / "ballast").write_bytes(random.randbytes(60_000))
        done = lab.run("run", job)
        assert (done.returncode, api.requests.received) == (74, 0), done.stderr
        assert_explained(done.stderr)


def test_a_disk_that_fills_while_calls_are_in_flight(lab: Lab, small: Path) -> None:
    """P03 Filled by somebody else in the middle: what was recorded until then is in the tables of
    the run that goes on."""
    killer = Killer()
    with serving(script=killer) as api, tmpfs(small, "4m"):
        job = write_job(lab, api.url, "chat", rows=60, output={"dir": str(small / "job")})
        ballast = small / "ballast"

        def fill() -> None:
            with open(ballast, "wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096) == 4096:
                        pass
                except OSError:
                    pass

        killer.arm(20, fill)
        done = lab.run("run", job)
        assert done.returncode in (0, 74), done.stderr
        killer.arm(0)
        ballast.unlink()
        again = lab.run("run", job)
        assert again.returncode == 0, again.stderr
        assert succeeded(lab, job) == 60
        assert api.requests.answered <= 60 + 4 + 16
