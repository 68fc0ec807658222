"""The exit code of a run that nothing stopped."""

from __future__ import annotations

from batchgen.job import Job
from batchgen.journal import RowCounts


def exit_code_of(job: Job, now: RowCounts) -> int:
    """0 when every row in scope succeeded, or when all have ended and few enough failed; else 3.

    Incomplete rows count as failed. A row that a failed turn blocks counts as ended.
    """
    rows = now.lines
    total = sum(rows.values())
    if rows.get("succeeded", 0) == total:
        return 0
    allowed = job.limits.max_failures
    left = rows.get("pending", 0) + rows.get("outdated", 0)
    failed = rows.get("failed", 0) + rows.get("incomplete", 0)
    return 0 if allowed is not None and not left and allowed.allows(failed, total) else 3
