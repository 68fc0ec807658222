"""What a failure means: tables decide, by the error code, then the HTTP status, not the message.

Sources: https://platform.openai.com/docs/guides/error-codes, the error codes of the Responses API
(https://platform.openai.com/docs/api-reference/responses/object) and RFC 9110, 15 for statuses.
Compatible servers add their own: OpenRouter's numeric codes and 402
(https://openrouter.ai/docs/api-reference/errors), Groq's 498 (https://console.groq.com/docs/errors),
vLLM's top-level errors, Ollama's error strings, Gemini's lists and FastAPI's `detail`.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from batchgen.dispatch import Failure, Meaning
from batchgen.dispatch.api.headers import rate_limits
from batchgen.errors import AccountError

# Bytes of a reply without JSON that are kept for its message. That is far more than is shown: a key
# must be redacted before the message is cut, because a cut could leave half of the key.
QUOTED = 65_536

# How deep, and how many in a list, the words of an error are looked for.
MAX_NESTED = 6
MAX_LISTED = 10

# What a failure means, and the reason that reports show.
Rule = tuple[Meaning, str]

# By `error.code`, else `error.type`.
_CODES: dict[str, Rule] = {
    **dict.fromkeys(
        ("rate_limit_exceeded", "rate_limit_error", "slow_down"), ("throttled", "throttled")
    ),
    **dict.fromkeys(
        (
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "billing_not_active",
            "budget_exceeded",
        ),
        ("account", "quota"),
    ),
    **dict.fromkeys(
        # In capitals: `reason` in the details of Google's errors.
        ("invalid_api_key", "account_deactivated", "incorrect_api_key", "API_KEY_INVALID"),
        ("account", "key"),
    ),
    **dict.fromkeys(
        (
            "content_policy_violation",
            "moderation_blocked",
            "content_filter",
            "invalid_prompt",
            "bio_policy",
            "misalignment_policy_violation",
            "image_content_policy_violation",
        ),
        ("row", "policy"),
    ),
    # A response with status "failed" has one of these in place of an HTTP status.
    **dict.fromkeys(
        (
            "data_residency_mismatch",
            "invalid_image",
            "invalid_image_format",
            "invalid_base64_image",
            "invalid_image_url",
            "image_too_large",
            "image_too_small",
            "image_parse_error",
            "invalid_image_mode",
            "image_file_too_large",
            "unsupported_image_media_type",
            "empty_image_file",
            "failed_to_download_image",
            "image_file_not_found",
        ),
        ("row", "bad_request"),
    ),
    **dict.fromkeys(("context_length_exceeded", "string_above_max_length"), ("row", "too_long")),
    **dict.fromkeys(
        ("server_error", "server_is_overloaded", "overloaded_error", "vector_store_timeout"),
        ("transient", "server"),
    ),
    "model_not_found": ("account", "model"),
}

# By HTTP status, for errors without a known code; 498 is Groq's "capacity exceeded".
_STATUSES: dict[int, Rule] = {
    400: ("row", "bad_request"),
    401: ("account", "key"),
    402: ("account", "quota"),
    403: ("account", "permission"),
    404: ("row", "not_found"),
    407: ("account", "proxy"),
    408: ("transient", "server"),
    409: ("transient", "server"),
    413: ("row", "too_long"),
    422: ("row", "bad_request"),
    429: ("throttled", "throttled"),
    498: ("transient", "server"),
}

# The gateway stopped waiting (504; Cloudflare's 524), but the server behind it may have worked on.
_GATEWAY_TIMEOUTS = frozenset({504, 524})


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """An error as the server words it."""

    message: str = ""
    code: str | None = None
    type: str | None = None
    param: str | None = None


def error_in(body: Any) -> ErrorBody | None:
    """The error in a reply's JSON; None if there is none.

    It stands at `error`, in the first item of a list, at the top (vLLM) or at `detail` (FastAPI).
    """
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        return None
    inner = body.get("error")
    if isinstance(inner, str) and inner:
        return ErrorBody(message=inner)
    if isinstance(inner, Mapping):
        return _worded(inner)
    if body.get("object") == "error":
        return _worded(body)
    if body.get("detail"):
        return ErrorBody(message=_words(body["detail"]) or str(body["detail"]))
    return None


# Where servers keep their own words, in errors within errors.
_WORDS = ("message", "msg", "detail", "details", "error", "errors")


def _words(value: Any, depth: int = 0) -> str:
    """The words in a message, in whatever it is nested; a refused field stands before them.

    FastAPI and Mistral: {"detail": [{"loc": ["body", "n"], "msg": "Input should be ..."}]}
    """
    if isinstance(value, str):
        return value
    if depth == MAX_NESTED:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_words(each, depth + 1) for each in value[:MAX_LISTED])))
    if not isinstance(value, Mapping):
        return ""
    words = next((text for name in _WORDS if (text := _words(value.get(name), depth + 1))), "")
    loc = value.get("loc")
    field = ".".join(map(str, loc[1:] or loc)) if isinstance(loc, list) else ""
    return f"{field}: {words}" if field and words else words


def _worded(error: Mapping[str, Any]) -> ErrorBody:
    def text(name: str) -> str | None:
        value = error.get(name)
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None

    return ErrorBody(
        message=text("message") or _words(error),
        code=_detailed_code(error) or text("code"),
        type=text("type"),
        param=text("param"),
    )


def _detailed_code(error: Mapping[str, Any]) -> str | None:
    """A code that is known, of an error whose own code says less (Google's `details`)."""
    details = error.get("details")
    for each in details if isinstance(details, list) else ():
        reason = each.get("reason") if isinstance(each, Mapping) else None
        if isinstance(reason, str) and reason in _CODES:
            return reason
    return None


def classify(status: int, body: bytes, headers: Mapping[str, str]) -> Failure:
    """The failure that a reply stands for: one without a success status, or with an error inside.

    An error in a reply of status 200 counts as the status that its code names, else as 502.
    """
    error = error_in(_json(body)) or ErrorBody(message=body[:QUOTED].decode("utf-8", "replace"))
    if status == 200:
        status = int(error.code) if error.code and re.fullmatch(r"[45]\d\d", error.code) else 502
    wait = retry_after(headers)
    meaning, reason = _meaning(status, error, wait)
    return Failure(
        meaning=meaning,
        reason=reason,
        message=error.message or f"HTTP {status}",
        status=status,
        code=error.code or error.type,
        request_id=headers.get("x-request-id"),
        retry_after=wait,
        ceiling=rate_limits(headers).requests,
        may_be_billed=status in _GATEWAY_TIMEOUTS,
    )


def _meaning(status: int, error: ErrorBody, wait: float | None) -> Rule:
    for word in (error.code, error.type):
        rule = _CODES.get(word or "")
        if rule is not None:
            # A request above the limit per minute never gets through. The API has no code for it,
            # so this is the one case that its message decides.
            too_large = rule[0] == "throttled" and error.message.startswith("Request too large")
            return ("row", "too_long") if too_large else rule
    if status == 402 and wait is not None:
        return "throttled", "throttled"
    if status == 400 and error.param == "service_tier":
        return "account", "service_tier"
    if 300 <= status < 400:
        return "account", "redirect"
    if status >= 500:
        return "transient", "server"
    return _STATUSES.get(status, ("row", "bad_request"))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait; None if it names none, or nonsense.

    Retry-After is a number of seconds or a date (RFC 9110, 10.2.3); retry-after-ms is OpenAI's.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"), 0.001)
    if milliseconds is not None:
        return milliseconds
    value = headers.get("retry-after")
    seconds = _seconds(value, 1.0)
    if seconds is not None or value is None:
        return seconds
    due, now = _date(value), _date(headers.get("date"))
    # Relative to the server's own clock if it sent its Date: this machine's may be wrong.
    return None if due is None else max(0.0, due - (time.time() if now is None else now))


def _date(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds(value: str | None, unit: float) -> float | None:
    try:
        number = float(value) * unit if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


# What stops the job, and what the user can do, by the failure's reason.
_ACCOUNT = {
    "key": "{host} refused the key: {message}; check the variable that provider.api_key_env names",
    "quota": "the account's quota or budget is used up: {message}; top it up or raise it",
    "permission": "{host} does not permit this: {message};"
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
    text = _ACCOUNT[failure.reason].format(host=host, message=failure.message, model=model)
    return AccountError(f"{text}, then run again")
