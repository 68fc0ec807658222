"""The sections `limits`, `retry` and `batches`: how fast, how often, how long."""

from __future__ import annotations

from pydantic import Field

from batchgen.job.sections.section import Section
from batchgen.job.values import Duration, Failures, Positive, Usd


class Limits(Section):
    """Upper limits, all optional; batchgen finds out the server's own limits below them."""

    requests_per_minute: Positive | None = Field(
        default=None, description="Requests in any 60 seconds"
    )
    tokens_per_minute: Positive | None = Field(
        default=None, description="Input and output tokens in any 60 seconds"
    )
    images_per_minute: Positive | None = Field(default=None, description="Images in any 60 seconds")
    concurrency: int = Field(
        default=64, ge=1, le=10_000, description="Requests in flight at the same time"
    )
    max_cost: Usd | None = Field(
        default=None, description="USD over all runs of this job; spending never exceeds it"
    )
    max_cost_per_day: Usd | None = Field(
        default=None,
        description="USD that all jobs with this key may spend on this machine in a day (UTC)",
    )
    max_cost_per_month: Usd | None = Field(
        default=None,
        description="USD that all jobs with this key may spend on this machine in a month (UTC)",
    )
    max_time: Duration | None = Field(
        default=None,
        description='How long one run may take: "4h", "90m", "1h30m" or seconds; then it '
        "stops, and the next run goes on",
    )
    max_failures: Failures | None = Field(
        default=None,
        description='How many rows may fail or be incomplete: "1%" or a count; with more, the '
        "job stops",
    )

    @property
    def on_cost(self) -> tuple[str, ...]:
        """The names of the limits on cost that are set."""
        names = ("max_cost", "max_cost_per_day", "max_cost_per_month")
        return tuple(name for name in names if getattr(self, name) is not None)


class Retry(Section):
    """When a request is retried, and for how long; times in seconds."""

    attempts: int = Field(
        default=6, ge=1, le=100, description="Attempts for one request, including the first"
    )
    max_wait: Positive = Field(
        default=60, description="The longest wait between two attempts, in seconds"
    )
    timeout: Positive | None = Field(
        default=None,
        description="Seconds for one attempt; by default 600; 900 with service_tier: flex; 60 "
        "for embedding and moderation",
    )
    validation: int = Field(
        default=0,
        ge=0,
        le=10,
        description="How often an answer that does not fit its JSON Schema is asked for again, "
        "each time with the error",
    )
    give_up: Positive = Field(
        default=900, description="Seconds without any success after which the job stops"
    )


class Batches(Section):
    """What happens with the batches of mode: batch."""

    keep_files: bool = Field(
        default=False,
        description="Whether the server keeps the files of a batch whose answers are collected; "
        "by default they are deleted there",
    )
