"""Usage and bounds -> money, in whole nano-dollars, so that sums are exact.

Prices come from the job's `pricing`, else from genai-prices, which works offline. An unknown price
is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, overload

from batchgen.job import Price
from batchgen.replies import Answer, Usage
from batchgen.requests import Request

NANO = 1_000_000_000


def dollars(nano: int | None) -> float | None:
    """Nano-dollars as dollars."""
    return None if nano is None else nano / NANO


@overload
def batch_cost(nano: int) -> int: ...
@overload
def batch_cost(nano: int | None) -> int | None: ...
def batch_cost(nano: int | None) -> int | None:
    """The cost in a batch of what costs `nano` nano-dollars otherwise: half, rounded up.

    OpenAI, Azure, Groq and others all have this discount:
        https://platform.openai.com/docs/guides/batch
    """
    return None if nano is None else -(-nano // 2)


class Prices:
    """What requests cost at one provider.

    pricing: the job's own prices, by model.
    base_url: identifies the provider in genai-prices.
    """

    def __init__(self, pricing: Mapping[str, Price], base_url: str) -> None:
        self._pricing = pricing
        self._base_url = base_url
        self.cost = lru_cache(maxsize=4096)(self._cost)
        self._rates = lru_cache(maxsize=256)(self._highest_rates)

    def _cost(
        self, model: str, usage: Usage, *, pictures: int = 0, tier: str | None = None
    ) -> int | None:
        """What one answer cost, in nano-dollars; None if the price or the usage is unknown."""
        own = self._pricing.get(model)
        if own is not None and own.input is not None:
            cost = _own_cost(own, usage)
        else:
            cost = self._snapshot_cost(model, usage, tier, drawn=pictures > 0)
        if cost is None and pictures and own is not None and own.image is not None:
            return math.ceil(own.image * NANO) * pictures
        return cost

    def _snapshot_cost(
        self, model: str, usage: Usage, tier: str | None, *, drawn: bool
    ) -> int | None:
        """What one answer cost by genai-prices, in nano-dollars; None if it is unknown."""
        rates = self._rates(model)
        if rates is not None and not any(rates):
            return 0
        if (
            rates is None
            or usage.input_tokens is None
            or (usage.output_tokens is None and rates[1])
        ):
            return None
        return self._known_cost(model, usage, tier, drawn=drawn)

    def _known_cost(self, model: str, usage: Usage, tier: str | None, *, drawn: bool) -> int | None:
        from genai_prices import Usage as Counted
        from genai_prices import calc_price

        counted = Counted(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            input_image_tokens=usage.image_tokens,
            input_audio_tokens=usage.audio_tokens,
            output_tokens=usage.output_tokens or 0,
            output_image_tokens=usage.output_tokens or 0 if drawn else 0,
            output_audio_tokens=usage.output_audio_tokens,
        )
        context = {"service_tier": tier} if tier else None
        try:
            price = calc_price(
                counted, model, provider_api_url=self._base_url, price_context=context
            )
        except (LookupError, ValueError):
            return None
        return math.ceil(price.total_price * NANO)

    def answer_cost(self, request: Request, answer: Answer) -> int | None:
        """What an answer cost, in nano-dollars: by the model of the request, else by that of the
        reply.
        """
        asked = str(request.body.get("model", ""))
        pictures = len(answer.choices) if request.pictures else 0
        for model in dict.fromkeys((asked, answer.model or asked)):
            cost = self.cost(model, answer.usage, pictures=pictures, tier=answer.service_tier)
            if cost is not None:
                return cost
        return None

    def bound(self, request: Request) -> int | None:
        """The most that one attempt of a request can cost, in nano-dollars; None without price or
        cap.
        """
        model = request.body.get("model")
        if not isinstance(model, str):
            return None
        own = self._pricing.get(model)
        if request.pictures:
            return (
                None
                if own is None or own.image is None
                else math.ceil(own.image * NANO) * request.pictures
            )
        rates = self._rates(model)
        if rates is None or request.answer_bound is None or request.unbounded_by:
            return None
        if rates[1] is None and request.answer_bound:
            return None
        per_million = rates[0] * request.input_bound + (rates[1] or 0) * request.answer_bound
        return math.ceil(per_million * NANO / 1_000_000)

    def missing_for_bound(self, request: Request) -> str:
        """What `bound` needs and is missing, as the end of a sentence."""
        model = request.body.get("model")
        if not isinstance(model, str):
            return "request.model"
        if request.pictures:
            return f"pricing.{model}.image: the highest price of one picture in USD"
        rates = self._rates(model)
        if rates is not None and rates[1] is None and request.answer_bound != 0:
            return f"pricing.{model}.output: USD per million output tokens"
        if rates is None:
            return f"pricing.{model}: genai-prices does not know this model at {self._base_url}"
        if request.unbounded_by:
            return (
                f"a request without {request.unbounded_by!r}: what the server reads because "
                "of it has no bound"
            )
        return (
            "a cap on the answer: request.max_completion_tokens (chat), max_output_tokens "
            "(text) or max_tokens (completion)"
        )

    def _highest_rates(self, model: str) -> tuple[Decimal, Decimal | None] | None:
        """USD per million input and output tokens: the highest over all tiers, kinds of token and
        cache writes.

        The output's price is None if the job's pricing leaves it out. None if there is no price.
        """
        own = self._pricing.get(model)
        if own is not None and own.input is not None:
            output = None if own.output is None else Decimal(str(own.output))
            return Decimal(str(max(own.input, own.cached_input or 0))), output
        from genai_prices.data_snapshot import get_snapshot

        try:
            _, known = get_snapshot().find_provider_model(model.lower(), None, None, self._base_url)
        except LookupError:
            return None
        sets = known.prices if isinstance(known.prices, list) else [known]
        prices = [each.prices.__dict__ for each in sets]
        # Priority and fast tiers cost more than the plain price, and max_cost must hold for them
        # too.
        prices += [variant.prices.__dict__ for variant in known.price_variants or ()]
        rates = [(name, _highest(value)) for price in prices for name, value in price.items()]
        inputs = [
            rate
            for name, rate in rates
            if name.endswith("_mtok") and not name.startswith("output_")
        ]
        outputs = [
            rate for name, rate in rates if name.endswith("_mtok") and name.startswith("output_")
        ]
        if not any((*inputs, *outputs)) and any(rate for _, rate in rates):
            return None  # priced by the hour or by the character
        return max(inputs, default=Decimal(0)), max(outputs, default=Decimal(0))


def _highest(price: Any) -> Decimal:
    if price is None:
        return Decimal(0)
    tiers = [tier.price for tier in getattr(price, "tiers", ())]
    return Decimal(max([getattr(price, "base", price), *tiers]))


def _own_cost(price: Price, usage: Usage) -> int | None:
    if usage.input_tokens is None or (usage.output_tokens is None and price.output):
        return None
    if price.output is None and usage.output_tokens:
        return None
    cached = min(usage.cached_tokens or 0, usage.input_tokens)
    rate = Decimal(str(price.input))
    cached_rate = rate if price.cached_input is None else Decimal(str(price.cached_input))
    output = Decimal(str(price.output or 0)) * (usage.output_tokens or 0)
    return math.ceil(
        (rate * (usage.input_tokens - cached) + cached_rate * cached + output) * NANO / 1_000_000
    )
