"""What ten providers send: their errors in their own forms, and their finish reasons.

From the providers' references and from public reports; names and ids are made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchgen.dispatch.api.codes import Rule

INVALID = "invalid_request_error"


@dataclass(frozen=True, kw_only=True)
class Form:
    """One error of a provider, and what it is to mean.

    code: what of its body decides, as the page shows it; empty for the status alone.
    outcome: meaning and reason.
    wait: seconds that it asks to wait.
    """

    provider: str
    status: int
    code: str
    body: Any
    outcome: Rule
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float | None = None

    @property
    def name(self) -> str:
        return f"{self.provider} {self.status} {self.code}".strip()


THROTTLED: Rule = ("throttled", "throttled")
SERVER: Rule = ("transient", "server")
QUOTA: Rule = ("account", "quota")
KEY: Rule = ("account", "key")
MODEL: Rule = ("account", "model")
PERMISSION: Rule = ("account", "permission")
FORBIDDEN: Rule = ("account", "forbidden")
POLICY: Rule = ("row", "policy")
TOO_LONG: Rule = ("row", "too_long")
BAD_REQUEST: Rule = ("row", "bad_request")
BAD_IMAGE: Rule = ("row", "bad_image")
NOT_FOUND: Rule = ("row", "not_found")
INVALID_OUTPUT: Rule = ("transient", "invalid_response")


def _openai(
    status: int,
    outcome: Rule,
    message: str,
    kind: str = INVALID,
    code: str | None = None,
    *,
    provider: str = "OpenAI",
    shown: str | None = None,
    param: str | None = None,
    wait: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Form:
    """OpenAI's form, which several others share."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    shown = (code or "") if shown is None else shown
    return Form(
        provider=provider,
        status=status,
        code=shown,
        body=body,
        outcome=outcome,
        wait=wait,
        headers=headers or {},
    )


OPENAI = [
    _openai(401, KEY, "Incorrect API key provided: sk-1.", code="invalid_api_key"),
    _openai(401, KEY, "You must be a member of an organization to use the API."),
    _openai(
        403,
        PERMISSION,
        "Country, region, or territory not supported",
        "request_forbidden",
        "unsupported_country_region_territory",
    ),
    _openai(403, FORBIDDEN, "You have insufficient permissions for this operation."),
    _openai(
        404,
        MODEL,
        "The model `m` does not exist or you do not have access to it.",
        code="model_not_found",
    ),
    *(
        _openai(429, QUOTA, "You exceeded your current quota.", "insufficient_quota", code)
        for code in (
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_not_active",
        )
    ),
    _openai(400, QUOTA, "Billing hard limit has been reached", code="billing_hard_limit_reached"),
    _openai(
        429,
        THROTTLED,
        "Rate limit reached for m on requests per min (RPM): Limit 3. Please try again in 20s.",
        "requests",
        "rate_limit_exceeded",
        wait=20.0,
    ),
    _openai(
        429,
        THROTTLED,
        "Slow down",
        "rate_limit_error",
        "slow_down",
        headers={"retry-after": "7"},
        wait=7.0,
    ),
    _openai(
        429,
        TOO_LONG,
        "Request too large for m on tokens per min (TPM): Limit 30000, Requested 40000.",
        "tokens",
        "rate_limit_exceeded",
        shown='"Request too large ..."',
    ),
    _openai(
        400,
        ("account", "service_tier"),
        "Invalid service_tier argument",
        param="service_tier",
        shown="param `service_tier`",
    ),
    _openai(
        400,
        TOO_LONG,
        "This model's maximum context length is 128000 tokens.",
        code="context_length_exceeded",
    ),
    _openai(400, TOO_LONG, "Invalid 'input': string too long.", code="string_above_max_length"),
    _openai(400, POLICY, "Invalid prompt: it was flagged.", code="invalid_prompt"),
    _openai(
        400,
        POLICY,
        "Your request was rejected by the safety system.",
        "image_generation_user_error",
        "moderation_blocked",
    ),
    _openai(400, POLICY, "Your request was rejected.", code="content_policy_violation"),
    _openai(400, BAD_IMAGE, "You uploaded an unsupported image.", code="invalid_image_format"),
    _openai(400, BAD_REQUEST, "Invalid value: 'x'.", code="invalid_value"),
    _openai(500, SERVER, "The server had an error.", "server_error"),
    _openai(503, SERVER, "Overloaded", "service_unavailable_error", "server_is_overloaded"),
]


