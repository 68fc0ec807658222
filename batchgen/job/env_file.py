"""The environment of a job: that of the process, over the nearest `.env` that can be trusted.

Whoever writes a `.env` may name the server, which gets the key and the prompts. So a file that
another user may have put there is not read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The variables of a job.

    values: the variables; they hold secrets.
    notes: why each `.env` that was found and not read was not.
    server_from: the `.env` that sets OPENAI_BASE_URL; None if the process or nothing sets it.
    """

    values: Mapping[str, str]
    notes: tuple[str, ...] = ()
    server_from: Path | None = None


def environment(
    folder: Path, environ: Mapping[str, str], *, job_file: Path | None = None
) -> Environment:
    """`environ` over the nearest `.env` in the folder or above it.

    A `.env` is not read if it, or its folder, can be written by every user, or if it belongs to
    neither root, nor this user, nor the owner of the `job_file`, who may name the server anyway.
    """
    notes = []
    for path in (up / ".env" for up in (folder, *folder.parents)):
        try:
            if not path.is_file():
                continue
            if reason := _suspicion(path, job_file):
                notes.append(f"{path} is not read: {reason}")
                continue
            named = _read(path)
        except (OSError, UnicodeDecodeError) as error:
            if isinstance(error, PermissionError) and not os.access(path.parent, os.X_OK):
                continue  # a folder that we have no right to search
            notes.append(f"{path} cannot be read: {_reason(error)}")
            break
        # An empty variable counts as unset, so it does not hide what the file says.
        stated = {
            name: value for name, value in environ.items() if value.strip() or name not in named
        }
        sets_server = named.get("OPENAI_BASE_URL", "").strip() and "OPENAI_BASE_URL" not in stated
        return Environment(
            values={**named, **stated},
            notes=tuple(notes),
            server_from=path if sets_server else None,
        )
    return Environment(values=dict(environ), notes=tuple(notes))


def _read(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8-sig")
    from dotenv import dotenv_values  # here, because imports are most of the start-up time

    values = dotenv_values(stream=StringIO(text), interpolate=False)
    return {name: value for name, value in values.items() if value is not None}


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return (error.strerror or "error").lower()


def _suspicion(path: Path, job_file: Path | None) -> str:
    """Why a file may come from a stranger, and what to do; "" if it cannot."""
    if os.name != "posix":
        return ""
    trusted = {0, os.geteuid()}
    if job_file is not None:
        trusted.add(job_file.stat().st_uid)
    # A link has an owner of its own.
    for status in (path.lstat(), path.stat()):
        if status.st_uid not in trusted:
            return f"it belongs to another user ({status.st_uid}); export the variables instead"
    for each, name in ((path.stat(), "it"), (path.parent.stat(), "its folder")):
        if each.st_mode & stat.S_IWOTH:
            where = path if name == "it" else path.parent
            return f"every user may write to {name}; move it, or: chmod o-w {where}"
    return ""
