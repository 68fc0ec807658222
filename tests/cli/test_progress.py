"""How a run shows how far it is: on terminals of any width, in logs, and when it is interrupted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import Lab, stalling
from tqdm.utils import disp_len

from batchgen.cli import progress
from batchgen.cli.progress_lines import progress_lines, progress_sentence
from batchgen.dispatch import Progress, Wait

# 2026-01-02 03:04:05 UTC, and a wait of 34 s.
NOW = 1_767_323_045.0
RETRY_AFTER = Wait(
    cause="Retry-After", reason="the server asked for it with Retry-After", until=NOW + 34
)
BEFORE = {"succeeded": 34, "pending": 4966}
WIDTHS = (60, 80, 120)


def state(**parts: object) -> Progress:
    """The progress of a run of 4,966 requests, a quarter of which have ended."""
    known: dict[str, object] = {
        "done": 1200,
        "failed": 3,
        "in_flight": 16,
        "to_send": 4966,
        "cost": 1_230_000_000,
        "cap": 5_000_000_000,
        "rate": 520.0,
    }
    return Progress(**{**known, **parts})  # type: ignore[arg-type]


def lines(width: int, name: str = "product-copy", **parts: object) -> tuple[str, str]:
    """The two lines without colours."""
    drawn = progress_lines(name, state(**parts), BEFORE, width=width, now=NOW)
    first, second = (re.sub(r"\x1b\[\d+m", "", line) for line in drawn)
    return first, second


@pytest.mark.parametrize("width", WIDTHS)
def test_counts_time_and_money_fit(width: int) -> None:
    """At 60 columns and more a run shows name, share, bar and time left; counts in words and what
    it has spent of its cap.
    """
    first, second = lines(width - 3)
    assert re.fullmatch(r"product-copy 25% █+░+ 7 min left", first)
    assert second.startswith("1,234/5,000 done, 3 failed, 16 in flight, $1.23 of $5.00")
    assert second.endswith("520 a minute") == (width > 60)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_wait_comes_first_with_its_end(width: int) -> None:
    """What a run waits for, and until when, is on its first line at any width of a terminal."""
    first, second = lines(width - 3, wait=RETRY_AFTER, in_flight=0)
    assert re.search(r"waiting until \d\d:\d\d:\d\d \(34 s\): .*Retry-After$", first)
    assert second.startswith("1,234/5,000 done, 3 failed, 7 min left")
    assert ("the server asked for it" in first) == (width > 60)


@pytest.mark.parametrize("width", WIDTHS)
def test_stopping_comes_first(width: int) -> None:
    """A run that stops says so on its first line, with the number of answers that are to come."""
    first, second = lines(width - 3, stopping=True)
    assert "stopping: waiting for 16 answers already paid for" in first
    assert "left" not in first + second


TEXTS = st.text("abc 商\x1b", min_size=1, max_size=40)
WAITS = st.none() | st.builds(
    Wait,
    cause=TEXTS,
    reason=TEXTS,
    until=st.none() | st.floats(min_value=NOW - 9, max_value=NOW + 1e6),
)


@given(
    width=st.integers(min_value=1, max_value=150),
    name=TEXTS,
    wait=WAITS,
    stopping=st.booleans(),
    numbers=st.tuples(*[st.integers(min_value=0, max_value=10**7)] * 5),
    cap=st.none() | st.integers(min_value=1, max_value=10**13),
    rate=st.none() | st.floats(min_value=0.01, max_value=1e6),
)
def test_no_line_is_wider_than_the_terminal(
    width: int,
    name: str,
    wait: Wait | None,
    stopping: bool,
    numbers: tuple[int, int, int, int, int],
    cap: int | None,
    rate: float | None,
) -> None:
    """Whatever a run has done, neither line passes the width or steers the terminal; and unless the
    width is too small for it, the number of rows that are done is shown.
    """
    done, failed, in_flight, to_send, cost = numbers
    how = state(
        done=done,
        failed=failed,
        in_flight=in_flight,
        to_send=to_send,
        cost=cost,
        cap=cap,
        rate=rate,
        wait=wait,
        stopping=stopping,
    )
    drawn = progress_lines(name, how, BEFORE, width=width, now=NOW)
    for line in drawn:
        assert disp_len(line) <= width
        assert "\x1b" not in re.sub(r"\x1b\[\d+m", "", line)
    if width >= 30:
        assert f"{done + 34:,}/" in drawn[1]


def test_long_silence_is_said() -> None:
    """A run whose calls are long without an answer does not look stuck."""
    assert "16 in flight, no answer for 45 s" in lines(120, silent_for=45.0)[1]
    assert "no answer" not in lines(120, silent_for=5.0)[1]


def watched(monkeypatch: pytest.MonkeyPatch, seen: list[tuple[float, Progress]]) -> list[str]:
    """What is printed without a terminal when a run stands so, so many seconds after its start."""
    printed: list[str] = []
    clock = SimpleNamespace(now=0.0)
    times = SimpleNamespace(monotonic=lambda: clock.now, time=lambda: NOW + clock.now)
    monkeypatch.setattr(progress, "time", times)
    monkeypatch.setattr(progress, "print_message", printed.append)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: False))
    with progress.watching("job", quiet=False) as (watch, _, _):
        assert watch is not None
        for clock.now, how in seen:
            watch(how, BEFORE)
    return printed


def test_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal there is a line every 30 seconds, and none for a shorter run."""
    line = "job: 1,234/5,000 done, 3 failed, 16 in flight, 7 min left, $1.23 of $5.00, 520 a minute"
    # The same line is not printed twice.
    seen = [(second, state()) for second in (0.0, 1.0, 29.0, 30.0, 31.0, 60.0)]
    assert watched(monkeypatch, seen) == [line]