def _azure(status: int, outcome: Rule, code: str, message: str, **parts: Any) -> Form:
    details = parts.pop("details", {})
    return Form(
        provider="Azure",
        status=status,
        # Azure repeats a status as the code.
        code=parts.pop("shown", "" if code == str(status) else code),
        body={"error": {"code": code, "message": message, **details}},
        outcome=outcome,
        **parts,
    )


AZURE = [
    _azure(401, KEY, "401", "Access denied due to invalid subscription key."),
    _azure(403, FORBIDDEN, "403", "Access denied due to Virtual Network/Firewall rules."),
    _azure(404, MODEL, "DeploymentNotFound", "The API deployment does not exist."),
    _azure(
        429,
        THROTTLED,
        "429",
        "Requests have exceeded token rate limit. Please retry after 26 seconds.",
        wait=26.0,
    ),
    _azure(
        429,
        THROTTLED,
        "RateLimitReached",
        "Rate limit of 1 per 0s exceeded.",
        headers={"retry-after-ms": "1500"},
        wait=1.5,
    ),
    _azure(
        429, THROTTLED, "too_many_requests", "Too many requests. Try again in 2 seconds.", wait=2.0
    ),
    _azure(
        400,
        POLICY,
        "content_filter",
        "The response was filtered.",
        details={"innererror": {"code": "ResponsibleAIPolicyViolation"}, "status": 400},
    ),
    _azure(
        400,
        POLICY,
        "400",
        "The response was filtered.",
        details={"innererror": {"code": "ResponsibleAIPolicyViolation"}},
        shown="innererror.code `ResponsibleAIPolicyViolation`",
    ),
    _azure(400, BAD_REQUEST, "BadRequest", "Invalid request."),
    _azure(408, SERVER, "Timeout", "The operation was timeout."),
    _azure(500, SERVER, "InternalServerError", "Backend returned unexpected response."),
]


def _google(status: int, outcome: Rule, name: str, message: str, **parts: Any) -> Form:
    reason = parts.pop("reason", None)
    details = parts.pop("details", [])
    if reason:
        info = "type.googleapis.com/google.rpc.ErrorInfo"
        details = [{"@type": info, "reason": reason, "domain": "googleapis.com"}]
    error = {"code": status, "message": message, "status": name, "details": details}
    shown = parts.pop("shown", f"details.reason `{reason}`" if reason else name)
    return Form(
        provider="Gemini",
        status=status,
        code=shown,
        body=[{"error": error}],
        outcome=outcome,
        **parts,
    )


def _violation(quota: str, delay: str) -> list[Any]:
    return [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [
                {"quotaMetric": "generativelanguage.googleapis.com/requests", "quotaId": quota}
            ],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]


