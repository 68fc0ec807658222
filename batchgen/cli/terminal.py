"""What goes in and out of the process: results to stdout, messages to stderr, nothing that steers a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from typing import Any

import click

from batchgen.errors import OutputError

# C0 but tab and newline, DEL, C1, separators and bidirectional controls: what moves a terminal's cursor, changes its
# colours or reorders its text.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def settle_streams() -> None:
    """Make the three streams usable whatever the shell did to them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_null(number, name)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            # Under LC_ALL=C the terminal's encoding would refuse the names in people's data.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]


def _open_null(number: int, name: str) -> None:
    """Give a closed stream /dev/null; else the journal would be opened under its number, and printed into."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def plain(text: str) -> str:
    """The text with its control characters made visible: a reply must not steer the terminal."""
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def as_json(value: Any) -> str:
    """A value as indented JSON, control characters escaped by JSON itself."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str) -> None:
    """A message for a person, on stderr; nobody there to read it is no fault of the job."""
    with suppress(OSError):
        click.echo(plain(text), err=True)


def tell(text: str) -> None:
    """A result, on stdout; a reader that has gone away is no fault of the job. Raises OutputError when it cannot be
    written for another reason."""
    try:
        click.echo(text)
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        raise OutputError(f"stdout cannot be written: {error.strerror}") from None


def flush() -> None:
    """Leave nothing for Python to flush, and to complain about, at its own exit."""
    try:
        sys.stdout.flush()
    except OSError:
        _forget_stdout()


def _forget_stdout() -> None:
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
