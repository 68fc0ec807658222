"""What `--json` prints of one job or of several: always in the same shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# The numbers of a job that are added up where its object has them.
_SUMS = (
    "tokens",
    "input_tokens",
    "output_tokens",
    "cost_at_most",
    "unpriced",
    "uncertain",
    "uncertain_cost",
)


def jobs_json(
    code: int, jobs: Sequence[Mapping[str, Any]], error: str | None = None
) -> dict[str, Any]:
    """The exit code of a command, what stopped all of it, the sums of its jobs, and the jobs.

    A job's numbers are those of its `run` where its object has one: what this command did. A sum is
    None when one of the numbers is not known.
    """
    numbers = [job.get("run", job) for job in jobs]
    known = [each for each in numbers if "error" not in each]
    totals = {
        "rows": dict(sum((Counter(each["rows"]) for each in known), Counter())),
        "total": _sum(known, "total"),
        "calls": _sum(known, "calls"),
        # Nobody knows what a job spent that broke off with an error.
        "cost": _sum(numbers, "cost"),
        **{name: _sum(known, name) for name in _SUMS if any(name in each for each in known)},
    }
    return {
        "exit_code": code,
        **({"error": error} if error is not None else {}),
        "totals": totals,
        "jobs": list(jobs),
    }


def _sum(numbers: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [each.get(name) for each in numbers]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
