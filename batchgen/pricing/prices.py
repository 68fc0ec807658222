"""What requests and answers cost at one provider."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, Protocol

from batchgen.job import Price
from batchgen.pricing.fees import fees_not_included
from batchgen.pricing.money import NANO
from batchgen.pricing.rates import Rates
from batchgen.pricing.table import (
    batch_cost_of,
    cost_of,
    halves_batches,
    in_batch,
    rates_of,
)
from batchgen.replies import Answer, Usage
from batchgen.requests import Request, searches

# Tiers that leave the choice to the server, so that a call may be billed at any of them.
_ANY_TIER = frozenset({"", "auto"})


def _now() -> datetime:
    return datetime.now(UTC)


# Tokens of input and output, such that each shows one price.
_MILLIONS = ((1_000_000, 0), (0, 1_000_000))


class BatchShares(NamedTuple):
    """What requests cost in a batch, as shares of what they cost outside one, from 0 to 1.

    cost: of the expected cost. bound: of the highest cost. The two differ, because outside a batch
    the server may choose a dearer tier than the one that is expected.
    """

    cost: float
    bound: float


class Prices:
    """What requests cost at one provider.

    pricing: the job's own prices, by model.
    base_url: identifies the provider in genai-prices.
    now: the time, by which prices change.
    """

    def __init__(
        self, pricing: Mapping[str, Price], base_url: str, *, now: Callable[[], datetime] = _now
    ) -> None:
        self._pricing = pricing
        self._base_url = base_url
        self._now = now
        self._cost_at = lru_cache(maxsize=4096)(self._priced)
        self._rates_on = lru_cache(maxsize=256)(self._highest_rates)
        self._shares_on = lru_cache(maxsize=256)(self._batch_shares)

    def cost(
        self,
        model: str,
        usage: Usage,
        *,
        pictures: int = 0,
        tier: str | None = None,
        batch: bool = False,
    ) -> int | None:
        """What one answer cost, in nano-dollars; None if the price or the usage is unknown.

        model: the model to price it by.
        usage: the reply's token counts, and the server's own bill where it sends one.
        pictures: how many pictures the answer has.
        tier: the service tier that answered.
        batch: whether the call was made in a batch.
        """
        if usage.cost is not None:
            return usage.cost
        minute = self._now().replace(second=0, microsecond=0)
        return self._cost_at(model, usage, pictures, tier, batch, minute)

    def _priced(
        self,
        model: str,
        usage: Usage,
        pictures: int,
        tier: str | None,
        batch: bool,
        at: datetime,
    ) -> int | None:
        """What `cost` is at one minute: by the job's prices, or else by the table's.

        The parameters are those of `cost`; `at` is the minute.
        """
        own = self._pricing.get(model)
        if own is not None and own.input is not None:
            cost = self._reduced(_own_cost(own, usage), batch=batch)
        else:
            cost = self._table_cost(model, usage, tier, drawn=pictures > 0, batch=batch, at=at)
        if cost is None and pictures and own is not None and own.image is not None:
            return self._reduced(math.ceil(own.image * NANO) * pictures, batch=batch)
        return cost

    def _reduced(self, nano: int | None, *, batch: bool) -> int | None:
        """A cost by the job's own prices, which are those outside a batch."""
        return nano if nano is None or not batch else in_batch(nano, self._base_url)

    def _table_cost(
        self,
        model: str,
        usage: Usage,
        tier: str | None,
        *,
        drawn: bool,
        batch: bool,
        at: datetime,
    ) -> int | None:
        """What one answer cost by genai-prices, in nano-dollars; None if it is unknown.

        The parameters are those of `cost`; `drawn`: whether the answer has pictures.
        """
        rates = self._rates(model, tier, batch=batch)
        if rates is not None and rates.are_free:
            return 0
        if (
            rates is None
            or usage.input_tokens is None
            or (usage.output_tokens is None and rates.output)
            or (searches(model) and not rates.request)
        ):
            return None
        if batch:
            return batch_cost_of(model, self._base_url, usage, drawn=drawn, at=at)
        context = {"service_tier": tier} if tier else {}
        return cost_of(model, self._base_url, usage, context=context, drawn=drawn, at=at)

    def answer_cost(self, request: Request, answer: Answer, *, batch: bool = False) -> int | None:
        """What an answer cost, in nano-dollars: by the model of the request, else by that of the
        reply.
        """
        asked = str(request.body.get("model", ""))
        pictures = len(answer.choices) if request.pictures else 0
        tier = answer.service_tier or _tier_of(request)
        for model in dict.fromkeys((asked, answer.model or asked)):
            cost = self.cost(model, answer.usage, pictures=pictures, tier=tier, batch=batch)
            if cost is not None:
                return cost
        return None

    def usage_cost(self, request: Request, usage: Usage, *, batch: bool = False) -> int | None:
        """What a reply without an answer cost, in nano-dollars, by what it says that it took."""
        return self.cost(
            str(request.body.get("model", "")),
            usage,
            pictures=request.pictures,
            tier=_tier_of(request),
            batch=batch,
        )

    def forecast(self, request: Request, usage: Usage) -> int | None:
        """What a request is expected to cost outside a batch, in nano-dollars, at its own tier."""
        return self.cost(str(request.body.get("model", "")), usage, tier=_tier_of(request))

    def bound(self, request: Request, *, batch: bool = False) -> int | None:
        """The most that one attempt of a request can cost, in nano-dollars; None without price or
        cap.
        """
        model = request.body.get("model")
        if not isinstance(model, str):
            return None
        own = self._pricing.get(model)
        if request.pictures:
            if own is None or own.image is None or request.unbounded_by:
                return None
            return self._reduced(math.ceil(own.image * NANO) * request.pictures, batch=batch)
        rates = self._rates(model, _tier_of(request), batch=batch)
        if rates is None or request.answer_bound is None or request.unbounded_by:
            return None
        if searches(model) and not rates.request:
            return None
        return rates.most(request.input_bound, request.answer_bound)

    def fees_not_included(self, request: Request) -> list[str]:
        """Tools that a request lets the server run, and whose fees are in no cost."""
        return fees_not_included(request, self._pricing, self._base_url)

    def batch_shares(self, request: Request) -> BatchShares:
        """What a request costs in a batch, as shares of what it costs outside one."""
        model, tier = request.body.get("model"), _tier_of(request)
        if not isinstance(model, str):
            return BatchShares(1.0, 1.0)
        return self._shares_on(model, tier, request.pictures > 0, self._now().date())

    def _batch_shares(self, model: str, tier: str | None, draws: bool, day: date) -> BatchShares:
        """The parameters are those of a request; `day` makes the result forget yesterday's."""
        if draws:
            share = 0.5 if halves_batches(self._base_url) else 1.0
            return BatchShares(share, share)

        def cost(tokens: tuple[int, int], *, batch: bool) -> int | None:
            usage = Usage(input_tokens=tokens[0], output_tokens=tokens[1])
            return self.cost(model, usage, tier=tier, batch=batch)

        def bound(tokens: tuple[int, int], *, batch: bool) -> int | None:
            rates = self._rates_on(model, tier, batch, day)
            return rates.most(*tokens) if rates else None

        return BatchShares(*map(_highest_share, (cost, bound)))

    def missing_for_bound(self, request: Request) -> str:
        """What `bound` needs and is missing, as the end of a sentence."""
        model = request.body.get("model")
        if not isinstance(model, str):
            return "request.model"
        if request.unbounded_by:
            return (
                f"a request without {request.unbounded_by!r}: what the server reads or does because"
                " of it has no bound"
            )
        if request.pictures:
            return f"pricing.{model}.image: the highest price of one picture in USD"
        rates = self._rates(model, _tier_of(request), batch=False)
        if rates is None:
            return (
                f"pricing.{model}: genai-prices does not know this model at {self._base_url},"
                " or prices it by more than tokens and requests"
            )
        if searches(model) and not rates.request:
            return (
                f"pricing.{model} with input, output and request: this model searches by itself,"
                " and genai-prices does not know what a request costs"
            )
        if rates.output is None and request.answer_bound != 0:
            return f"pricing.{model}.output: USD per million output tokens"
        return (
            "a cap on the answer: request.max_completion_tokens (chat), max_output_tokens "
            "(text) or max_tokens (completion)"
        )

    def _rates(self, model: str, tier: str | None, *, batch: bool) -> Rates | None:
        return self._rates_on(model, tier, batch, self._now().date())

    def _highest_rates(self, model: str, tier: str | None, batch: bool, day: date) -> Rates | None:
        """The highest prices of a model on a day; None if there is no price."""
        own = self._pricing.get(model)
        if own is None or own.input is None:
            at = datetime.combine(day, time(), UTC)
            return rates_of(model, self._base_url, tier=tier, batch=batch, at=at)
        rates = Rates(
            request=Decimal(str(own.request or 0)),
            input=Decimal(str(max(own.input, own.cached_input or 0))),
            output=None if own.output is None else Decimal(str(own.output)),
        )
        return rates.halved() if batch and halves_batches(self._base_url) else rates


