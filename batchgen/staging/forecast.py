"""What one call is expected to take, before any answer shows it."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.pricing import Prices
from batchgen.replies import Usage
from batchgen.requests import TYPICAL_PICTURE_TOKENS, Request

# What is assumed of a call: all of it rough, and used for forecasts only, because caps on money go
# by bounds. A token is so many bytes, an answer takes one part in so many of its cap, and one
# without a cap has so many tokens.
BYTES_PER_TOKEN = 4
CAP_PARTS = 4
USUAL_ANSWER = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one call is expected to take.

    Attributes:
        tokens: in and out.
        charged: the tokens that limits are charged for it: its input, and the cap of its answer.
        cost: in nano-dollars, None when unknown.
        cost_bound: the highest cost, in nano-dollars, None when there is no bound.
        assumes: what of this is assumed, each as a phrase.
    """

    tokens: int
    charged: int
    cost: int | None
    cost_bound: int | None
    assumes: tuple[str, ...] = ()


# A row that cannot be sent takes nothing.
NOTHING = Forecast(tokens=0, charged=0, cost=0, cost_bound=0)

_TEXT = f"a token for each {BYTES_PER_TOKEN} bytes of text"
_SHOWN = f"{TYPICAL_PICTURE_TOKENS:,} tokens for each picture shown"
_CAPPED = f"answers that take 1/{CAP_PARTS} of their cap"
_UNCAPPED = f"answers of {USUAL_ANSWER} tokens, as they have no cap"
_DRAWN = "pictures at their highest price (pricing)"


def forecast(request: Request, prices: Prices) -> Forecast:
    """What a request is expected to take at today's prices."""
    tokens_in = (
        request.text_bytes // BYTES_PER_TOKEN + request.input_pictures * TYPICAL_PICTURE_TOKENS
    )
    cap = request.answer_bound
    tokens_out = USUAL_ANSWER if cap is None else -(-cap // CAP_PARTS)
    bound = prices.bound(request)
    if request.pictures:
        # Pictures are priced by the piece, and the bound is their price.
        cost = bound
    else:
        usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
        cost = prices.forecast(request, usage)
    return Forecast(
        tokens=tokens_in + tokens_out,
        charged=tokens_in + (USUAL_ANSWER if cap is None else cap),
        cost=cost,
        cost_bound=bound,
        assumes=tuple(_assumptions(request)),
    )


def _assumptions(request: Request) -> list[str]:
    if request.pictures:
        return [_DRAWN]
    shown = [_SHOWN] if request.input_pictures else []
    if request.answer_bound is None:
        return [_TEXT, *shown, _UNCAPPED]
    # Embeddings have no answer to assume anything of.
    return [_TEXT, *shown, _CAPPED] if request.answer_bound else [_TEXT, *shown]
