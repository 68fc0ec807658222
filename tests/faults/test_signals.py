"""Signals, two runs at once, closed output, a stopped process, a clock that jumps."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from lab import Lab, serving
from scenes import Killer, at_most, run, write_job

from batchgen import BusyError, Options, RunInterruptedError, disk, load_job, signals
from batchgen import run as run_job
from batchgen.simulator import RequestInfo, Settings, Simulator
from batchgen.tables import Tables
from batchgen.tables.build import Records

EXITS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
HANGING = Settings(hang=120)


def statuses(lab: Lab) -> Counter[str]:
    """The results table's rows by status."""
    return Counter(row["status"] for row in lab.table())


def hang_from(number: int) -> Callable[[RequestInfo], str | None]:
    """Answers until the `number`-th request; that one and the later ones get nothing."""
    count = itertools.count(1)
    return lambda request: "hang" if next(count) >= number else None


def first_thread() -> None:
    """Signal handlers need the main thread."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("tests run outside the main thread here")


# -- two at once -----------------------------------------------------------------------------------


def test_two_runs_of_one_job(lab: Lab) -> None:
    """P06 The second run exits with 75 at once and sends nothing; kill -9 of the first frees the
    lock.
    """
    killer = Killer()
    killer.fault = lambda request: "hang"
    killer.arm(2)
    with serving(HANGING, killer) as api:
        job = write_job(lab, api.url, "chat", rows=4, concurrency=2)
        first = lab.start("run", job)
        try:
            assert killer.reached.wait(30)
            called = api.requests.received
            second = lab.run("run", job)
            assert (second.returncode, api.requests.received) == (75, called), second.stderr
            assert "another process is running this job" in second.stderr
            with pytest.raises(BusyError):
                run(job)
        finally:
            first.kill()
            first.communicate()
        killer.fault = lambda request: None
        assert run(job).exit_code == 0


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", EXITS)
def test_the_first_signal_drains(lab: Lab, number: signal.Signals) -> None:
    """P14 The first signal: no new work, calls in flight are answered and recorded, tables are
    written, exit 130 or 143.
    """
    killer = Killer()
    killer.arm(10)
    with serving(Settings(latency=0.3), killer) as api:
        job = write_job(lab, api.url, "chat", rows=200, concurrency=8)
        process = lab.start("run", job)
        assert killer.reached.wait(30)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == EXITS[number], errors
        received, answered = api.requests.received, api.requests.answered
        assert received == answered < 200
        assert statuses(lab) == {"succeeded": answered, "pending": 200 - answered}
        assert f"{answered} succeeded" in output
        assert number.name in errors
        killer.arm(0)
        api.settings = Settings()
        assert run(job).exit_code == 0
        assert api.requests.received == 200


@pytest.mark.parametrize("pair", [(signal.SIGINT, signal.SIGTERM), (signal.SIGHUP, signal.SIGTERM)])
def test_the_second_signal_ends_it(lab: Lab, pair: tuple[signal.Signals, signal.Signals]) -> None:
    """P14 The second signal ends the run at once, without losing a recorded answer."""
    killer = Killer()
    killer.fault = hang_from(4)
    # Workers wait for their commit: when the sixth request comes, three answers are durable.
    killer.arm(6)
    with serving(HANGING, killer) as api:
        job = write_job(lab, api.url, "chat", rows=9, concurrency=3)
        process = lab.start("run", job)
        assert killer.reached.wait(30)
        for number in pair:
            process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == EXITS[pair[0]], errors
        assert "Traceback" not in errors
        assert statuses(lab) == {"succeeded": 3, "pending": 6}
        killer.fault = lambda request: None
        assert run(job).exit_code == 0
        assert api.requests.answered == 9


def test_the_second_interrupt_ends_it(lab: Lab) -> None:
    """P14 Ctrl-C twice: the second ends the run at once, without waiting for the calls in flight to
    time out.
    """
    killer = Killer()
    killer.fault = hang_from(4)
    killer.arm(6)
    with serving(HANGING, killer) as api:
        process = lab.start("run", write_job(lab, api.url, "chat", rows=9, concurrency=3))
        assert killer.reached.wait(30)
        # Two signals that come together are one to the kernel.
        for seconds in (1, 20):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        _, errors = process.communicate(timeout=1)
        killer.fault = lambda request: None
    assert process.returncode == 130, errors
    assert statuses(lab) == {"succeeded": 3, "pending": 6}


def test_the_drain_after_sigterm_is_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P14 After SIGTERM calls in flight have 25 s at most; then the tables are written."""
    first_thread()
    assert signals.DRAIN == 25.0
    monkeypatch.setattr(signals, "DRAIN", 0.05)
    killer = Killer()
    killer.fault = hang_from(4)
    killer.arm(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with serving(HANGING, killer) as api:
        job = write_job(lab, api.url, "chat", rows=9, concurrency=3)
        report = run(job)
    assert report.exit_code == 143
    assert report.stopped is not None
    assert "SIGTERM" in report.stopped
    assert statuses(lab) == {"succeeded": 3, "pending": 6}


def test_a_signal_while_the_prompts_are_read(lab: Lab, api: Simulator) -> None:
    """P14 A signal during staging ends it at once; nothing is staged or sent, and the same command
    starts afresh.
    """
    prompts = {"path": "-", "format": "csv", "id": "id"}
    job = lab.job(api.url, prompts=prompts, retry={"max_wait": 0.01})
    text = "id,text\n" + "".join(f"r{n},ECHO:{n} {'x' * 2000}\n" for n in range(200))
    process = lab.start("run", job, stdin=subprocess.PIPE)
    assert process.stdin is not None
    # A pipe holds far less: when this returns, pass 1 is reading.
    process.stdin.write(text)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, api.requests.received) == (130, 0), errors
    assert "SIGINT" in errors
    again = lab.run("run", job, stdin=b"id,text\na,ECHO:yes\n")
    assert again.returncode == 0, again.stderr
    assert [row["output"] for row in lab.table()] == ["yes"]


