"""Fees of tools that the server runs, beside the price of tokens."""

from __future__ import annotations

from collections.abc import Mapping

from batchgen.job import Price
from batchgen.pricing.table import bills_itself, prices_searches
from batchgen.requests import Request, server_tools

# Types of tools, by their beginning, and the units of genai-prices that they are billed by.
_UNITS = {"web_search": "web_searches_kcount", "file_search": "storage_searches_kcount"}


def fees_not_included(request: Request, pricing: Mapping[str, Price], base_url: str) -> list[str]:
    """Tools that a request lets the server run, and whose fees are in no cost.

    request: what is sent.
    pricing: the job's own prices, by model; they have none for tools.
    base_url: identifies the provider in genai-prices.
    """
    if bills_itself(base_url):
        return []
    model = str(request.body.get("model"))
    own = pricing.get(model)
    # Only the items of a response show how often a tool was run.
    counted = request.endpoint == "/responses" and (own is None or own.input is None)
    return [
        tool
        for tool in server_tools(request.body)
        if not (counted and prices_searches(model, base_url, _unit_of(tool)))
    ]


def _unit_of(tool: str) -> str:
    return next((unit for name, unit in _UNITS.items() if tool.startswith(name)), "")
