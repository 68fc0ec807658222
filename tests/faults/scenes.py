"""What the fault tests share: jobs of several kinds, runs in this process, servers that kill, and
what a table says."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import KEY, Lab

import batchgen
from batchgen import Options, Report
from batchgen.simulator import RequestInfo, Simulator

# Calls that a crash may have to make again: what was in flight, and what the writer held.
SLACK = 16

Cells = list[tuple[str, ...]]


def write_job(
    lab: Lab, url: str, kind: str, *, rows: int, concurrency: int = 4, **parts: Any
) -> Path:
    """A job of a kind over `rows` rows: chat, conversation (three turns a row) or image."""
    parts = {
        "limits": {"concurrency": concurrency},
        "retry": {"attempts": 6, "max_wait": 0.01},
        **parts,
    }
    if kind == "chat":
        return lab.job(url, rows=rows, **parts)
    if kind == "conversation":
        lines = [
            json.dumps({"id": f"r{n}", "turns": [f"Question {n}.{turn}" for turn in (1, 2, 3)]})
            for n in range(rows)
        ]
        (lab.folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
        request = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "{{ turn }}"}]}
        prompts = {"path": "prompts.jsonl", "id": "id"}
        return lab.job(
            url, prompts=prompts, request=request, conversation={"turns": "turns"}, **parts
        )
    lab.prompts(rows)
    request = {"model": "gpt-image-2", "prompt": "{{ text }}", "size": "256x256"}
    return lab.job(url, rows=None, kind="image", request=request, **parts)


def run(job: Path, **options: Any) -> Report:
    """Run a job in this process, which has everything imported already."""
    os.environ["OPENAI_API_KEY"] = KEY
    return batchgen.run(batchgen.load_job(job), Options(**options))


def cells(lab: Lab, name: str = "job") -> Cells:
    """What must not depend on how often a run was broken: ids, order, status, text, and the
    pictures' bytes."""
    found: Cells = []
    for row in lab.table(name):
        picture = lab.output(name) / row["output"]
        digest = (
            hashlib.sha256(picture.read_bytes()).hexdigest()
            if row["output"].startswith("images/")
            else ""
        )
        found.append((row["id"], row["status"], row["output"], row.get("messages", ""), digest))
    return found


class Killer:
    """A simulator's script that kills a process (or does something else) when the k-th request of a
    run has come."""

    def __init__(self) -> None:
        self.act: Callable[[], None] = lambda: None
        self.after = 0
        self.fault: Callable[[RequestInfo], str | None] = lambda request: None
        self._came = 0
        self.reached = threading.Event()

    def arm(self, after: int, act: Callable[[], None] = lambda: None) -> None:
        """Do `act` once, on the server's thread, when `after` more requests have come."""
        self.after, self.act, self._came = after, act, 0
        self.reached.clear()

    def __call__(self, request: RequestInfo) -> str | None:
        self._came += 1
        if self._came == self.after:
            self.act()
            self.reached.set()
        return self.fault(request)


def killed(lab: Lab, job: Path, killer: Killer, after: int) -> int:
    """Run a job's command and kill -9 it when the server has `after` requests of it; returns its
    return code."""
    began = threading.Event()
    process: list[subprocess.Popen[str]] = []

    def kill() -> None:
        began.wait(30)
        process[0].send_signal(signal.SIGKILL)

    killer.arm(after, kill)
    process.append(lab.start("run", job))
    began.set()
    process[0].communicate(timeout=60)
    return process[0].returncode


def at_most(size: int) -> Callable[[], None]:
    """For preexec_fn: no file of the process may grow beyond `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[None]:
    """A small file system at `path`; raises PermissionError where one may not mount."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        raise PermissionError("there is no mount here") from None
    if done.returncode:
        raise PermissionError(done.stderr.decode())
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


def remount(path: Path, options: str) -> None:
    """Change a mounted file system's options."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


def owed(simulator: Simulator, before: int) -> int:
    """Answers that the server has given (and would have billed) since `before`."""
    return simulator.requests.answered - before


def table_ids(path: Path) -> list[str]:
    """The ids of a CSV table."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        return [row["id"] for row in csv.DictReader(file)]