def test_a_signal_while_a_row_is_rendered(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P14 A signal inside a template, or inside code that catches errors there, is not taken for a
    fault of the row.
    """
    first_thread()
    job = write_job(lab, api.url, "chat", rows=5)
    loaded = load_job(job)
    from batchgen.requests import Renderer

    whole = Renderer.request

    def interrupted(*args: object, **kwargs: object) -> object:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Exception:
            pytest.fail("a signal was taken for a fault")
        return whole(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Renderer, "request", interrupted)
    with pytest.raises(RunInterruptedError) as caught:
        run_job(loaded, Options())
    assert caught.value.exit_code == 130
    monkeypatch.undo()
    assert run(job).exit_code == 0


def test_a_signal_while_the_tables_are_written(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P14 After a signal while the tables are written they are complete, and the exit code shows
    the signal.
    """
    first_thread()
    job, whole = write_job(lab, api.url, "chat", rows=5), Tables.write

    def interrupted(tables: Tables, folder: Path) -> list[Path]:
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(tables, folder)

    monkeypatch.setattr(Tables, "write", interrupted)
    report = run(job)
    assert (report.exit_code, statuses(lab)) == (143, {"succeeded": 5})
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_two_signals_while_the_tables_are_written(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P14 P04 The second signal while the tables are written ends the run at once and leaves no
    half table.
    """
    first_thread()
    job, whole = write_job(lab, api.url, "chat", rows=5), Records.result

    def interrupted(*args: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return whole(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Records, "result", interrupted)
    with pytest.raises(RunInterruptedError):
        run(job)
    assert [path.name for path in lab.output().iterdir() if path.suffix in (".csv", ".tmp")] == []
    monkeypatch.undo()
    assert run(job).exit_code == 0
    assert api.requests.received == 5


def test_a_signal_before_anything_is_sent(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P14 A signal between the start of the run and its first call: nothing is sent, tables are
    written.
    """
    first_thread()
    whole = disk.append_line

    def interrupted(path: Path, text: str) -> None:
        whole(path, text)
        if "began" in text:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("batchgen.session.session.append_line", interrupted)
    report = run(write_job(lab, api.url, "chat", rows=5))
    assert (report.exit_code, api.requests.received) == (130, 0)
    assert statuses(lab) == {"pending": 5}


def test_a_hangup_that_is_ignored(lab: Lab) -> None:
    """P14 Under nohup, or in the background of a script, a signal that the parent ignores stays
    ignored.
    """
    killer = Killer()
    killer.arm(3)
    with serving(Settings(latency=0.1), killer) as api:
        job = write_job(lab, api.url, "chat", rows=20)
        process = lab.start(
            "run", job, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
        )
        assert killer.reached.wait(30)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert statuses(lab) == {"succeeded": 20}


# -- output that nobody reads ----------------------------------------------------------------------


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_streams(lab: Lab, api: Simulator, closed: tuple[int, ...]) -> None:
    """P14 A closed stdout, stderr or stdin does not crash the run, and no file of the job gets its
    descriptor.
    """
    job = write_job(lab, api.url, "chat", rows=5)

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    process = lab.start("run", job, preexec_fn=close)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert statuses(lab) == {"succeeded": 5}
    assert lab.run("verify", job).returncode == 0


def test_a_reader_that_goes_away(lab: Lab, api: Simulator) -> None:
    """P14 stdout and stderr whose readers are gone (`| head`) do not crash the run."""
    job = write_job(lab, api.url, "chat", rows=5)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = lab.start("run", job, stdout=writer, stderr=writer)
        process.wait(60)
    finally:
        os.close(writer)
    assert process.returncode == 0
    assert statuses(lab) == {"succeeded": 5}


def test_a_log_that_is_full(lab: Lab, api: Simulator) -> None:
    """P14 A stderr that takes no more (a full log) does not end a run whose own files have room."""
    job = write_job(lab, api.url, "chat", rows=5)
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = lab.start("run", job, stderr=full)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert statuses(lab) == {"succeeded": 5}


def test_a_watcher_that_fails(lab: Lab, api: Simulator) -> None:
    """P14 If the progress callback fails, the run goes on."""

    def watch(*_: object) -> None:
        raise OSError("the terminal is gone")

    assert run(write_job(lab, api.url, "chat", rows=5), watch=watch, every=0.01).exit_code == 0


# -- time ------------------------------------------------------------------------------------------


def test_stopped_and_continued(lab: Lab) -> None:
    """P16 SIGSTOP during a run, and SIGCONT after every answer has been sent: all answers are
    taken, none is requested twice.
    """
    killer = Killer()
    holder: list[subprocess.Popen[str]] = []
    killer.arm(9, lambda: holder[0].send_signal(signal.SIGSTOP))
    with serving(Settings(latency=0.05), killer) as api:
        job = write_job(lab, api.url, "chat", rows=30)
        holder.append(lab.start("run", job))
        assert killer.reached.wait(30)
        os.waitid(os.P_PID, holder[0].pid, os.WSTOPPED | os.WNOWAIT)
        holder[0].send_signal(signal.SIGCONT)
        _, errors = holder[0].communicate(timeout=60)
        assert holder[0].returncode == 0, errors
        assert api.requests.answered == 30
    assert statuses(lab) == {"succeeded": 30}


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """P16 A wall clock that jumps by a day at every call breaks neither limits nor time-outs nor
    the order of events.
    """
    clock, jumps = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: clock() + step * next(jumps) % 1e9)
    limits = {
        "concurrency": 4,
        "requests_per_minute": 60_000,
        "tokens_per_minute": 10_000_000,
        "max_time": "1h",
    }
    job = write_job(lab, api.url, "chat", rows=40, limits=limits)
    assert run(job, limit=20).exit_code == 0
    assert run(job).exit_code == 0
    assert statuses(lab) == {"succeeded": 40}
    assert api.requests.received == 40


# -- where it is called from -----------------------------------------------------------------------


def test_from_a_notebook(lab: Lab, api: Simulator) -> None:
    """A run inside a running event loop (a notebook) works as anywhere else."""
    job = write_job(lab, api.url, "chat", rows=5)

    async def cell() -> int:
        return run(job).exit_code

    assert asyncio.run(cell()) == 0
    assert statuses(lab) == {"succeeded": 5}


def test_a_fault_of_the_disk_and_a_signal(lab: Lab) -> None:
    """P03 P14 A disk that fills up while a signal drains the run: exit 74 or 130, and nothing
    recorded is lost.
    """
    killer = Killer()
    holder: list[subprocess.Popen[str]] = []
    killer.arm(20, lambda: holder[0].send_signal(signal.SIGINT))
    with serving(script=killer) as api:
        job = write_job(lab, api.url, "chat", rows=300, concurrency=16)
        holder.append(lab.start("run", job, preexec_fn=at_most(400_000)))
        _, errors = holder[0].communicate(timeout=60)
        assert holder[0].returncode in (74, 130), errors
        assert "a bug" not in errors
        assert run(job).exit_code == 0
    assert statuses(lab) == {"succeeded": 300}
