"""When failed rows stop a run: more than `max_failures`, or the first answers all the same refusal."""

from __future__ import annotations

from batchgen.dispatch import Failure
from batchgen.errors import AccountError, BatchgenError, LimitError

# So many answers that are all the same refusal, and none that is not, mean that the job is wrong and not its rows.
SAME_REFUSALS = 20


class AllRefusedError(AccountError):
    """The first answers were all the same refusal: it is the job's, or the server's, and not the rows'."""


class FailureLimit:
    """How many rows may fail: `left` more, incomplete ones included (None: any), and not the first ones all alike."""

    def __init__(self, left: int | None, host: str) -> None:
        self._left, self._host = left, host
        self._answers = 0
        self._refusals: set[tuple[int | None, str | None, str]] = set()

    @property
    def undecided(self) -> bool:
        """Whether the first answers may still turn out to be all the same refusal."""
        return self._answers < SAME_REFUSALS

    def answered(self, *, ended: bool) -> BatchgenError | None:
        """A row was answered (`ended`: completely). Returns what stops the run."""
        self._answers = SAME_REFUSALS
        return self._short(0 if ended else 1)

    def failed(self, failure: Failure) -> BatchgenError | None:
        """A row failed. Returns what stops the run."""
        if failure.status is not None:
            self._answers += 1
            self._refusals.add((failure.status, failure.code, failure.reason))
        return self._short(1) or self._alike(failure)

    def exceeded(self) -> BatchgenError | None:
        """What stops the run when more rows have failed than may."""
        told = "more rows failed than max_failures allows; see errors.csv, mend, and run again"
        return LimitError(told) if self._left is not None and self._left < 0 else None

    def _short(self, rows: int) -> BatchgenError | None:
        if self._left is not None:
            self._left -= rows
        return self.exceeded()

    def _alike(self, failure: Failure) -> BatchgenError | None:
        # A page that is no answer at all, such as a proxy's login, refuses too.
        refused = failure.meaning == "row" or failure.reason == "invalid_response"
        if self._answers != SAME_REFUSALS or len(self._refusals) != 1 or not refused:
            return None
        return AllRefusedError(
            f"the first {SAME_REFUSALS} answers of {self._host} were all the same refusal (HTTP {failure.status}:"
            f" {failure.message}); mend the job's request, its provider or the server, and run again"
        )
