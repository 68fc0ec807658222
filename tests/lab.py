"""What most tests need: a simulated API on a socket, a folder with jobs, and the command."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fork_server

import batchgen
from batchgen import Job, Options, Report, load_job
from batchgen.simulator import RequestInfo, Settings, Simulator

KEY = "sk-test-0123456789abcdefghij"
Script = Callable[[RequestInfo], str | None]


class Server:
    """A server of asyncio's in a thread of its own; `start` and `stop` are its coroutines."""

    def __init__(self, start: Callable[[], Any], stop: Callable[[], Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stop = stop
        self.call(start)

    def call(self, make: Callable[[], Any]) -> Any:
        """The result of a coroutine run in the server's loop."""
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(30)

    def close(self) -> None:
        self.call(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def serving(
    settings: Settings | None = None, script: Script | None = None, **options: Any
) -> Iterator[Simulator]:
    """The simulated API, in another thread while the block runs; `options` are Simulator's."""
    simulator = Simulator(settings or Settings(), script=script, **options)
    server = Server(simulator.start, simulator.stop)
    try:
        yield simulator
    finally:
        server.close()


@contextmanager
def stalling() -> Iterator[tuple[Simulator, threading.Event, threading.Event]]:
    """A server that holds its answers, the event that a request has come, and the release."""
    arrived, released = threading.Event(), threading.Event()

    def script(request: RequestInfo) -> str | None:
        arrived.set()
        released.wait(60)
        return None

    with serving(script=script) as api:
        try:
            yield api, arrived, released
        finally:
            released.set()


@dataclass
class Lab:
    """A folder with jobs: `job` writes one, `run` runs batchgen in a new process."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def prompts(self, rows: int = 5, name: str = "prompts.csv") -> Path:
        """A CSV with columns id and text; the model echoes `answer N`."""
        path = self.folder / name
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            writer.writerows([f"r{n}", f"ECHO:answer {n}"] for n in range(1, rows + 1))
        return path

    def job(
        self, url: str | None = None, name: str = "job", rows: int | None = 5, **parts: Any
    ) -> Path:
        """A chat job over `prompts`; `parts` replace its top-level keys.

        With a number of `rows`, the prompts are written as well.
        """
        if rows is not None and "prompts" not in parts:
            self.prompts(rows)
        job: dict[str, Any] = {
            "kind": "chat",
            "prompts": {"path": "prompts.csv", "id": "id"},
            "request": {
                "model": "gpt-5.6-luna",
                "messages": [{"role": "user", "content": "{{ text }}"}],
                "max_completion_tokens": 100,
            },
        }
        if url is not None:
            job["provider"] = {"base_url": url}
        job |= parts
        path = self.folder / f"{name}.yaml"
        # JSON is YAML, and says exactly what is meant.
        path.write_text(json.dumps(job, indent=1), encoding="utf-8")
        return path

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a run: nothing but paths, a home, the state of this test, a key."""
        kept = {
            name: os.environ[name]
            for name in ("PATH", "LANG", "PYTHONPATH", "XDG_STATE_HOME")
            if name in os.environ
        }
        return {**kept, "HOME": str(self.folder), "OPENAI_API_KEY": KEY, **self.env, **more}

    def run(
        self,
        *args: object,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run `batchgen ARGS` and wait for it."""
        environ = self.environ() if env is None else env
        if stdin is None and fork_server.can_fork(environ):
            return fork_server.run([*map(str, args)], self.folder, environ, timeout)
        return subprocess.run(
            [sys.executable, "-m", "batchgen", *map(str, args)],
            cwd=self.folder,
            env=dict(environ),
            input=None if stdin is None else stdin.decode(),
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )

    def load(self, job: Path) -> Job:
        """A job of this folder, loaded in this process with the environment of `environ`."""
        return load_job(job, environ=self.environ())

    def go(self, job: Path, **options: Any) -> Report:
        """Run a job in this process: a second quicker than `run`, for tests that run often."""
        return batchgen.run(self.load(job), Options(**options))

    def start(self, *args: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start `batchgen ARGS` and go on."""
        defaults: dict[str, Any] = {
            "cwd": self.folder,
            "env": self.environ(),
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "encoding": "utf-8",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "batchgen", *map(str, args)], **{**defaults, **options}
        )

    def output(self, name: str = "job", *, simulated: bool = False) -> Path:
        """The output folder of a job in this folder."""
        return self.folder / "outputs" / (name + (".simulated" if simulated else ""))

    def table(
        self, name: str = "job", which: str = "results", *, simulated: bool = False
    ) -> list[dict[str, str]]:
        """A CSV table as a list of rows."""
        path = self.output(name, simulated=simulated) / f"{which}.csv"
        with open(path, encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