GEMINI = [
    _google(400, KEY, "INVALID_ARGUMENT", "API key not valid.", reason="API_KEY_INVALID"),
    _google(
        400,
        PERMISSION,
        "FAILED_PRECONDITION",
        "User location is not supported for the API use.",
        shown='"User location is not supported ..."',
    ),
    _google(
        400,
        PERMISSION,
        "FAILED_PRECONDITION",
        "Gemini API free tier is not available in your country. Please enable billing.",
        shown='"Gemini API free tier is not available ..."',
    ),
    _google(400, BAD_REQUEST, "INVALID_ARGUMENT", "Invalid value at 'contents'."),
    _google(402, QUOTA, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
    _google(403, FORBIDDEN, "PERMISSION_DENIED", "Your API key doesn't have permission."),
    _google(
        403,
        PERMISSION,
        "PERMISSION_DENIED",
        "The API has not been used in project 1.",
        reason="SERVICE_DISABLED",
    ),
    _google(
        403,
        PERMISSION,
        "PERMISSION_DENIED",
        "The consumer has been suspended.",
        reason="CONSUMER_SUSPENDED",
    ),
    _google(
        403,
        QUOTA,
        "PERMISSION_DENIED",
        "This API requires billing to be enabled.",
        reason="BILLING_DISABLED",
    ),
    _google(
        403,
        PERMISSION,
        "PERMISSION_DENIED",
        "Requests to this API are blocked.",
        reason="API_KEY_SERVICE_BLOCKED",
    ),
    _google(404, NOT_FOUND, "NOT_FOUND", "models/m is not found for API version v1main."),
    _google(
        429,
        THROTTLED,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota. Please retry in 58.9s.",
        details=_violation("GenerateRequestsPerMinutePerProjectPerModel", "58s"),
        wait=58.0,
    ),
    _google(
        429,
        QUOTA,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota. Please retry in 33.1s.",
        details=_violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "33s"),
        shown="quotaId `...PerDay...`",
    ),
    _google(500, SERVER, "INTERNAL", "An internal error has occurred."),
    _google(503, SERVER, "UNAVAILABLE", "The model is overloaded."),
    _google(504, SERVER, "DEADLINE_EXCEEDED", "Deadline expired."),
]


def _anthropic(status: int, outcome: Rule, kind: str, message: str, **parts: Any) -> Form:
    error = {"type": kind, "message": message, **parts.pop("more", {})}
    return Form(
        provider="Anthropic",
        status=status,
        code=parts.pop("shown", kind),
        body={"type": "error", "error": error, "request_id": "req_1"},
        outcome=outcome,
        **parts,
    )


ANTHROPIC = [
    _anthropic(
        400,
        QUOTA,
        INVALID,
        "Your credit balance is too low to access the API.",
        shown='"Your credit balance is too low ..."',
    ),
    _anthropic(
        400,
        QUOTA,
        INVALID,
        "You have reached your specified API usage limits. You will",
        shown='"You have reached your specified API usage limits ..."',
    ),
    _anthropic(400, BAD_REQUEST, INVALID, "messages: at least one message is required"),
    _anthropic(401, KEY, "authentication_error", "invalid x-api-key"),
    _anthropic(402, QUOTA, "billing_error", "There is a problem with your billing."),
    _anthropic(403, FORBIDDEN, "permission_error", "Request not allowed"),
    _anthropic(404, NOT_FOUND, "not_found_error", "model: m"),
    _anthropic(413, TOO_LONG, "request_too_large", "Request exceeds the maximum size"),
    _anthropic(
        429,
        THROTTLED,
        "rate_limit_error",
        "This request would exceed your rate limit.",
        headers={
            "date": "Thu, 05 Nov 2026 12:00:00 GMT",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2026-11-05T12:00:09Z",
        },
        wait=9.0,
    ),
    _anthropic(
        429,
        QUOTA,
        "rate_limit_error",
        "You have reached your monthly limit.",
        more={"details": {"error_code": "enforced_spend_limit_reached"}},
        shown="details.error_code `enforced_spend_limit_reached`",
    ),
    _anthropic(500, SERVER, "api_error", "Internal server error"),
    _anthropic(504, SERVER, "timeout_error", "Request timed out"),
    _anthropic(529, SERVER, "overloaded_error", "Overloaded"),
]


def _mistral(status: int, outcome: Rule, kind: str, message: Any, code: str | None = None) -> Form:
    body = {"object": "error", "message": message, "type": kind, "param": None, "code": code}
    return Form(provider="Mistral", status=status, code=kind, body=body, outcome=outcome)


