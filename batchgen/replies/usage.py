"""What a reply says that it took: token counts, and the server's own bill."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Json = Mapping[str, Any]

# A larger count of tokens is not believed, so that sums of costs stay within SQLite's integers.
MAX_TOKENS = 1_000_000_000
# Nor is a larger bill for one call, in USD.
_MAX_BILL = 1_000_000

_NANO = 1_000_000_000
# xAI counts 10,000,000,000 ticks to a dollar: https://docs.x.ai/docs/api-reference
_NANO_PER_TICK = Decimal("0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts from the server. A count that it did not send is None, never 0.

    `input_tokens` includes `cached_tokens`, `cache_write_tokens`, `image_tokens` and
    `audio_tokens`; `output_tokens` includes `reasoning_tokens` and all that begin with `output_`.
    `web_searches` and `file_searches` count tools that the server ran. `cost` is the server's own
    bill in nano-dollars.
    """

    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    image_tokens: int | None = None
    audio_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    output_audio_tokens: int | None = None
    output_image_tokens: int | None = None
    output_text_tokens: int | None = None
    web_searches: int | None = None
    file_searches: int | None = None
    cost: int | None = None


_UNCOUNTED = Usage()
_ANTHROPIC = ("cache_read_input_tokens", "cache_creation_input_tokens")


def read_usage(response: Json) -> Usage:
    """The reply's token counts, in either spelling: prompt and completion, or input and output."""
    usage = mapping(response.get("usage"))
    if not usage and not response.get("output"):
        return _UNCOUNTED
    inside = mapping(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    outside = mapping(usage.get("completion_tokens_details") or usage.get("output_tokens_details"))
    # DeepSeek, Moonshot and Anthropic count cache hits beside the other counts.
    cached = _highest(
        _count(inside, "cached_tokens"),
        _count(usage, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"),
    )
    written = _highest(
        _count(inside, "cache_write_tokens", "cache_creation_tokens"),
        _count(usage, "cache_creation_input_tokens"),
    )
    reasoning = _highest(_count(outside, "reasoning_tokens"), _count(usage, "reasoning_tokens"))
    tokens_in = _whole_input(usage, (cached or 0) + (written or 0))
    tokens_out = _whole_output(usage, tokens_in, reasoning)
    if not tokens_in and not tokens_out:
        # Gateways fill in zeros for what they did not count, but every request has an input.
        tokens_in = tokens_out = None
    return Usage(
        input_tokens=tokens_in,
        cached_tokens=cached,
        cache_write_tokens=written,
        image_tokens=_count(inside, "image_tokens"),
        audio_tokens=_count(inside, "audio_tokens"),
        output_tokens=tokens_out,
        reasoning_tokens=reasoning,
        output_audio_tokens=_count(outside, "audio_tokens"),
        output_image_tokens=_count(outside, "image_tokens"),
        output_text_tokens=_count(outside, "text_tokens"),
        web_searches=_highest(
            _count(mapping(usage.get("server_tool_use")), "web_search_requests"),
            _count(mapping(usage.get("server_tool_use_details")), "web_search_requests"),
            _calls(response, "web_search_call"),
        ),
        file_searches=_calls(response, "file_search_call"),
        cost=_bill(usage),
    )


def _calls(response: Json, tool: str) -> int | None:
    """How often the server ran a tool, by the items of a response; None without any.

    A page that was opened or searched for a text is no search of the web.
    """
    output = response.get("output")
    items = [mapping(item) for item in output] if isinstance(output, list) else []
    actions = [mapping(item.get("action")) for item in items if item.get("type") == tool]
    return sum(action.get("type", "search") == "search" for action in actions) or None


def _whole_input(usage: Json, cached: int) -> int | None:
    """The input with its cached part, which some servers count apart, as Anthropic's own does."""
    counted = _count(usage, "prompt_tokens", "input_tokens")
    if counted is None:
        return None
    is_apart = not usage.keys() & {"prompt_tokens", "total_tokens", "input_tokens_details"}
    is_apart = is_apart and any(name in usage for name in _ANTHROPIC)
    return counted + cached if is_apart or cached > counted else counted


def _whole_output(usage: Json, tokens_in: int | None, reasoning: int | None) -> int | None:
    """The output with hidden reasoning, which some servers leave out of it.

    Whatever the total has beyond the input and the output was made by the model.
    """
    output = _count(usage, "completion_tokens", "output_tokens")
    total = _count(usage, "total_tokens")
    if tokens_in is not None and total is not None:
        beyond = total - tokens_in - (output or 0)
        if beyond > 0:
            return (output or 0) + beyond
        if beyond == 0:
            return output
    if output is not None and reasoning is not None and reasoning > output:
        return output + reasoning
    return output


def _bill(usage: Json) -> int | None:
    """What the server says that the call cost, in nano-dollars; None if it does not say so."""
    ticks = _amount(usage.get("cost_in_usd_ticks"))
    if ticks is not None:
        return _billed(ticks * _NANO_PER_TICK)
    # Perplexity itemizes the cost; DeepInfra calls it an estimate.
    cost = usage.get("cost")
    cost = cost.get("total_cost") if isinstance(cost, Mapping) else cost
    amount = _amount(usage.get("estimated_cost") if cost is None else cost)
    if amount is None:
        return None
    if usage.get("is_byok") is True:
        # OpenRouter: the cost is its fee, and the provider bills the rest to the user's own key.
        rest = _amount(mapping(usage.get("cost_details")).get("upstream_inference_cost"))
        if rest is None:
            return None
        amount += rest
    return _billed(amount * _NANO)


def _billed(nano: Decimal) -> int | None:
    return math.ceil(nano) if nano <= _MAX_BILL * _NANO else None


def _amount(value: object) -> Decimal | None:
    """A number of JSON that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value)) if math.isfinite(value) and value >= 0 else None


def _highest(*counts: int | None) -> int | None:
    return max((count for count in counts if count is not None), default=None)


def mapping(value: object) -> Json:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _count(source: Json, *names: str) -> int | None:
    """The highest count under these names: gateways send both spellings, one of them as 0."""
    return _highest(*(_number_of_tokens(source.get(name)) for name in names))


def _number_of_tokens(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # True is an int too, but not a count.
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None
