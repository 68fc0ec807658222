"""How many connections the limit on open files (RLIMIT_NOFILE) leaves room for."""

from __future__ import annotations

import resource
from contextlib import suppress

# Files that a run opens besides its connections.
RESERVED = 64


def available_connections(wanted: int) -> int:
    """At most `wanted` connections, after raising the limit as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(wanted, soft - RESERVED))
