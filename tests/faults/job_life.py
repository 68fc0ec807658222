"""A job's life as a state machine: rows and settings change, runs fail, crash and resume."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import tempfile
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from children import child
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lab import KEY, Lab, Server
from scenes import Killer, run

from batchgen import load_job, maintenance, queries
from batchgen.simulator import RequestInfo, Settings, Simulator

# What a server may do to a request that passes when it is tried again, and what ends its row.
PASSING = ("500", "reset", "truncated", "wrong_json", "html")
FAULTS = (*PASSING, "400_policy")
KNOWN = {
    "journal.db",
    "results.csv",
    "errors.csv",
    "report.json",
    "report.html",
    "run.log",
    # A run that is killed leaves it; nobody believes it without the lock.
    "running.json",
    ".lock",
}


class Life(RuleBasedStateMachine):
    """One job in one folder, against one server."""

    def __init__(self) -> None:
        super().__init__()
        self.killer = Killer()
        self.api = self.simulator()
        self.server = Server(self.api.start, self.api.stop)
        self.folder = Path(tempfile.mkdtemp(prefix="life-"))
        self.lab = Lab(self.folder)
        self.rows: dict[str, str] = {}
        self.words = "Say"
        self.concurrency = 3
        self.born = 0
        self.tabled = False

    def simulator(self) -> Simulator:
        return Simulator(Settings(key=KEY), script=self.killer)

    def teardown(self) -> None:
        try:
            if self.rows:
                self.live_on()
        finally:
            self.server.close()
            shutil.rmtree(self.folder)

    def live_on(self) -> None:
        """Without faults, and with failed rows marked to run again, everything succeeds.

        The run after that calls nothing.
        """
        self.killer.fault = lambda request: None
        self.killer.arm(0)
        self.write()
        run(self.job)
        maintenance.redo(load_job(self.job), statuses={"failed"})
        assert run(self.job).rows == {"succeeded": len(self.rows)}
        called = self.api.requests.received
        assert run(self.job).exit_code == 0
        assert self.api.requests.received == called
        assert [(row["id"], row["text"], row["output"]) for row in self.lab.table()] == [
            (name, text, text.removeprefix("ECHO:")) for name, text in self.rows.items()
        ]
        assert maintenance.verify(load_job(self.job)) == []

    def write(self, **parts: Any) -> None:
        """The job and its prompts as they are now."""
        with open(self.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id", "text"), *self.rows.items()])
        messages = [
            {"role": "system", "content": self.words},
            {"role": "user", "content": "{{ text }}"},
        ]
        self.job = self.lab.job(
            self.api.url,
            rows=None,
            request={"model": "gpt-5.6-luna", "messages": messages},
            limits={"concurrency": self.concurrency},
            retry={"attempts": 2, "max_wait": 0.01},
            **parts,
        )

    def child(self, room: int | None = None) -> BaseProcess:
        """A run in a process of its own."""
        self.write()
        return child(self.job, key=KEY, room=room)

    # -- what people do ---

    @initialize(count=st.integers(1, 8))
    def begin(self, count: int) -> None:
        self.add(count)

    @rule()
    def add_a_row(self) -> None:
        self.add(1)

    def add(self, count: int) -> None:
        for _ in range(count):
            self.born += 1
            self.rows[f"r{self.born}"] = f"ECHO:first {self.born}"

    @rule(pick=st.integers(0, 99), version=st.integers(1, 3))
    def edit_a_row(self, pick: int, version: int) -> None:
        name = list(self.rows)[pick % len(self.rows)]
        self.rows[name] = f"ECHO:version {version} of {name}"

    @precondition(lambda self: len(self.rows) > 1)
    @rule(pick=st.integers(0, 99))
    def remove_a_row(self, pick: int) -> None:
        del self.rows[list(self.rows)[pick % len(self.rows)]]

    @rule()
    def turn_the_rows_round(self) -> None:
        self.rows = dict(reversed(self.rows.items()))

    @rule(words=st.sampled_from(["Say", "Tell"]))
    def edit_the_job(self, words: str) -> None:
        self.words = words

    @rule(concurrency=st.integers(1, 6))
    def change_the_limits(self, concurrency: int) -> None:
        self.concurrency = concurrency

    @precondition(lambda self: self.tabled)
    @rule(status=st.sampled_from(["succeeded", "failed"]))
    def redo(self, status: str) -> None:
        maintenance.redo(load_job(self.job), statuses={status})

    # -- what happens to runs ---

    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=3))
    def run_with_faults(self, faults: list[str]) -> None:
        self.add(len(faults))
        self.write()
        self.killer.arm(0)
        self.killer.fault = lambda request: faults.pop() if faults else None
        report = run(self.job)
        self.tabled = True
        assert report.exit_code in (0, 3)
        assert report.total == sum(report.rows.values()) == len(self.rows)

    @rule(after=st.integers(1, 6), faults=st.lists(st.sampled_from(PASSING), max_size=2))
    def crash(self, after: int, faults: list[str]) -> None:
        self.add(6)
        started = threading.Event()
        processes: list[BaseProcess] = []

        def kill() -> None:
            started.wait(30)
            processes[0].kill()

        def fault(request: RequestInfo) -> str | None:
            return faults.pop() if faults else None

        self.killer.fault = fault
        self.killer.arm(after, kill)
        processes.append(self.child())
        started.set()
        processes[0].join(60)
        assert processes[0].exitcode in (-9, 0, 3)

    @rule(after=st.integers(1, 6))
    def cancel(self, after: int) -> None:
        self.add(6)
        self.write()
        if threading.current_thread() is not threading.main_thread():
            return
        self.killer.fault = lambda request: None
        self.killer.arm(after, lambda: os.kill(os.getpid(), signal.SIGINT))
        report = run(self.job)
        self.tabled = True
        ended = 0 if report.rows == {"succeeded": report.total} else 3
        assert report.exit_code == (130 if self.killer.reached.is_set() else ended)

    @rule(room=st.integers(20_000, 200_000))
    def fill_the_disk(self, room: int) -> None:
        self.add(6)
        self.killer.fault = lambda request: None
        self.killer.arm(0)
        process = self.child(room)
        process.join(60)
        assert process.exitcode in (0, 3, 74)

    # -- what always holds ---

    @invariant()
    def one_answer_for_a_done_row(self) -> None:
        """Every row has one status, they sum up, and no row is in both tables."""
        if not self.tabled:
            return
        found = queries.status(load_job(self.job))
        assert sum(found["rows"].values()) == found["total"]
        results, errors = self.lab.table(), self.lab.table(which="errors")
        assert len({row["id"] for row in results}) == len(results)
        done = {row["id"] for row in results if row["status"] == "succeeded"}
        assert done.isdisjoint(row["id"] for row in errors)
        # The echo of the row's own text, whatever was asked under that id before.
        assert all(
            row["output"] == row["text"].removeprefix("ECHO:")
            for row in results
            if row["status"] == "succeeded"
        )

    @invariant()
    def tables_can_be_made_again(self) -> None:
        if not self.tabled:
            return
        tables = [self.lab.output() / name for name in ("results.csv", "errors.csv")]
        job = load_job(self.job)
        maintenance.export(job)
        before = [table.read_bytes() for table in tables]
        for table in tables:
            table.unlink()
        maintenance.export(job)
        assert [table.read_bytes() for table in tables] == before

    @invariant()
    def nothing_lies_elsewhere(self) -> None:
        """No file outside the job's folder, none unknown in it, and the key in none of them."""
        for path in self.folder.rglob("*"):
            parts = path.relative_to(self.folder).parts
            if parts[:2] == ("outputs", "job") and len(parts) > 2:
                name = parts[2]
                # A process that is killed may leave what it was about to rename, and SQLite's log.
                assert name in KNOWN or name.startswith(("journal.db-", ".")), name
            else:
                assert parts in (
                    ("prompts.csv",),
                    ("job.yaml",),
                    ("outputs",),
                    ("outputs", "job"),
                ), parts
            if path.is_file():
                assert KEY.encode() not in path.read_bytes()
