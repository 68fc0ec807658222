"""The proxy that the environment names for an address, as httpx2 reads HTTP_PROXY and NO_PROXY.

httpx2 matches addresses against proxies by its public `mounts`; how it builds them from the
environment is not public, so that part is repeated here.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from urllib.request import getproxies

import httpx2

from batchgen.errors import InputError

# The schemes that aiohttp can use for a proxy; it has no SOCKS.
_SCHEMES = ("http", "https")
_VARIABLES = ("https_proxy", "http_proxy", "all_proxy")


def environment_proxy(url: str) -> httpx2.Proxy | None:
    """The proxy for `url`, or None for a direct connection.

    Raises InputError when the environment names one that cannot be used.
    """
    variables = getproxies()
    direct_hosts = [host.strip() for host in variables.get("no", "").split(",") if host.strip()]
    if "*" in direct_hosts:
        return None
    addresses: dict[str, str | None] = {
        f"{scheme}://": address if "://" in address else f"http://{address}"
        for scheme in ("http", "https", "all")
        if (address := variables.get(scheme))
    }
    if not addresses:
        return None
    patterns = filter(None, map(_direct_pattern, direct_hosts))
    addresses.update(dict.fromkeys(patterns))
    try:
        proxies = {
            pattern: httpx2.Proxy(address) if address else None
            for pattern, address in addresses.items()
        }
    except (ValueError, httpx2.InvalidURL):
        raise _unusable() from None
    proxy = _match(url, proxies)
    if proxy is not None and (proxy.url.scheme not in _SCHEMES or not proxy.url.host):
        raise _unusable()
    return proxy


def _match(url: str, proxies: dict[str, httpx2.Proxy | None]) -> httpx2.Proxy | None:
    """The proxy of the most specific pattern that matches: httpx2 decides, and sends nothing."""
    matched: list[httpx2.Proxy | None] = []

    def transport(proxy: httpx2.Proxy | None) -> httpx2.MockTransport:
        def handle(_: httpx2.Request) -> httpx2.Response:
            matched.append(proxy)
            return httpx2.Response(204)

        return httpx2.MockTransport(handle)

    mounts = {pattern: transport(proxy) for pattern, proxy in proxies.items()}
    with httpx2.Client(transport=transport(None), mounts=mounts, trust_env=False) as client:
        client.get(url)
    return matched[0]


def _direct_pattern(host: str) -> str | None:
    """An entry of NO_PROXY as a pattern of `mounts`; None for one that httpx2 cannot read.

    httpx2 ignores such entries, as curl and Go do.
    """
    address, slash, prefix = host.partition("/")
    if "://" in host:
        pattern = host
    elif _is(ipaddress.IPv4Address, address):
        pattern = f"all://{host}"
    elif _is(ipaddress.IPv6Address, address):
        pattern = f"all://[{address}]{slash}{prefix}"
    elif host.lower() == "localhost" or host.startswith("["):
        pattern = f"all://{host}"
    elif slash:
        return None
    else:
        # A name also stands for all names that end with it, unless it begins with "*.".
        pattern = f"all://{host}" if host.startswith("*.") else f"all://*{host}"
    try:
        httpx2.Client(transport=httpx2.BaseTransport(), mounts={pattern: None}, trust_env=False)
    except httpx2.InvalidURL:
        return None
    return pattern


def _is(kind: Callable[[str], object], address: str) -> bool:
    try:
        kind(address)
    except ValueError:
        return False
    return True


def _unusable() -> InputError:
    # The address is not shown: it may hold a password.
    names = ", ".join(
        name for name in sorted(os.environ) if name.lower() in _VARIABLES and os.environ[name]
    )
    return InputError(
        f"a proxy that the environment names ({names}) is no http:// or https:// address;"
        " fix or unset it"
    )
