"""When failed rows stop a run: more than `max_failures`, or the first answers all refused alike."""

from __future__ import annotations

from batchgen.dispatch import Failure
from batchgen.errors import AccountError, BatchgenError, LimitError

# How many first answers must be the same refusal to show that the job is wrong, not its rows.
SAME_REFUSALS = 20


class AllRefusedError(AccountError):
    """The first answers were all the same refusal: the cause is the job or the server."""


class FailureLimit:
    """Counts failed and incomplete rows, and compares the first answers."""

    def __init__(self, left: int | None, host: str) -> None:
        """`left`: how many more rows may fail, incomplete ones included (None: any number)."""
        self._left, self._host = left, host
        self._answers = 0
        self._refusals: set[tuple[int | None, str | None, str]] = set()

    @property
    def is_undecided(self) -> bool:
        """Whether all first answers may still turn out to be the same refusal."""
        return self._answers < SAME_REFUSALS

    def record_answer(self, *, complete: bool) -> BatchgenError | None:
        """Count a row that was answered. Returns what stops the run."""
        # One answer shows that not every first answer is a refusal.
        self._answers = SAME_REFUSALS
        return self._count(0 if complete else 1)

    def record_failure(self, failure: Failure) -> BatchgenError | None:
        """Count a row that failed. Returns what stops the run."""
        if failure.status is not None:
            self._answers += 1
            self._refusals.add((failure.status, failure.code, failure.reason))
        return self._count(1) or self._all_refused(failure)

    def exceeded(self) -> BatchgenError | None:
        """What stops the run when too many rows have failed."""
        if self._left is None or self._left >= 0:
            return None
        return LimitError(
            "more rows failed than max_failures allows; see errors.csv, fix them and run again"
        )

    def _count(self, rows: int) -> BatchgenError | None:
        if self._left is not None:
            self._left -= rows
        return self.exceeded()

    def _all_refused(self, failure: Failure) -> BatchgenError | None:
        # A page in place of an answer, such as a proxy's login, is a refusal too.
        is_refusal = failure.meaning == "row" or failure.reason == "invalid_response"
        if self._answers != SAME_REFUSALS or len(self._refusals) != 1 or not is_refusal:
            return None
        return AllRefusedError(
            f"the first {SAME_REFUSALS} answers of {self._host} were all the same refusal"
            f" (HTTP {failure.status}: {failure.message});"
            " fix the job's request, its provider or the server, and run again"
        )
