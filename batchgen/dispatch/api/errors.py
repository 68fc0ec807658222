"""What a failure means: tables decide, by the error code, then the HTTP status (see `codes`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from batchgen.dispatch import Failure
from batchgen.dispatch.api.codes import CODES, STATUSES, Rule
from batchgen.dispatch.api.error_body import ErrorBody, error_in, refusal_in
from batchgen.dispatch.api.headers import rate_limits, refill
from batchgen.dispatch.api.waits import retry_after, wait_in
from batchgen.errors import AccountError

# Bytes of a reply without JSON that are kept for its message. That is far more than is shown: a key
# must be redacted before the message is cut, because a cut could leave half of the key.
QUOTED = 65_536

# The gateway stopped waiting (504; Cloudflare's 524), but the server behind it may have worked on.
_GATEWAY_TIMEOUTS = frozenset({504, 524})


def classify(status: int | None, body: bytes, headers: Mapping[str, str]) -> Failure:
    """The failure that a reply stands for: one without a success status, or with an error inside.

    An error in a reply of status 200 means what the status in its code means, else a failure of the
    server. Without a status (an error in the object of a batch), an unknown code is the row's.
    """
    parsed = _json(body)
    error = (error_in(parsed) if status == 200 else refusal_in(parsed)) or ErrorBody()
    judged = _judged_status(status, error)
    wait = retry_after(headers)
    meaning, reason = _meaning(judged, error, wait)
    if wait is None and meaning in ("throttled", "transient"):
        wait = wait_in(parsed, error.message)
    if wait is None and meaning == "throttled":
        wait = refill(headers)
    return Failure(
        meaning=meaning,
        reason=reason,
        message=error.message or _wordless(status, error, body),
        status=status,
        code=error.known or error.code,
        request_id=headers.get("x-request-id") or headers.get("request-id"),
        retry_after=wait,
        ceiling=rate_limits(headers).requests,
        may_be_billed=_may_be_billed(status, judged) or reason == "invalid_response",
    )


def _may_be_billed(status: int | None, judged: int) -> bool:
    """Whether the server may have worked on the request: it broke off, or a gateway gave up."""
    return judged in _GATEWAY_TIMEOUTS or (status == 200 and judged >= 500)


def _judged_status(status: int | None, error: ErrorBody) -> int:
    """The status by which an error is judged."""
    if status is not None and status != 200:
        return status
    if error.code and re.fullmatch(r"[45]\d\d", error.code):
        return int(error.code)
    return 400 if status is None else 502


def _meaning(status: int, error: ErrorBody, wait: float | None) -> Rule:
    if error.known is not None:
        return CODES[error.known]
    if status == 402 and wait is not None:
        return "throttled", "throttled"
    if status == 400 and error.param == "service_tier":
        return "account", "service_tier"
    if status == 400 and error.param == "input_tokens":
        # vLLM has no code for it.
        return "row", "too_long"
    if 300 <= status < 400:
        return "account", "redirect"
    if status >= 500:
        return "transient", "server"
    return STATUSES.get(status, ("row", "bad_request"))


def _wordless(status: int | None, error: ErrorBody, body: bytes) -> str:
    """The message for an error without words: its code, or what came in place of JSON."""
    http = "" if status is None else f"HTTP {status}"
    if error.code:
        return f"{http} ({error.code})" if http else error.code
    return body[:QUOTED].decode("utf-8", "replace").strip() or http


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


# What stops the job, and what the user can do, by the failure's reason.
_ACCOUNT = {
    "key": "{host} refused the key: {message}; check the variable that provider.api_key_env names",
    "quota": "the account's quota or budget is used up: {message}; top it up or raise it",
    "permission": "{host} does not permit this: {message};"
    " check the key's project, region and permissions",
    "forbidden": "{host} does not permit this: {message};"
    " check the key's project, region and permissions",
    "model": "the model {model!r} does not exist at {host} or this key may not use it: {message};"
    " fix request.model",
    "proxy": "the proxy before {host} requires a name and a password: {message};"
    " put them into HTTPS_PROXY",
    "redirect": "{host} redirects to another address, and batchgen never sends prompts there;"
    " set provider.base_url",
    "certificate": "the certificate of {host} is not trusted: {message}; if its authority is your"
    " own, name its file in SSL_CERT_FILE",
    "service_tier": "{host} refused request.service_tier: {message}",
}


def account_error(failure: Failure, host: str, model: object) -> AccountError:
    """The error that stops the job for an account failure, with what the user can do."""
    message = failure.message.rstrip(". ")
    text = _ACCOUNT[failure.reason].format(host=host, message=message, model=model)
    return AccountError(f"{text}, then run again")
