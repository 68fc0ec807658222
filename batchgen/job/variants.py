"""A job that the caller has changed: another mode, or other prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from batchgen.errors import InputError
from batchgen.job.model import NO_CONVERSATION_IN_BATCH, Job, Mode


def with_prompts(job: Job, path: str) -> Job:
    """The job with other prompts: a path relative to the working directory, or - for stdin."""
    copy = job.model_copy(
        update={"prompts": job.prompts.model_copy(update={"path": path, "job": None})}
    )
    copy._origin = replace(job._origin, prompts_folder=Path.cwd())
    return copy


def with_mode(job: Job, mode: Mode) -> Job:
    """The job with another mode. Raises InputError for a conversation in a batch."""
    if mode == "batch" and job.conversation is not None:
        raise InputError(
            [job.problem(("conversation",), f"conversation: {NO_CONVERSATION_IN_BATCH}")]
        )
    copy = job.model_copy(update={"mode": mode})
    copy._origin = job._origin
    return copy


def as_called(job: Job, *, mode: Mode | None, gives_rows: bool) -> Job:
    """The job as a caller in Python wants it.

    Args:
        job: the job.
        mode: replaces its mode (None: its own).
        gives_rows: whether the caller gives the rows, in place of the job's prompts.

    Raises InputError for a conversation in a batch.
    """
    if mode is not None:
        job = with_mode(job, mode)
    if not gives_rows:
        return job
    copy = job.model_copy(
        update={"prompts": job.prompts.model_copy(update={"path": None, "job": None})}
    )
    copy._origin = job._origin
    return copy
