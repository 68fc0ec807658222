"""`batchgen ARGS` in a process of its own that need not import anything: a fork of one that has.

Half of what a small run costs is importing openai. A run in a fork is like any other: its own
arguments, environment, folder and standard streams, and it ends as Python ends. Started as a
script, this file is the server: it takes a run on its socket, forks, and answers with the pid and
then the exit status.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

# What a run with a simulated API and a table needs.
PRELOADED = (
    "batchgen.cli.app",
    "batchgen.cli.run",
    "batchgen.runner",
    "batchgen.dispatch.api.client",
    "batchgen.dispatch.batches.client",
    "batchgen.page",
    "batchgen.simulator",
)
# Read by Python when it starts: a run that changes them wants a Python of its own.
_AT_START = ("LANG", "LC_", "PYTHON", "LD_", "TZ", "MALLOC_")
# The longest request: arguments and environment.
_MOST = 100_000


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether a fork of this process' Python is what a run with this environment would be."""

    def at_start(variables: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if name.startswith(_AT_START)}

    return at_start(env) == at_start(_environ())


def run(
    args: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `batchgen ARGS` and wait for it, as subprocess.run does; nothing is on its stdin.

    Raises TimeoutExpired, after the run is killed.
    """
    request = json.dumps({"args": list(args), "cwd": str(cwd), "env": dict(env)}).encode()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server,
        open(os.devnull, "rb") as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        server.connect(_server())
        files = [stdin.fileno(), stdout.fileno(), stderr.fileno()]
        socket.send_fds(server, [request], files)
        pid = int(server.recv(32))
        server.settimeout(timeout)
        try:
            status = os.waitstatus_to_exitcode(int(server.recv(32)))
        except TimeoutError:
            os.kill(pid, 9)
            raise subprocess.TimeoutExpired(list(args), timeout) from None
        return subprocess.CompletedProcess(list(args), status, _text(stdout), _text(stderr))


def _text(file: IO[bytes]) -> str:
    """What a run wrote, with line ends as subprocess gives them."""
    file.seek(0)
    return file.read().decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _environ() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}


@cache
def _server() -> str:
    """The address of the server; the first run starts it, and it ends with its stdin."""
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder / "s")],
        env=_environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    def stop() -> None:
        process.communicate()
        shutil.rmtree(folder)

    atexit.register(stop)
    return str(folder / "s")


def serve(address: str) -> None:
    """Answer until stdin ends; returns in each fork that is to be a run."""
    sys.path.pop(0)
    for module in PRELOADED:
        importlib.import_module(module)
    # What is here is shared with the forks as long as nobody touches it.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        os.write(1, b"ready\n")
        while select.select([0, listener.fileno()], [], [])[0] != [0]:
            connection = listener.accept()[0]
            if os.fork() == 0:
                listener.close()
                return _watch(connection)
            connection.close()
            _reap()
    os._exit(0)


def _watch(connection: socket.socket) -> None:
    """Fork once more and tell how that ends; returns in the fork."""
    request, files, _, _ = socket.recv_fds(connection, _MOST, 3)
    pid = os.fork()
    if pid == 0:
        connection.close()
        return _become(json.loads(request), files)
    connection.send(str(pid).encode())
    connection.send(str(os.waitpid(pid, 0)[1]).encode())
    os._exit(0)


def _become(request: dict[str, Any], files: Sequence[int]) -> None:
    """Take the streams, the folder, the environment and the arguments of a run."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["batchgen", *request["args"]]


def _reap() -> None:
    """Let go of the watchers that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    serve(sys.argv[1])
    from batchgen.cli import main

    main()
