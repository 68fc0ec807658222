"""Runs in a process that may be killed: forked from a server that has everything imported, so that each costs little."""

from __future__ import annotations

import multiprocessing
import os
import resource
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["batchgen.runner", "batchgen.dispatch.online", "batchgen.tables"])


def child(job: Path, *, key: str, room: int | None = None) -> BaseProcess:
    """A started run of a job in a process of its own; no file of it may grow beyond `room` bytes."""
    process = CONTEXT.Process(target=_run, args=(str(job), key, room))
    process.start()
    return process


def _run(job: str, key: str, room: int | None) -> None:
    from batchgen import BatchgenError, load_job, run

    os.environ["OPENAI_API_KEY"] = key
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        code = run(load_job(job)).exit_code
    except BatchgenError as error:
        code = error.exit_code
    os._exit(code)