MISTRAL = [
    Form(
        provider="Mistral",
        status=401,
        code="",
        outcome=KEY,
        body={"message": "Unauthorized", "request_id": "1"},
    ),
    Form(
        provider="Mistral", status=402, code="", outcome=QUOTA, body={"detail": "Payment required"}
    ),
    Form(provider="Mistral", status=403, code="", outcome=FORBIDDEN, body={"message": "Forbidden"}),
    _mistral(400, MODEL, "invalid_model", "Invalid model: m", "1500"),
    _mistral(400, BAD_REQUEST, "invalid_request_message_order", "Expected last role User", "3230"),
    _mistral(
        422,
        BAD_REQUEST,
        INVALID,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "n"], "msg": "Extra inputs"}]},
    ),
    _mistral(429, THROTTLED, "rate_limited", "Rate limit exceeded", "1300"),
    _mistral(
        429,
        THROTTLED,
        "service_tier_capacity_exceeded",
        "Service tier capacity exceeded for this model.",
        "3505",
    ),
    Form(
        provider="Mistral",
        status=500,
        code="",
        outcome=SERVER,
        body={
            "object": "error",
            "message": "Service unavailable.",
            "type": "internal_server_error",
            "code": "1000",
        },
    ),
]

GROQ = [
    _openai(401, KEY, "Invalid API Key", code="invalid_api_key", provider="Groq"),
    _openai(
        400,
        PERMISSION,
        "Organization has been restricted.",
        code="organization_restricted",
        provider="Groq",
    ),
    _openai(403, FORBIDDEN, "Access denied.", provider="Groq"),
    _openai(404, MODEL, "The model `m` does not exist.", code="model_not_found", provider="Groq"),
    _openai(
        400,
        MODEL,
        "The model `m` has been decommissioned.",
        code="model_decommissioned",
        provider="Groq",
    ),
    _openai(
        400,
        MODEL,
        "The model `m` requires terms acceptance.",
        code="model_terms_required",
        provider="Groq",
    ),
    _openai(
        403,
        MODEL,
        "The model `m` is blocked at the project level.",
        "permissions_error",
        "model_permission_blocked_project",
        provider="Groq",
    ),
    _openai(
        400,
        INVALID_OUTPUT,
        "Failed to generate JSON. Please adjust your prompt.",
        code="json_validate_failed",
        provider="Groq",
    ),
    _openai(
        400, INVALID_OUTPUT, "Failed to call a function.", code="tool_use_failed", provider="Groq"
    ),
    _openai(
        413,
        TOO_LONG,
        "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 14368",
        "tokens",
        "rate_limit_exceeded",
        shown='"Request too large ..."',
        provider="Groq",
    ),
    _openai(422, BAD_REQUEST, "Unprocessable", provider="Groq"),
    _openai(
        429,
        THROTTLED,
        "Rate limit reached for model `m` on tokens per minute (TPM): Limit 6000, Used 5000,"
        " Requested 2000. Please try again in 7.66s.",
        "tokens",
        "rate_limit_exceeded",
        wait=8.0,
        headers={"retry-after": "8"},
        provider="Groq",
    ),
    _openai(
        498,
        SERVER,
        "Flex tier capacity exceeded",
        "server_error",
        "capacity_exceeded",
        provider="Groq",
    ),
    _openai(499, SERVER, "Request cancelled", provider="Groq"),
    _openai(503, SERVER, "Service Unavailable", "internal_server_error", provider="Groq"),
]


def _xai(status: int, outcome: Rule, message: str, **parts: Any) -> Form:
    code = "The caller does not have permission to execute the specified operation"
    shown = parts.pop("shown", "")
    body = {"code": code, "error": message}
    return Form(provider="xAI", status=status, code=shown, body=body, outcome=outcome, **parts)


XAI = [
    _xai(400, KEY, "Incorrect API key provided: xai-1.", shown='"Incorrect API key provided ..."'),
    _xai(400, BAD_REQUEST, "Argument not supported on this model: stop"),
    _xai(401, KEY, "Invalid or missing credentials"),
    _xai(
        403,
        POLICY,
        "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
        shown='"Content violates usage guidelines ..."',
    ),
    _xai(
        403,
        QUOTA,
        "Your newly created team doesn't have any credits or licenses yet.",
        shown='"Your newly created team doesn\'t have any credits ..."',
    ),
    _xai(403, FORBIDDEN, "Your team is blocked."),
    _xai(404, NOT_FOUND, "The model m does not exist or your team 1 does not have access to it."),
    _xai(422, BAD_REQUEST, "Failed to deserialize the JSON body into the target type"),
    _xai(
        429,
        QUOTA,
        "Your team 1-2 has either used all available credits or reached its limit.",
        shown='"Your team ... has either used all available credits ..."',
    ),
    _xai(429, THROTTLED, "Too many requests for this model"),
    _xai(503, SERVER, "Service temporarily unavailable"),
]

