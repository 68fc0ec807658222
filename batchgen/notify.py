"""Tells how a run ended, as the job's `notify` says: a command, or an address by POST.

It never fails a run and delays it by no more than TIMEOUT seconds for each of the two. What is told
holds counts and money, and no prompt, no answer and no key.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batchgen.disk import append_line
from batchgen.errors import OutputError
from batchgen.job import PLACEHOLDER, Event, Job, Notify
from batchgen.report import in_dollars, pluralize

# Seconds that a command, and a server, have.
TIMEOUT = 10.0

_MEANINGS = {
    0: "every row succeeded, or enough of them",
    1: "a bug in batchgen",
    2: "the job or its prompts are wrong; nothing was sent",
    3: "some rows failed or are incomplete",
    4: "the account or the server stopped it",
    5: "a limit of the job stopped it",
    74: "the output is full, cannot be written or is damaged",
}


class _NotifyError(Exception):
    """Why nobody was told, in words without an address, which may be a secret."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect as the failure that it is: the headers may hold a secret."""

    def redirect_request(self, *_: object) -> None:
        return None


def notify(
    job: Job,
    code: int,
    ended: Mapping[str, Any],
    *,
    output: Path | None,
    say: Callable[[str], None],
) -> None:
    """Tell how a run ended, if the job says so of such an end.

    A failure to tell is a line in run.log, and goes to `say`.

    Args:
        job: the job.
        code: the exit code of the run.
        ended: its report as JSON, or what there is in place of one.
        output: the folder that replaces the job's outputs folder.
        say: receives why nobody was told.
    """
    settings, event = job.notify, event_of(code)
    if settings is None or event not in settings.when:
        return
    folder = job.output_dir(output, simulate=False)
    notice = notice_of(job, folder, code, ended)
    body = notice if settings.body is None else _filled(settings.body, notice)
    for tell in (_run_command, _post):
        try:
            tell(job, settings, body)
        except _NotifyError as error:
            message = f"notify: {error}"
            say(f"{job.name}: {message}")
            if os.path.isdir(folder):
                with suppress(OutputError):
                    append_line(folder / "run.log", message)


def event_of(code: int) -> Event | None:
    """What the end of a run is: None for batches that go on (6), another run (75), a signal."""
    if code == 0:
        return "finish"
    return "failure" if code in _MEANINGS else None


def notice_of(job: Job, folder: Path, code: int, ended: Mapping[str, Any]) -> dict[str, Any]:
    """What is told: see NOTICE_FIELDS. Without a report there are no counts, and the job file is
    the file to open.
    """
    run = ended.get("run") or {}
    page = folder / "report.html"
    file = (page if os.path.exists(page) else folder) if run else job.path
    rows = run.get("rows", {})
    counts = ", ".join(f"{number:,} {status}" for status, number in rows.items() if number)
    cost = run.get("cost")
    parts = [
        f"{job.name}: {_MEANINGS[code]} (exit {code})",
        *([f"{pluralize(run['total'], 'row')}: {counts}"] if counts else []),
        *([in_dollars(cost)] if cost else []),
        str(file),
    ]
    return {
        "text": "; ".join(parts),
        "job": job.name,
        "event": event_of(code),
        "exit_code": code,
        "meaning": _MEANINGS[code],
        "rows": rows,
        "total": run.get("total"),
        "calls": run.get("calls"),
        "cost": cost,
        "file": str(file),
    }


def _filled(body: Any, notice: Mapping[str, Any]) -> Any:
    """The job's body with the fields in place of their names; a text that is one field alone
    becomes its value.
    """
    if isinstance(body, dict):
        return {name: _filled(value, notice) for name, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, notice) for value in body]
    if not isinstance(body, str):
        return body
    if (whole := PLACEHOLDER.fullmatch(body)) is not None:
        return notice[whole[1]]
    return PLACEHOLDER.sub(lambda match: _as_text(notice[match[1]]), body)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _encoded(body: Any) -> tuple[bytes, str]:
    """The body's bytes and their type: a text as it is, everything else as JSON."""
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return json.dumps(body, ensure_ascii=False).encode(), "application/json"


def _run_command(job: Job, settings: Notify, body: Any) -> None:
    """Run the command in the job's folder, without the API key. Raises _NotifyError."""
    if settings.command is None:
        return
    name = settings.command[0]
    key = job.provider.api_key_env
    try:
        # The program is the job's own, and gets no text of a model or a server.
        process = subprocess.Popen(  # noqa: S603
            settings.command,
            cwd=job.folder,
            env={each: value for each, value in os.environ.items() if each != key},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # What it starts ends with it.
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "cannot be started"
        raise _NotifyError(f"{name}: {reason}; fix notify.command") from None
    try:
        process.communicate(_encoded(body)[0], timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise _NotifyError(f"{name}: had not ended after {TIMEOUT:g} s and was ended") from None
    if process.returncode:
        raise _NotifyError(f"{name}: ended with {process.returncode}")


def _post(job: Job, settings: Notify, body: Any) -> None:
    """Send the body to the address. Raises _NotifyError."""
    url = settings.url
    if settings.url_env is not None:
        url = _variable(job, settings.url_env)
    if url is None:
        return
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _NotifyError(f"{settings.url_env}: is no http:// or https:// address")
    headers = {
        **settings.headers,
        **{name: _variable(job, variable) for name, variable in settings.headers_env.items()},
    }
    data, kind = _encoded(body)
    headers = {"User-Agent": "batchgen", "Content-Type": kind, **headers}
    failures: list[str] = ["no reply in time"]

    def send() -> None:
        try:
            # The scheme was checked above.
            request = urllib.request.Request(  # noqa: S310
                url, data=data, headers=headers, method="POST"
            )
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT):
                failures.clear()
        except urllib.error.HTTPError as error:
            failures[:] = [f"HTTP {error.code}"]
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None)
            failures[:] = [str(reason) if isinstance(reason, OSError) else type(error).__name__]

    # A server that sends a byte now and then would keep its reply going for ever.
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(TIMEOUT)
    if failures:
        raise _NotifyError(f"{parts.hostname}: {failures[0]}")


def _variable(job: Job, name: str) -> str:
    value = job.environ.get(name, "").strip()
    if not value:
        raise _NotifyError(f"the environment variable {name} is not set or empty")
    return value
