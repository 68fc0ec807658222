"""What a reply's x-ratelimit headers say of the server's limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"x-ratelimit-(limit|remaining)-(.+)", re.IGNORECASE)

# Of a limit so little is left that nobody should ask faster.
LITTLE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Limits a minute that the headers name (None: none), and whether little is left of any of them."""

    requests: float | None = None
    tokens: float | None = None
    nearly_used: bool = False


def rate_limits(headers: Mapping[str, str]) -> RateLimits:
    """Read x-ratelimit-(limit|remaining)-(requests|tokens|...), as OpenAI names them; names in any case, nonsense ignored.

    `reset` is not read: it says when the limit is whole again, not when a request may be sent.
    """
    said: dict[str, dict[str, float]] = {"limit": {}, "remaining": {}}
    for name, value in headers.items():
        match = _NAME.fullmatch(name)
        number = _number(value) if match else None
        if match and number is not None:
            said[match[1].lower()][match[2].lower()] = number
    limits = {what: limit for what, limit in said["limit"].items() if limit > 0}
    return RateLimits(
        requests=limits.get("requests"),
        tokens=limits.get("tokens"),
        nearly_used=any(
            said["remaining"].get(what, limit) < LITTLE * limit for what, limit in limits.items()
        ),
    )


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
