"""What an exception in place of a reply means: a table decides, by the exception's cause.

The openai client wraps every exception in one of its own, the same for refused connections, DNS,
TLS and resets. The wrapped cause is one of aiohttp's.
"""

from __future__ import annotations

import errno
import os
import ssl
import zlib
from typing import NamedTuple

import aiohttp
import httpx2
import openai

from batchgen.dispatch import Failure, Meaning
from batchgen.dispatch.api.body import ReplyTooLargeError
from batchgen.dispatch.api.errors import classify


class _Cause(NamedTuple):
    """Exceptions of one reason; `may_be_billed` says that the server may have got the request."""

    exceptions: tuple[type[BaseException], ...]
    reason: str
    may_be_billed: bool


# The first match decides, so a subclass stands before its base class.
_CAUSES = (
    _Cause((ReplyTooLargeError, zlib.error, httpx2.DecodingError), "invalid_response", True),
    _Cause((aiohttp.ClientConnectorDNSError,), "dns", False),
    _Cause(
        (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError),
        "certificate",
        False,
    ),
    _Cause((aiohttp.ClientSSLError, ssl.SSLError), "tls", False),
    _Cause((aiohttp.ClientProxyConnectionError,), "proxy", False),
    _Cause((aiohttp.ClientConnectorError,), "refused", False),
    _Cause((aiohttp.ConnectionTimeoutError,), "connect_timeout", False),
    _Cause((aiohttp.SocketTimeoutError,), "timeout", True),
    _Cause(
        (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError),
        "reset",
        True,
    ),
    _Cause((aiohttp.ClientHttpProxyError, httpx2.ProxyError), "proxy", False),
    _Cause((aiohttp.ClientConnectionError,), "reset", True),
    _Cause((TimeoutError, httpx2.TimeoutException), "timeout", True),
    _Cause(
        (aiohttp.ClientError, httpx2.NetworkError, httpx2.ProtocolError, OSError), "reset", True
    ),
)
# Errors of this machine's own network, or of the way to the server.
_UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}
)

# A certificate that is not trusted now is not trusted in a minute: no retry helps.
_MEANINGS: dict[str, Meaning] = {
    "invalid_response": "transient",
    "timeout": "timeout",
    "certificate": "account",
}

# The errors for a status without success. httpx2's error remains where the openai client cannot
# read the body to make its own.
_STATUS_ERRORS = (openai.APIStatusError, httpx2.HTTPStatusError)


def failure_of(error: Exception) -> Failure:
    """The failure that an exception stands for; its message is not redacted."""
    chain = _chain(error)
    for each in chain:
        if isinstance(each, _STATUS_ERRORS):
            response = each.response
            return classify(response.status_code, response.content, response.headers)
    if any(isinstance(each, aiohttp.ClientHttpProxyError) and each.status == 407 for each in chain):
        return classify(407, b"", {})
    for exceptions, reason, may_be_billed in _CAUSES:
        cause = next((each for each in chain if isinstance(each, exceptions)), None)
        if cause is not None:
            number = cause.errno if isinstance(cause, OSError) else None
            if reason == "refused" and number in _UNREACHABLE:
                message = os.strerror(number).lower()
                return Failure(meaning="network", reason="unreachable", message=message)
            return Failure(
                meaning=_MEANINGS.get(reason, "network"),
                reason=reason,
                message=f"{reason}: {cause}" if str(cause) else reason,
                may_be_billed=may_be_billed,
            )
    # A hostile reply can make the libraries raise anything.
    message = f"{type(error).__name__}: {error}"
    return Failure(meaning="transient", reason="client", message=message, may_be_billed=True)


def why_unreached(failure: Failure) -> str:
    """Why no connection to the server was made, in words; empty if one was."""
    words = {
        "unreachable": failure.message,
        "refused": "connection refused",
        "dns": "its name cannot be resolved",
        "connect_timeout": "no connection in time",
    }
    return words.get(failure.reason, "") if failure.meaning == "network" else ""


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and its causes, outermost first; ten at most, since a chain may be a circle."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 10:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain
