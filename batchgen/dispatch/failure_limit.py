"""When failed rows stop a run: more than `max_failures`."""

from __future__ import annotations

from batchgen.errors import BatchgenError, LimitError


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
            "more rows failed than max_failures allows; see errors.csv, fix them and run again"
        )
