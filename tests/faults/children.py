"""Runs in a process that may be killed, forked from a server with all imports so that each costs
little."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
_OWN = (
    "runner",
    "tables",
    *(
        f"dispatch.{name}"
        for name in ("online.backend", "batches.backend", "limits.shared", "api.client")
    ),
)
# What a run imports only when it needs it, too.
_OTHERS = (
    "genai_prices.data",
    "httpcore2",
    "h11",
    "anyio.streams.tls",
    "encodings.utf_8_sig",
    "encodings.ascii",
)
CONTEXT.set_forkserver_preload([*(f"batchgen.{name}" for name in _OWN), *_OTHERS])


def child(job: Path, *, key: str, room: int | None = None) -> BaseProcess:
    """Start a run of a job in a process of its own; no file of it may grow beyond `room` bytes."""
    process = CONTEXT.Process(target=_run, args=(str(job), key, room))
    process.start()
    return process


def killed_at(
    step: int,
    job: Path,
    *,
    key: str,
    command: str = "run",
    most_requests: int | None = None,
    room: int | None = None,
) -> int | None:
    """Run a command of a job in a process that kills itself at one step; returns the exit code.

    step: counted from 1, before and after each exchange, each commit, each input file that is
        made or removed, and each step of storing a picture
    job, key: the job file and the API key
    command: run or cancel
    most_requests: of an input file
    room: bytes beyond which no file may grow

    The exit code is -9 if the process was killed.
    """
    process = CONTEXT.Process(
        target=_stepped, args=(str(job), key, step, command, most_requests, room)
    )
    process.start()
    process.join(60)
    return process.exitcode


def _run(job: str, key: str, room: int | None) -> None:
    _go(job, key, "run", room)


def _stepped(
    job: str, key: str, step: int, command: str, most_requests: int | None, room: int | None
) -> None:
    from batchgen.dispatch.api.client import Client
    from batchgen.dispatch.batches import client, collect, input_file, poll
    from batchgen.images import PictureFolder
    from batchgen.journal.writer import Writer

    count = itertools.count(1)

    def pass_step() -> None:
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    client.BETWEEN_SEARCHES = poll.FIRST_POLL = collect.BETWEEN_FETCHES = 0.0
    input_file.MOST_REQUESTS = most_requests or input_file.MOST_REQUESTS
    for owner, name in ((Client, "call"), (Client, "upload"), (Client, "download")):
        setattr(owner, name, _awaited(getattr(owner, name), pass_step))
    for other, name in (
        (Writer, "_commit"),
        (input_file.BatchInputFile, "__init__"),
        (input_file.BatchInputFile, "finish"),
        (input_file.BatchInputFile, "discard"),
        (PictureFolder, "save"),
        (PictureFolder, "publish"),
        (PictureFolder, "_set_aside"),
    ):
        setattr(other, name, _called(getattr(other, name), pass_step))
    _go(job, key, command, room)


def _awaited(
    whole: Callable[..., Awaitable[Any]], pass_step: Callable[[], None]
) -> Callable[..., Awaitable[Any]]:
    async def stepped(*args: Any, **options: Any) -> Any:
        pass_step()
        result = await whole(*args, **options)
        pass_step()
        return result

    return stepped


def _called(whole: Callable[..., Any], pass_step: Callable[[], None]) -> Callable[..., Any]:
    def stepped(*args: Any, **options: Any) -> Any:
        pass_step()
        result = whole(*args, **options)
        pass_step()
        return result

    return stepped


def _go(job: str, key: str, command: str, room: int | None) -> None:
    from batchgen import BatchgenError, load_job, runner

    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    os.environ["OPENAI_API_KEY"] = key
    try:
        code = getattr(runner, command)(load_job(job)).exit_code
    except BatchgenError as error:
        code = error.exit_code
    os._exit(code)
