"""One free call to the server, and what it says: GET /models, which no provider bills."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from batchgen.dispatch import Failure
from batchgen.doctor.findings import Finding, ok, unknown, wrong
from batchgen.errors import AccountError, InputError, did_you_mean, listed
from batchgen.job import DEFAULT_URL, Connection

# Seconds that the server has for its reply.
TIMEOUT = 15.0
# Seconds by which the clocks may differ: the header has whole seconds, and replies take some.
CLOCK_TOLERANCE = 60.0

# Models of a server that are named if the job's is not among them: no more than this.
_SHOWN = 5

_SERVER = AccountError.exit_code
# Servers without a list of models answer so.
_NO_LIST = (404, 405, 501)
# The reasons of failures that are the key's fault.
_OF_THE_KEY = ("key", "permission")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What came of the call.

    failure: why there is no list; None if there is one.
    headers: of the reply with the list, looked up in lower case.
    models: the ids in the list; None if it has none that can be read.
    received_at: by this machine's clock, in seconds since 1970.
    """

    failure: Failure | None = None
    headers: Mapping[str, str]
    models: tuple[str, ...] | None = None
    received_at: float


def proxy(url: str) -> Finding:
    """The proxy that the environment names for an address, without its password."""
    from batchgen.dispatch.api.proxies import environment_proxy

    try:
        found = environment_proxy(url)
    except InputError as error:
        return wrong("proxy", str(error), error.exit_code)
    return ok("proxy", f"{found.url.host}:{found.url.port}" if found else "none for this address")


async def call(connection: Connection, key: str | None, *, direct: bool) -> Reached:
    """Ask for the list of models, once. Raises InputError for certificates that cannot be read.

    direct: ignore the proxies and certificates that the environment names.
    """
    # openai takes a second to import.
    from batchgen.dispatch.api.client import Client

    async with Client(connection, key, connections=1, direct=direct) as client:
        try:
            async with asyncio.timeout(TIMEOUT):
                reply = await client.call("GET", "/models")
        except TimeoutError:
            message = f"no reply within {TIMEOUT:g} s"
            reply = Failure(meaning="timeout", reason="timeout", message=message)
        now = time.time()
        if isinstance(reply, Failure):
            return Reached(failure=reply, headers={}, received_at=now)
        parsed = reply.parsed[0] if reply.parsed else None
        return Reached(headers=reply.headers, models=_ids(parsed), received_at=now)


def _ids(parsed: Any) -> tuple[str, ...] | None:
    """The ids in a list of models; None if it is no such list."""
    data = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(data, list):
        return None
    ids = [each.get("id") for each in data if isinstance(each, dict)]
    return tuple(each for each in ids if isinstance(each, str))


def of_server(reached: Reached, connection: Connection) -> Iterator[Finding]:
    """Whether the server was reached, and by its own name."""
    failure, host = reached.failure, connection.host
    reason = failure.reason if failure is not None else ""
    if failure is not None and reason in ("certificate", "tls"):
        yield wrong("certificate", _sentence(failure, host), _SERVER)
        yield unknown("server", "not asked, because of its certificate")
        return
    if not connection.base_url.startswith("https:"):
        yield ok("certificate", "none is needed: the address is plain http")
    elif failure is None or failure.status is not None:
        source = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
        yield ok("certificate", f"trusted{f', by those of {source}' * bool(source)}")
    else:
        yield unknown("certificate", "not checked: the server was not reached")
    if failure is None or failure.status in _NO_LIST or reason in _OF_THE_KEY:
        yield ok("server", f"{host} answers")
    else:
        yield wrong("server", _sentence(failure, host), _SERVER)


def key(reached: Reached, host: str, *, was_sent: bool) -> Finding:
    """Whether the server takes the key; `was_sent`: there is one."""
    failure = reached.failure
    if failure is None:
        return ok("key", f"{host} takes it" if was_sent else "none is sent, and none is wanted")
    if failure.reason == "permission" and "api.model.read" in failure.message:
        return ok("key", f"{host} knows it; it may not list models, so none was checked")
    if failure.reason in _OF_THE_KEY:
        return wrong("key", _sentence(failure, host), _SERVER)
    if not was_sent:
        return ok("key", "none is sent (provider.api_key_env: null)")
    return unknown("key", "its form is right; whether the server takes it is not known")


def _sentence(failure: Failure, host: str) -> str:
    """What a failure means, and what to do."""
    from batchgen.dispatch.api.causes import why_unreached
    from batchgen.dispatch.api.errors import account_error

    if failure.meaning == "account":
        return str(account_error(failure, host, None))
    if failure.reason == "proxy":
        why = failure.message.removeprefix("proxy: ")
        return f"{host} cannot be reached through the proxy: {why}; fix HTTPS_PROXY or NO_PROXY"
    if why := why_unreached(failure):
        return f"{host} cannot be reached: {why}; check provider.base_url, the network, the proxy"
    return f"{host} did not answer as it should: {failure.message}; try again, or ask its operator"


def clock(reached: Reached) -> Finding:
    """Whether this machine's clock agrees with the server's."""
    try:
        there = parsedate_to_datetime(reached.headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return unknown("clock", "not checked: the server did not tell the time")
    ahead = reached.received_at - there
    if abs(ahead) <= CLOCK_TOLERANCE:
        return ok("clock", "agrees with the server's")
    return wrong(
        "clock",
        f"is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's; set it "
        "(by NTP): times in tables, waits and limits by day depend on it",
        _SERVER,
    )


def model(reached: Reached, name: str, connection: Connection) -> Finding:
    """Whether the server lists a model."""
    if reached.models is None:
        return unknown("model", f"{name}: not checked: the server gave no list of models")
    if name in reached.models:
        return ok("model", f"{name}: the server has it")
    near = did_you_mean(name, reached.models)
    if connection.base_url == DEFAULT_URL:
        return wrong(
            "model", f"{name}: this key may not use it, or it does not exist{near}", _SERVER
        )
    # Azure lists no deployments, and routers take names that they do not list.
    shown = listed(sorted(reached.models)) if len(reached.models) <= _SHOWN else near.strip("; ")
    return unknown(
        "model",
        f"{name}: not in the list of the server, which need not be complete"
        f"{f': {shown}' * bool(shown)}",
    )


def limits(reached: Reached) -> Finding:
    """The rate limits that the server's reply names."""
    from batchgen.dispatch.api.headers import rate_limits

    if reached.failure is not None:
        return unknown("limits", "not checked: the server gave no list of models")
    found = rate_limits(reached.headers)
    named = {"requests": found.requests, "tokens": found.tokens}
    texts = [f"{number:,.0f} {unit} a minute" for unit, number in named.items() if number]
    if not texts:
        return ok("limits", "none named in this reply; a run learns them from its answers")
    return ok("limits", f"the server names {' and '.join(texts)}")
