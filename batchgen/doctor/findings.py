"""What was found of one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from batchgen.errors import AccountError, InputError, OutputError
from batchgen.escapes import one_line

State = Literal["ok", "wrong", "unknown"]

# The exit code of several findings is the first of these that one of them has.
_PRECEDENCE = (OutputError.exit_code, InputError.exit_code, AccountError.exit_code, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one thing.

    name: of the thing, such as key or disk.
    state: `unknown`: it could not be checked.
    message: one line: what was found; of what is wrong also what to do. Never holds a secret.
    exit_code: 0 unless it is wrong.
    """

    name: str
    state: State
    message: str
    exit_code: int = 0


def ok(name: str, message: str) -> Finding:
    return Finding(name=name, state="ok", message=one_line(message))


def unknown(name: str, message: str) -> Finding:
    return Finding(name=name, state="unknown", message=one_line(message))


def wrong(name: str, message: str, exit_code: int) -> Finding:
    return Finding(name=name, state="wrong", message=one_line(message), exit_code=exit_code)


def exit_code_of(findings: Sequence[Finding]) -> int:
    """0 when nothing is wrong, else 74 (this machine), 2 (the job) or 4 (account or server)."""
    return min((each.exit_code for each in findings), key=_PRECEDENCE.index, default=0)
