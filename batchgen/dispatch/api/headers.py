"""The server's rate limits, read from the headers of a reply that describe them.

Sources: https://platform.openai.com/docs/guides/rate-limits, "Rate limits in headers";
https://console.groq.com/docs/rate-limits; https://docs.claude.com/en/api/rate-limits;
https://openrouter.ai/docs/api/reference/limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from batchgen.dispatch.api.waits import number_in, seconds_until

# The unit of a limit is such as requests or tokens; OpenRouter names none. LiteLLM puts its own
# prefix before the names.
_NAMES = (
    re.compile(
        r"(?:llm_provider-)?x-ratelimit-(?P<what>limit|remaining|reset)(?:-(?P<unit>.+))?",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:llm_provider-)?anthropic-ratelimit-(?P<unit>.+)-(?P<what>limit|remaining|reset)",
        re.IGNORECASE,
    ),
)

# Below this share of a limit, requests should not become more frequent.
NEARLY_USED = 0.1

# The longest wait, in seconds, for a limit to be full again: it lets requests through long before.
LONGEST_REFILL = 60.0

# A limit that takes longer than this, in seconds, to be full again is not one a minute.
LONGEST_MINUTE = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Limits that the headers name, per minute; None for those that they do not name.

    nearly_used: little is left of one of them.
    """

    requests: float | None = None
    tokens: float | None = None
    nearly_used: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What the headers say of one limit.

    reset: seconds until it is full again, or, without a unit, until it begins anew.
    is_duration: `reset` is written as a duration, which OpenAI and Groq compute from what is used;
        others write whole seconds, or those until a window ends.
    """

    limit: float | None
    remaining: float | None
    reset: float | None
    is_duration: bool

    @property
    def per_minute(self) -> float | None:
        """The limit, unless it is one of another time: Groq's limit of requests is a day's."""
        limit = self.limit if self.limit and self.limit > 0 else None
        if limit is None or self.remaining is None or self.reset is None or not self.is_duration:
            return limit
        used = limit - self.remaining
        is_longer = used > 0 and self.reset * limit / used > LONGEST_MINUTE
        return None if is_longer else limit


def rate_limits(headers: Mapping[str, str]) -> RateLimits:
    """The limits that headers name; header names in any case, and nonsense is ignored."""
    limits = _described(headers)
    per_minute = {unit: limit.per_minute for unit, limit in limits.items()}
    return RateLimits(
        requests=per_minute.get("requests"),
        tokens=per_minute.get("tokens"),
        nearly_used=any(
            (each.limit or 0) > 0
            and each.remaining is not None
            and each.remaining < NEARLY_USED * (each.limit or 0)
            for unit, each in limits.items()
            if unit
        ),
    )


def refill(headers: Mapping[str, str]) -> float | None:
    """Seconds until a used-up limit has room again; None if none is used up."""
    waits = [
        min(each.reset, LONGEST_REFILL) if unit else each.reset
        for unit, each in _described(headers).items()
        if each.reset and each.remaining is not None and each.remaining <= 0
    ]
    return max(waits, default=None)


def _described(headers: Mapping[str, str]) -> dict[str, _Described]:
    """The limits that headers describe, by unit."""
    found: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        for pattern in _NAMES:
            if match := pattern.fullmatch(name):
                unit = (match["unit"] or "").lower()
                found.setdefault(unit, {})[match["what"].lower()] = value
    return {
        unit: _Described(
            limit=_signed(values.get("limit")),
            remaining=_signed(values.get("remaining")),
            reset=seconds_until(values.get("reset", ""), headers),
            is_duration=values.get("reset", "").endswith("s"),
        )
        for unit, values in found.items()
    }


def _signed(value: str | None) -> float | None:
    """A number; Azure sends less than nothing for what remains."""
    negative = value is not None and value.startswith("-")
    number = number_in(value.removeprefix("-") if value else None)
    return -number if negative and number is not None else number
