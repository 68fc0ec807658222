"""The most that a model charges, for bounds on money."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from batchgen.pricing.money import NANO

# Units that cost only where a request uses a tool of the server, and such a request has no bound.
_TOOL_UNITS = frozenset({"web_searches_kcount", "storage_searches_kcount"})
_REQUESTS = "requests_kcount"
# Tokens that no reply counts as input or output.
_UNCOUNTED = frozenset({"output_citation_mtok"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The highest prices, in USD: per request, and per million input and output tokens.

    The output's price is None where the job's pricing leaves it out.
    """

    request: Decimal = Decimal(0)
    input: Decimal
    output: Decimal | None

    @property
    def are_free(self) -> bool:
        """Whether all prices are 0."""
        return not (self.request or self.input or self.output)

    def halved(self) -> Rates:
        """Half of each price."""
        output = None if self.output is None else self.output / 2
        return Rates(request=self.request / 2, input=self.input / 2, output=output)

    def most(self, inputs: int, outputs: int) -> int | None:
        """The most that one request with these tokens costs, in nano-dollars; None if unknown."""
        if self.output is None and outputs:
            return None
        tokens = self.input * inputs + (self.output or 0) * outputs
        return math.ceil(self.request * NANO + tokens * NANO / 1_000_000)


def highest(sets: Iterable[Mapping[str, Any]]) -> Rates | None:
    """The highest price of every unit over some sets of prices.

    None if a set has a price by a unit that batchgen does not count, such as the hour.
    """
    most: dict[str, Decimal] = {}
    for prices in sets:
        for unit, price in prices.items():
            most[unit] = max(most.get(unit, Decimal(0)), _top(price))
    counted = {unit: rate for unit, rate in most.items() if rate and unit not in _TOOL_UNITS}
    tokens = {unit for unit in counted if unit.endswith("_mtok") and unit not in _UNCOUNTED}
    if counted.keys() - tokens - {_REQUESTS}:
        return None
    outputs = [counted[unit] for unit in tokens if unit.startswith("output_")]
    inputs = [counted[unit] for unit in tokens if not unit.startswith("output_")]
    if not counted and any(most.values()):
        return None
    return Rates(
        request=most.get(_REQUESTS, Decimal(0)) / 1000,
        input=max(inputs, default=Decimal(0)),
        output=max(outputs, default=Decimal(0)),
    )


def _top(price: Any) -> Decimal:
    """The highest price of a unit, over the tiers by length of the input."""
    if price is None:
        return Decimal(0)
    tiers = [tier.price for tier in getattr(price, "tiers", ())]
    return Decimal(max([getattr(price, "base", price), *tiers]))
