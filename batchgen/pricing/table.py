"""The prices of genai-prices: what a model charges at most, and what an answer cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from batchgen.pricing.money import NANO
from batchgen.pricing.rates import Rates, highest
from batchgen.replies import Usage

# A call that is priced now is billed within this time, so a price that begins within it counts.
_AHEAD = timedelta(days=2)
_BATCH = {"processing": "batch"}
# Providers that halve the price of every batch: https://platform.openai.com/docs/guides/batch and
# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
_HALVING = frozenset({"openai", "azure"})
# Providers whose replies say what they cost, fees of tools included.
# https://docs.x.ai/developers/cost-tracking
_BILLING = frozenset({"openrouter", "perplexity", "x-ai"})
# A server calls the fast tier priority in its reply.
_SAME_TIER = {"fast": ("fast", "priority")}


def rates_of(
    model: str, base_url: str, *, tier: str | None, batch: bool, at: datetime
) -> Rates | None:
    """The highest prices that a call may be billed by; None if there are none.

    model: as the request names it.
    base_url: identifies the provider.
    tier: the service tier that the request names; None leaves the choice to the server.
    batch: whether the call is made in a batch.
    at: when it is made.
    """
    known = _known(model, base_url)
    if known is None:
        return None
    sets = [_units(prices) for prices in _in_force(known.prices, at)]
    if not batch:
        return highest([*sets, *_of_tier(known, tier)])
    if _of_batches(known, at):
        discounts = _of_batches(known, at + _AHEAD)
        return highest([{**units, **each} for units in sets for each in discounts])
    rates = highest(sets)
    return rates.halved() if rates is not None and halves_batches(base_url) else rates


def cost_of(
    model: str,
    base_url: str,
    usage: Usage,
    *,
    context: Mapping[str, str],
    drawn: bool,
    at: datetime,
) -> int | None:
    """What one answer cost, in nano-dollars; None if it is unknown.

    model: as the request or the reply names it.
    base_url: identifies the provider.
    usage: the reply's token counts, of which input and output are known.
    context: what else decides the price, such as the tier.
    drawn: whether the answer is pictures.
    at: when the call was made.
    """
    from genai_prices import Usage as Counted
    from genai_prices import calc_price

    counted = Counted(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        input_image_tokens=usage.image_tokens,
        input_audio_tokens=usage.audio_tokens,
        output_tokens=usage.output_tokens or 0,
        output_image_tokens=_drawn_tokens(usage) if drawn else usage.output_image_tokens or 0,
        output_audio_tokens=usage.output_audio_tokens,
        web_searches=usage.web_searches,
        storage_searches=usage.file_searches,
    )
    try:
        price = calc_price(
            counted,
            model,
            provider_api_url=base_url,
            price_context=dict(context) or None,
            genai_request_timestamp=at,
        )
    except (LookupError, ValueError):
        return None
    return math.ceil(price.total_price * NANO)


def batch_cost_of(
    model: str, base_url: str, usage: Usage, *, drawn: bool, at: datetime
) -> int | None:
    """What an answer in a batch cost: by the provider's own price of batches, else by what
    `in_batch` says.

    model, base_url, usage, drawn, at: those of `cost_of`.
    """
    known = _known(model, base_url)
    own = known is not None and bool(_of_batches(known, at))
    cost = cost_of(model, base_url, usage, context=_BATCH if own else {}, drawn=drawn, at=at)
    return cost if own or cost is None else in_batch(cost, base_url)


def halves_batches(base_url: str) -> bool:
    """Whether the server of this address is known to halve the price of every batch."""
    return _provider(base_url) in _HALVING


def bills_itself(base_url: str) -> bool:
    """Whether each reply of the server of this address says what it cost, fees included."""
    return _provider(base_url) in _BILLING


def prices_searches(model: str, base_url: str, unit: str) -> bool:
    """Whether genai-prices knows what a model takes for each search of a kind."""
    known = _known(model, base_url)
    sets = _in_force(known.prices, datetime.now(UTC)) if known else ()
    return any(_units(prices).get(unit) for prices in sets)


def _provider(base_url: str) -> str:
    """The provider's name in genai-prices; empty for one that it does not know."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        return str(get_snapshot().find_provider(None, None, base_url).id)
    except LookupError:
        return ""


def in_batch(nano: int, base_url: str) -> int:
    """What a call of `nano` nano-dollars costs in a batch of which no price is known.

    Half, rounded up, at a provider that halves every batch; elsewhere the whole price, which is the
    upper bound.
    """
    return -(-nano // 2) if halves_batches(base_url) else nano


def _drawn_tokens(usage: Usage) -> int:
    """The tokens of drawn pictures; what the model wrote beside them has the price of text."""
    if usage.output_image_tokens is not None:
        return usage.output_image_tokens
    return max(0, (usage.output_tokens or 0) - (usage.output_text_tokens or 0))


class _ModelPrices(NamedTuple):
    """A model as genai-prices has it: its prices, and those of tiers, routes and batches."""

    prices: Any
    variants: Sequence[Any]


def _known(model: str, base_url: str) -> _ModelPrices | None:
    from genai_prices.data_snapshot import get_snapshot

    try:
        provider, known = get_snapshot().find_provider_model(model.lower(), None, None, base_url)
    except LookupError:
        return None
    # A provider that resells another's model has its prices, and not its tiers and batches.
    own = any(known is each for each in provider.models)
    return _ModelPrices(known.prices, (known.price_variants or ()) if own else ())


def _units(prices: Any) -> dict[str, Any]:
    return {
        unit: price
        for unit, price in prices.__dict__.items()
        if price is not None and not unit.startswith("_")
    }


def _in_force(prices: Any, at: datetime) -> Iterator[Any]:
    """The prices that apply at a time, or soon after; later ones in the list come first."""
    if not isinstance(prices, list):
        yield prices
        return
    for each in reversed(prices):
        starts = getattr(each.constraint, "start_date", None)
        if each.constraint is None or (starts is not None and starts <= at.date()):
            yield each.prices
            return
        # Prices by the hour of the day may all apply before the call is billed.
        if starts is None or starts <= (at + _AHEAD).date():
            yield each.prices
    yield prices[0].prices


def _of_tier(known: _ModelPrices, tier: str | None) -> Iterator[dict[str, Any]]:
    """The prices of other tiers, routes and speeds that a call outside a batch may get."""
    for variant in known.variants:
        of_tier = variant.when.get("service_tier")
        is_asked = tier is None or of_tier is None or of_tier in _SAME_TIER.get(tier, (tier,))
        if "processing" not in variant.when and is_asked:
            yield _units(variant.prices)


def _of_batches(known: _ModelPrices, at: datetime) -> list[dict[str, Any]]:
    """The prices of batches that have begun to apply at a time."""
    return [
        _units(variant.prices)
        for variant in known.variants
        if variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(at))
    ]