DEEPSEEK = [
    _openai(400, BAD_REQUEST, "Invalid format", provider="DeepSeek", shown=""),
    _openai(
        401,
        KEY,
        "Authentication Fails",
        "authentication_error",
        INVALID,
        provider="DeepSeek",
        shown="authentication_error",
    ),
    _openai(
        402, QUOTA, "Insufficient Balance", "unknown_error", INVALID, provider="DeepSeek", shown=""
    ),
    _openai(422, BAD_REQUEST, "Invalid parameters", provider="DeepSeek", shown=""),
    _openai(429, THROTTLED, "Rate limit reached", provider="DeepSeek", shown=""),
    _openai(500, SERVER, "Server error", provider="DeepSeek", shown=""),
    _openai(503, SERVER, "Server overloaded", provider="DeepSeek", shown=""),
]


def _openrouter(status: int, outcome: Rule, message: str, shown: str = "", **metadata: Any) -> Form:
    # An error while the model answers comes with status 200.
    error = {"code": status, "message": message, "metadata": metadata}
    kind = metadata.get("error_type")
    return Form(
        provider="OpenRouter",
        status=status,
        code=shown or (f"metadata.error_type `{kind}`" if kind else ""),
        body={"error": error},
        outcome=outcome,
    )


def _typed(status: int, outcome: Rule, *kinds: str) -> list[Form]:
    return [_openrouter(status, outcome, "The provider says so", error_type=kind) for kind in kinds]


def _inside(code: int, outcome: Rule, **parts: Any) -> Form:
    """An error while the model answers: it stands in the choice, with its own code."""
    error = {"code": code, "message": "The provider says so", **parts}
    choice = {"index": 0, "finish_reason": "error", "message": {"content": "half"}, "error": error}
    flagged = " and a flag" if parts else ""
    return Form(
        provider="OpenRouter",
        status=200,
        code=f"choices.error.code `{code}`{flagged}",
        body={"choices": [choice]},
        outcome=outcome,
    )


OPENROUTER = [
    *_typed(400, TOO_LONG, "context_length_exceeded", "string_too_long"),
    *_typed(400, BAD_REQUEST, "invalid_request", "invalid_prompt"),
    *_typed(400, POLICY, "content_policy_violation", "refusal"),
    *_typed(400, BAD_IMAGE, "invalid_image", "image_too_large", "image_too_small"),
    *_typed(400, BAD_IMAGE, "unsupported_image_format", "image_download_failed"),
    *_typed(401, KEY, "authentication"),
    *_typed(402, QUOTA, "payment_required"),
    _openrouter(
        402,
        THROTTLED,
        "This request would exceed your available credits.",
        "metadata.reason `in_flight_budget_exhausted`",
        reason="in_flight_budget_exhausted",
        limit_source="openrouter_in_flight_budget",
    ),
    _openrouter(
        402,
        QUOTA,
        "This request requires more credits.",
        "metadata.reason `weight_exceeds_budget`",
        reason="weight_exceeds_budget",
        limit_source="openrouter_credits",
    ),
    _openrouter(
        403,
        QUOTA,
        "Key limit exceeded.",
        "metadata.limit_source `openrouter_key_limit`",
        limit_source="openrouter_key_limit",
        limit_usd=5,
    ),
    _openrouter(
        403,
        POLICY,
        "Input was flagged",
        "metadata.flagged_input",
        reasons=["violence"],
        flagged_input="...",
        provider_name="P",
        model_slug="m",
    ),
    _openrouter(
        403,
        POLICY,
        "Request blocked: prompt injection patterns detected",
        "metadata.patterns",
        patterns=["ignore all previous instructions"],
    ),
    *_typed(403, FORBIDDEN, "permission_denied"),
    *_typed(404, NOT_FOUND, "not_found"),
    *_typed(404, BAD_IMAGE, "image_not_found"),
    _openrouter(408, SERVER, "Your request timed out"),
    *_typed(413, TOO_LONG, "payload_too_large"),
    *_typed(422, BAD_REQUEST, "unprocessable"),
    *_typed(429, THROTTLED, "rate_limit_exceeded"),
    *_typed(500, SERVER, "server", "unmapped"),
    *_typed(502, SERVER, "provider_unavailable"),
    *_typed(503, SERVER, "provider_overloaded"),
    *_typed(504, SERVER, "timeout"),
    *(
        _inside(code, outcome)
        for code, outcome in (
            (400, BAD_REQUEST),
            (401, KEY),
            (402, QUOTA),
            (429, THROTTLED),
            (502, SERVER),
        )
    ),
    _inside(403, POLICY, metadata={"reasons": ["violence"], "flagged_input": "..."}),
]