def _tier_of(request: Request) -> str | None:
    """The tier that a request names; None where it leaves the choice to the server."""
    tier = request.body.get("service_tier")
    return tier if isinstance(tier, str) and tier not in _ANY_TIER else None


class _Priced(Protocol):
    def __call__(self, tokens: tuple[int, int], *, batch: bool) -> int | None: ...


def _highest_share(price: _Priced) -> float:
    """The highest share that a batch takes of a price outside one; 1 if none is known."""
    pairs = [(price(each, batch=True), price(each, batch=False)) for each in _MILLIONS]
    shares = [min(1.0, batch / online) for batch, online in pairs if online and batch is not None]
    return max(shares, default=1.0)


def _own_cost(price: Price, usage: Usage) -> int | None:
    """What one answer cost by the job's own prices, in nano-dollars; None if it is unknown."""
    if usage.input_tokens is None or (usage.output_tokens is None and price.output):
        return None
    if price.output is None and usage.output_tokens:
        return None
    cached = min(usage.cached_tokens or 0, usage.input_tokens)
    rate = Decimal(str(price.input))
    cached_rate = rate if price.cached_input is None else Decimal(str(price.cached_input))
    output = Decimal(str(price.output or 0)) * (usage.output_tokens or 0)
    tokens = rate * (usage.input_tokens - cached) + cached_rate * cached + output
    return math.ceil(Decimal(str(price.request or 0)) * NANO + tokens * NANO / 1_000_000)
