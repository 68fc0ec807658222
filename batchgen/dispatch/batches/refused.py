"""A batch that is refused as a whole: for some of its lines, for what it is, or line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from batchgen.dispatch import Failure
from batchgen.dispatch.api.codes import UNATTRIBUTED
from batchgen.dispatch.failure_limit import (
    SAME_REFUSALS,
    AllRefusedError,
    all_refused_error,
    sort_of,
)
from batchgen.errors import AccountError

# How a message names a line of the input file. The line of a text that is no JSON has a column.
_LINE = re.compile(r"\bline(?: number)?[ :#]*(\d{1,9})\b(?!,? col|:\d)", re.IGNORECASE)

# How a server words that it has no batches of an endpoint, or no files for batches.
_UNSUPPORTED = re.compile(r"\b(endpoint|purpose)\b", re.IGNORECASE)


def named_lines(message: str, requests: int) -> Sequence[int]:
    """The lines, of `requests` from 1 on, that a refusal names as its cause."""
    if _UNSUPPORTED.search(message):
        return ()
    lines = dict.fromkeys(int(number) for number in _LINE.findall(message))
    return [line for line in lines if 0 < line <= requests]


def refusal_error(host: str, message: str, status: int | None, what: str) -> AccountError:
    """The error that stops a run whose batch is refused for no line of its own.

    host: the server's name
    message: the server's words
    status: of the reply that refuses it; None for the object of a batch
    what: the batch, in words
    """
    # Servers word it in many ways, and none has a code for it.
    if status in (None, 400, 422) and _UNSUPPORTED.search(message):
        return AccountError(f"{host} takes no such batches ({message}); use mode: online")
    if status in (404, 405, 501):
        return AccountError(f"{host} takes no batches ({message}); use mode: online")
    return AccountError(f"{host} refused {what}: {message}; fix it and run again")


def same_refusal(host: str, failures: Sequence[Failure]) -> AllRefusedError | None:
    """The error that stops a run when all these lines of a batch were refused alike, if they show
    that the account or the job is wrong.
    """
    if len(failures) < SAME_REFUSALS or len(set(map(sort_of, failures))) > 1:
        return None
    if failures[0].is_passing or failures[0].reason not in UNATTRIBUTED:
        return None
    return all_refused_error("all requests of a batch", host, failures[0])