def test_a_long_wait_is_told_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal a long wait is a line when it begins, a short one is none, and an outage
    with a probe now and then is no line for each of them.
    """
    waiting = state(wait=RETRY_AFTER, in_flight=0)
    printed = watched(monkeypatch, [(2.0, state()), (3.0, waiting), (4.0, waiting)])
    assert len(printed) == 1
    assert re.match(
        r"job: waiting until \d\d:\d\d:\d\d \(31 s\): the server asked for it with Retry-After; "
        r"1,234/5,000 done, 3 failed, ",
        printed[0],
    )
    short = state(wait=Wait(cause="retry", reason="one", until=NOW + 6))
    assert watched(monkeypatch, [(2.0, short)]) == []
    probes = [
        (float(at), state(wait=Wait(cause="outage", reason="down", until=NOW + at + 8)))
        for at in range(2, 29)
    ]
    assert len(watched(monkeypatch, probes)) == 1


def test_a_sentence_needs_no_width() -> None:
    """The line of a log has all that is known."""
    sentence = progress_sentence(state(stopping=True), BEFORE, NOW)
    assert sentence.startswith("stopping: waiting for 16 answers already paid for; 1,234/5,000")


def read_until(terminal: int, wanted: bytes) -> str:
    """What a process draws until `wanted` comes, or until it ends."""
    drawn = bytearray()
    while wanted not in drawn:
        try:
            drawn += os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side has closed
            break
    return drawn.decode()


def test_the_first_ctrl_c_says_what_is_awaited(lab: Lab) -> None:
    """P14 The first Ctrl-C at a terminal prints a whole line with the number of answers that are to
    come and what a second one does; the second says how many calls are broken off.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with stalling() as (api, arrived, _):
        job = lab.job(api.url, rows=9, limits={"concurrency": 3})
        env = lab.environ(TERM="xterm", NO_COLOR="1")
        with lab.start("run", job, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as run:
            os.close(theirs)
            assert arrived.wait(30)
            drawn = read_until(ours, b"0/9 done, 3 in flight")
            assert "3 in flight" in drawn
            run.send_signal(signal.SIGINT)
            drawn = read_until(ours, b"stops now")
            run.send_signal(signal.SIGINT)
            drawn += read_until(ours, b"\0")
        os.close(ours)
    assert run.returncode == 130
    assert "job: stopping: waiting for 3 answers already paid for; Ctrl-C again stops now" in drawn
    assert "job: stopping now: 3 calls broken off, which may be billed" in drawn
    assert "\x1b[3" not in drawn


def test_a_dumb_terminal_has_lines(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM=dumb, as in an editor's shell, is treated as a log: nothing is drawn in place."""
    from batchgen.cli.display import can_draw

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setenv("TERM", "dumb")
    assert not can_draw()
    monkeypatch.setenv("TERM", "xterm")
    assert can_draw()
