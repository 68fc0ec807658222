"""The server's rate limits, read from the x-ratelimit headers of a reply.

Source: https://platform.openai.com/docs/guides/rate-limits, "Rate limits in headers".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"x-ratelimit-(limit|remaining)-(.+)", re.IGNORECASE)

# Below this share of a limit, requests should not become more frequent.
NEARLY_USED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Limits that the headers name, per minute; None for those that they do not name.

    nearly_used: little is left of one of them.
    """

    requests: float | None = None
    tokens: float | None = None
    nearly_used: bool = False


def rate_limits(headers: Mapping[str, str]) -> RateLimits:
    """Read x-ratelimit-(limit|remaining)-(requests|tokens|...); header names in any case.

    Values other than numbers are ignored. `reset` is not read: it says when the whole limit is
    available again, not when the next request may be sent.
    """
    values: dict[str, dict[str, float]] = {"limit": {}, "remaining": {}}
    for name, value in headers.items():
        match = _NAME.fullmatch(name)
        number = _number(value) if match else None
        if match and number is not None:
            values[match[1].lower()][match[2].lower()] = number
    limits = {unit: limit for unit, limit in values["limit"].items() if limit > 0}
    remaining = values["remaining"]
    return RateLimits(
        requests=limits.get("requests"),
        tokens=limits.get("tokens"),
        nearly_used=any(
            remaining.get(unit, limit) < NEARLY_USED * limit for unit, limit in limits.items()
        ),
    )


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
