"""Which of a job's batches a command names."""

from __future__ import annotations

from collections.abc import Sequence

from batchgen.errors import InputError, Problem, did_you_mean
from batchgen.journal.batches import open_batches
from batchgen.workspace import Workspace


def require_open_batches(workspace: Workspace, ids: Sequence[str]) -> None:
    """Raise InputError unless the job has run and each of these ids is an open batch of it.

    Takes no lock and writes nothing.
    """
    with workspace.peek() as journal:
        workspace.staged(journal)
        batches = [batch.id for batch in open_batches(journal) if batch.id]
    unknown = [each for each in ids if each not in batches]
    if unknown:
        raise InputError(
            [
                Problem(path=each, message=f"is not an open batch{did_you_mean(each, batches)}")
                for each in unknown
            ]
        )
