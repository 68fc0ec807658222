"""The simulator is on loopback: it listens nowhere else, and answers to no other name."""

from __future__ import annotations

from batchgen.errors import InputError
from batchgen.job.provider import is_loopback
from batchgen.simulator.refusals import RefusalError


def check_loopback(host: str) -> None:
    """Raise InputError if the simulator would listen on another machine's interface."""
    if not is_loopback(host):
        raise InputError(f"the simulator listens on loopback only, not on {host}; use 127.0.0.1")


def refuse_other_hosts(header: str | None) -> None:
    """Raise RefusalError if the Host header of a request names another host.

    A web page could otherwise read what the simulator holds, by a name of its own that leads to
    loopback (DNS rebinding). Browsers always send the header.
    """
    host = "localhost" if header is None else header
    # [::1]:8080, 127.0.0.1:8080, localhost
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if not is_loopback(name.lower().rstrip(".")):
        raise RefusalError(421, "The simulator answers loopback names only, such as 127.0.0.1.")
