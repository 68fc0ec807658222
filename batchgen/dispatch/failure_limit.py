"""When failed rows stop a run: more than `max_failures`, or many that were all refused alike."""

from __future__ import annotations

import re
from typing import NamedTuple

from batchgen.dispatch import Failure
from batchgen.errors import AccountError, BatchgenError, LimitError

# How many refusals must be alike to show that the account or the job is wrong, and not the rows.
SAME_REFUSALS = 20

# What differs in the messages of the same refusal: quotations, and words that are or have numbers.
_VARIABLE = re.compile(r"""(?<!\w)'[^']*'(?!\w)|"[^"]*"|`[^`]*`|\S*\d\S*|[\w-]{20,}""")


class AllRefusedError(AccountError):
    """Many requests were all refused alike: the cause is the job, the account or the server."""


class RefusalSort(NamedTuple):
    """What refusals have in common that are alike; `words` are those of the message."""

    status: int | None
    code: str | None
    reason: str
    words: str


def sort_of(failure: Failure) -> RefusalSort:
    """What a refusal has in common with those that are alike."""
    words = " ".join(_VARIABLE.sub("", failure.message).split())
    return RefusalSort(failure.status, failure.code, failure.reason, words)


def all_refused_error(which: str, host: str, failure: Failure) -> AllRefusedError:
    """The error that stops a run; `which` requests were refused, in words."""
    http = "" if failure.status is None else f"HTTP {failure.status}: "
    return AllRefusedError(
        f"{which} got the same refusal from {host} ({http}{failure.message});"
        " fix the job's request, the account or the provider, and run again"
    )


class FailureLimit:
    """Counts failed and incomplete rows."""

    def __init__(self, left: int | None, host: str) -> None:
        """`left`: how many more rows may fail, incomplete ones included (None: any number)."""
        self._left, self._host = left, host

    def record(self, *, complete: bool) -> BatchgenError | None:
        """Count a row that has ended. Returns what stops the run."""
        if self._left is not None and not complete:
            self._left -= 1
        return self.exceeded()

    def exceeded(self) -> BatchgenError | None:
        """What stops the run when too many rows have failed."""
        if self._left is None or self._left >= 0:
            return None
        return LimitError(
            "more rows failed than max_failures allows; see errors.csv, fix them, or mark them by"
            " `batchgen redo JOB --failed` once their cause is gone, and run again"
        )
