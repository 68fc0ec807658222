"""A job's life as a state machine: rows and settings change, runs fail, crash and resume."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from job_life import Life

Life.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


# hypothesis makes the base class when the program runs.
class TestLife(Life.TestCase):  # type: ignore[misc, valid-type]
    """P01 P03 P07 P08 P10 P14 P45 Whatever happens to a job, its promises hold."""
