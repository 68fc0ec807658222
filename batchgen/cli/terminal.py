"""The streams of the process: results go to stdout, messages to stderr.

Nothing that is printed can control the terminal.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

import click

from batchgen.errors import OutputError
from batchgen.escapes import escape_controls, escape_in_json


def prepare_streams() -> None:
    """Make stdin, stdout and stderr usable, whatever the shell did to them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_null(number, name)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            # Under LC_ALL=C the default encoding cannot print the names in people's data.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]


def _open_null(number: int, name: str) -> None:
    """Open /dev/null in place of a closed stream.

    Otherwise the journal would get the stream's number, and prints would go into it.
    """
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def as_json(value: Any) -> str:
    """A value as indented JSON, with JSON's own escapes for control characters."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return escape_in_json(text)


def styled(text: str, *, colour: str | None = None, bold: bool = False) -> str:
    """Our own words in a colour or bold, unless NO_COLOR is set (https://no-color.org)."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour, bold=bold or None)


def print_message(text: str) -> None:
    """Print a message to stderr; if stderr cannot be written, the command goes on."""
    with suppress(OSError):
        click.echo(escape_controls(text), err=True)


def print_result(text: str) -> None:
    """Print a result to stdout; if its reader has closed the pipe, the command goes on.

    Raises OutputError when stdout cannot be written for another reason.
    """
    try:
        click.echo(text)
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        raise OutputError(f"stdout cannot be written: {error.strerror}") from None


def flush_stdout() -> None:
    """Flush stdout here, because Python would print an error of its own if it failed at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()


def _discard_stdout() -> None:
    """Send what is still buffered, and all that follows, to /dev/null."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
