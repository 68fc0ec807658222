"""The section `pricing`: one model's prices."""

from __future__ import annotations

from pydantic import Field

from batchgen.job.sections.section import Section
from batchgen.job.values import Rate


class Price(Section):
    """USD per million tokens of one model."""

    input: Rate | None = Field(
        default=None,
        description="USD per million input tokens; by default the input and output prices of "
        "genai-prices",
    )
    cached_input: Rate | None = Field(
        default=None,
        description="USD per million cached input tokens; by default the same as input",
    )
    output: Rate | None = Field(
        default=None,
        description="USD per million output tokens; without it, only kinds that have no output "
        "tokens have a price",
    )
    request: Rate | None = Field(
        default=None,
        description="USD per request, beside its tokens; goes with input and output",
    )
    image: Rate | None = Field(
        default=None,
        description="The highest price of one picture in USD; max_cost reserves it for image kinds",
    )