def _vllm(status: int, outcome: Rule, kind: str, message: str, **parts: Any) -> Form:
    error = {"message": message, "type": kind, "param": parts.pop("param", None), "code": status}
    return Form(
        provider="vLLM",
        status=status,
        code=parts.pop("shown", ""),
        body={"error": error},
        outcome=outcome,
    )


VLLM = [
    _vllm(
        400,
        TOO_LONG,
        "BadRequestError",
        "This model's maximum context length is 8192 tokens.",
        param="input_tokens",
        shown="param `input_tokens`",
    ),
    _vllm(400, BAD_REQUEST, "BadRequestError", "temperature must be non-negative, got -1.0."),
    Form(provider="vLLM", status=401, code="", body={"error": "Unauthorized"}, outcome=KEY),
    _vllm(404, NOT_FOUND, "NotFoundError", "The model `m` does not exist."),
    _vllm(422, BAD_REQUEST, "UnprocessableEntityError", "1 validation error: messages is missing"),
    _vllm(500, SERVER, "InternalServerError", "EngineCore encountered an issue."),
    _vllm(503, SERVER, "ServiceUnavailableError", "Service unavailable"),
]

FORMS = [
    *OPENAI,
    *AZURE,
    *GEMINI,
    *ANTHROPIC,
    *MISTRAL,
    *GROQ,
    *XAI,
    *DEEPSEEK,
    *OPENROUTER,
    *VLLM,
]

# The finish reasons of each provider's references, as they are sent.
FINISH = {
    "OpenAI": ["stop", "length", "tool_calls", "function_call", "content_filter"],
    "Azure": ["stop", "length", "tool_calls", "content_filter"],
    "Gemini": [
        "stop",
        "length",
        "tool_calls",
        "content_filter",
        "content_filter: PROHIBITED_CONTENT",
        "content_filter: RECITATION",
        "STOP",
        "MAX_TOKENS",
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "MODEL_ARMOR",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_OTHER",
        "NO_IMAGE",
        "TOO_MANY_TOOL_CALLS",
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "OTHER",
    ],
    "Anthropic": [
        "end_turn",
        "stop_sequence",
        "tool_use",
        "max_tokens",
        "model_context_window_exceeded",
        "pause_turn",
        "refusal",
    ],
    "Mistral": ["stop", "length", "model_length", "tool_calls", "error"],
    "Groq": ["stop", "length", "tool_calls", "function_call"],
    "xAI": ["stop", "length", "end_turn", "tool_calls", "content_filter"],
    "DeepSeek": ["stop", "length", "content_filter", "tool_calls", "insufficient_system_resource"],
    "OpenRouter": ["stop", "length", "tool_calls", "content_filter", "error"],
    "vLLM": ["stop", "length", "tool_calls", "abort", "error", "repetition"],
}
