"""What one call is expected to take, for the forecasts of plan and run."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.pricing import Prices
from batchgen.replies import Usage
from batchgen.requests import TYPICAL_PICTURE_TOKENS, Request

# Tokens that an answer without a cap is expected to have, and bytes that make up a token. Both are
# rough, and used for forecasts only: caps on money go by bounds.
USUAL_ANSWER = 256
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one call is expected to take.

    Attributes:
        tokens: in and out.
        cost: in nano-dollars, None when unknown.
        cost_bound: the highest cost, in nano-dollars, None when there is no bound.
    """

    tokens: int
    cost: int | None
    cost_bound: int | None


# A row that cannot be sent takes nothing.
NOTHING = Forecast(tokens=0, cost=0, cost_bound=0)


def forecast(request: Request, prices: Prices) -> Forecast:
    """What a request is expected to take at today's prices."""
    tokens_in = (
        request.text_bytes // BYTES_PER_TOKEN + request.input_pictures * TYPICAL_PICTURE_TOKENS
    )
    tokens_out = USUAL_ANSWER if request.answer_bound is None else request.answer_bound
    bound = prices.bound(request)
    if request.pictures:
        # Pictures are priced by the piece, and the bound is their price.
        cost = bound
    else:
        usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
        cost = prices.forecast(request, usage)
    return Forecast(tokens=tokens_in + tokens_out, cost=cost, cost_bound=bound)
