"""What a person sees at the end of a run, at a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lab import Lab

from batchgen.cli.summary import summary
from batchgen.simulator import Simulator


def block(lab: Lab, path: Path, monkeypatch: pytest.MonkeyPatch, *, columns: int = 80) -> list[str]:
    """The lines of the block after a run, without colours."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(lab.folder)
    text = summary(lab.go(path), lab.load(path))
    return re.sub("\\x1b\\[[0-9;]*m", "", text).splitlines()


def test_a_run_that_is_done(lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts, what it took, and the files to open, relative to where the person is."""
    lines = block(lab, lab.job(api.url), monkeypatch)
    assert lines[:2] == ["job", "  rows      5: 5 succeeded"]
    assert any(line.startswith("  took      5 calls, ") for line in lines)
    assert lines[-2:] == [
        "  answers   outputs/job/results.csv",
        "  look      outputs/job/report.html",
    ]


def test_what_went_wrong_and_what_to_do(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why rows have no whole answer is in words, with the errors table and the next command."""
    (lab.folder / "prompts.csv").write_text(
        "id,text\na,[policy] x\nb,[truncate]\nc,ECHO:y\n", encoding="utf-8"
    )
    lines = block(lab, lab.job(api.url, rows=None), monkeypatch)
    text = "\n".join(lines)
    assert "refused by the server's content policy (policy)" in text
    assert "  errors    outputs/job/errors.csv" in lines
    assert any(re.search(r"batchgen redo \S*job\.yaml --failed$", line) for line in lines)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_is_cut(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Sentences are wrapped to the terminal; a path or a command stays in one piece, so that it
    can be copied.
    """
    lines = block(lab, lab.job(api.url, name="a" * 60), monkeypatch, columns=columns)
    for line in lines:
        assert len(line) <= columns or "outputs/" in line or "batchgen " in line or line in "a" * 60
    assert f"outputs/{'a' * 60}/results.csv" in "\n".join(lines)


def test_a_servers_word_controls_no_terminal(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P32 A reason that a server made up is printed without its control characters."""
    from dataclasses import replace

    path = lab.job(api.url)
    monkeypatch.chdir(lab.folder)
    report = lab.go(path)
    wrong = replace(
        report,
        rows={"incomplete": 5},
        job=replace(report.job, failures={"\x1b[2Jgone\u202e": 5}),
    )
    text = summary(wrong, lab.load(path))
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_a_terminal_gets_a_block_and_a_pipe_one_line(lab: Lab, api: Simulator) -> None:
    """At a terminal the summary is a block; in a pipe, a log or a mail of cron it is one line."""
    path = lab.job(api.url)
    piped = lab.run("run", path)
    assert len(piped.stdout.splitlines()) == 1
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "batchgen", "run", str(path)],
        cwd=lab.folder,
        env={**lab.environ(), "COLUMNS": "80", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    process.communicate()
    assert "  rows      5: 5 succeeded" in shown.decode().replace("\r", "").splitlines()
