"""Whose fault a failure is: the row's, or that of the server and the whole job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from batchgen.dispatch import Failure
from batchgen.dispatch.limits.adaptive.limiter import AdaptiveLimiter
from batchgen.dispatch.online.work import Work
from batchgen.dispatch.retry import FEW_THROTTLES
from batchgen.job import Job


class Blame:
    """Compares a row's failures with what happens to the others."""

    def __init__(self, job: Job, limiter: AdaptiveLimiter, in_flight: Callable[[], int]) -> None:
        """`in_flight`: how many calls are in flight, that of the failure included."""
        self._job, self._limiter, self._in_flight = job, limiter, in_flight
        self._answering_models: set[str] = set()
        # The first row that was forbidden while nothing was answered yet.
        self._doubtful: Work | None = None

    def record_answer(self, work: Work) -> None:
        """Note that a request was answered, so its model works."""
        self._answering_models.add(work.model)

    def is_own_fault(self, work: Work, failure: Failure) -> bool:
        """Whether the row causes its failure, and not the server or the rate of the whole job."""
        answered_others = 0 < work.failed_at < self._limiter.last_success
        repeated = failure.status is not None and answered_others
        work.own_fault = work.own_fault or repeated
        if failure.meaning != "throttled":
            return work.own_fault
        work.spent.throttles += repeated or work.spent.throttles > 0
        # Each model has its own limits: one that never answers must not slow the others.
        silent = bool(self._answering_models) and work.model not in self._answering_models
        return silent or work.spent.throttles >= FEW_THROTTLES

    def uses_attempt(self, work: Work, failure: Failure) -> bool:
        """Whether a failure counts against the row: throttling and outages do not.

        A time-out always does, since it may have been billed.
        """
        if failure.meaning == "throttled":
            return False
        return work.own_fault or failure.meaning == "timeout" or self._limiter.state != "tripped"

    def assign(self, work: Work, failure: Failure) -> Failure:
        """Make a wrong model or tier the row's failure, if rows choose it; and a 403, if others
        were answered.
        """
        if failure.reason == "forbidden":
            return self._assign_forbidden(work, failure)
        chosen = failure.reason in ("model", "service_tier")
        if chosen and self._job.rows_choose(failure.reason):
            return replace(failure, meaning="row")
        return failure

    def _assign_forbidden(self, work: Work, failure: Failure) -> Failure:
        """A 403 that does not say whose fault it is: many servers send it for one flagged input."""
        if self._answering_models:
            return replace(failure, meaning="row")
        # Nobody can tell yet. One row is asked again, until the calls beside it have ended.
        if self._doubtful is None or (self._doubtful is work and self._in_flight() > 1):
            self._doubtful = work
            return replace(failure, meaning="transient")
        return failure
