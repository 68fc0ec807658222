"""What each error code and HTTP status means, as data.

Sources, by provider:

- OpenAI: https://platform.openai.com/docs/guides/error-codes, and the codes of a failed response
  (https://platform.openai.com/docs/api-reference/responses/object)
- Azure: https://learn.microsoft.com/azure/ai-services/openai/how-to/quota
- Gemini: https://ai.google.dev/gemini-api/docs/troubleshooting, and the reasons of google.rpc
  (https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto)
- Anthropic: https://docs.claude.com/en/api/errors
- Mistral: https://docs.mistral.ai/resources/error-glossary
- Groq: https://console.groq.com/docs/errors
- xAI: https://docs.x.ai/docs/key-information/debugging
- DeepSeek: https://api-docs.deepseek.com/quick_start/error_codes
- OpenRouter: https://openrouter.ai/docs/api/reference/errors-and-debugging
- vLLM: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
- statuses: RFC 9110, 15
"""

from __future__ import annotations

import re

from batchgen.dispatch import Meaning

# What a failure means, and the reason that reports show.
Rule = tuple[Meaning, str]

_THROTTLED = (
    "rate_limit_exceeded",
    "rate_limit_error",
    "rate_limited",
    "ratelimitreached",
    "too_many_requests",
    "slow_down",
    "service_tier_capacity_exceeded",
    "in_flight_budget_exhausted",
)
_QUOTA = (
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "enforced_spend_limit_reached",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "billing_disabled",
    "budget_exceeded",
    "payment_required",
    "insufficient_balance",
    "insufficient_credits",
    "weight_exceeds_budget",
    "openrouter_credits",
    "openrouter_key_limit",
    "openrouter_guardrail_budget",
    "openrouter_workspace_budget",
)
_KEY = (
    "invalid_api_key",
    "incorrect_api_key",
    "api_key_invalid",
    "api_key_expired",
    "account_deactivated",
    "authentication_error",
    "authentication",
)
_PERMISSION = (
    "unsupported_country_region_territory",
    "organization_restricted",
    "service_disabled",
    "consumer_suspended",
    "consumer_invalid",
    "user_project_denied",
    "api_key_service_blocked",
    "api_key_http_referrer_blocked",
    "api_key_ip_address_blocked",
)
_MODEL = (
    "model_not_found",
    "model_decommissioned",
    "model_not_active",
    "model_terms_required",
    "model_permission_blocked_org",
    "model_permission_blocked_project",
    "deploymentnotfound",
    "unknown_model",
    "invalid_model",
)
_POLICY = (
    "content_policy_violation",
    "moderation_blocked",
    "content_filter",
    "invalid_prompt",
    "bio_policy",
    "misalignment_policy_violation",
    "image_content_policy_violation",
    "responsibleaipolicyviolation",
    "refusal",
    "flagged",
)
# A response with status "failed" has one of these in place of an HTTP status.
_BAD_IMAGE = (
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
    "unsupported_image_format",
    "empty_image_file",
    "failed_to_download_image",
    "image_download_failed",
    "image_file_not_found",
    "image_not_found",
)
_TOO_LONG = (
    "context_length_exceeded",
    "string_above_max_length",
    "string_too_long",
    "request_too_large",
    "payload_too_large",
    "exceed_context_size_error",
)
_SERVER = (
    "server_error",
    "server_is_overloaded",
    "overloaded_error",
    "vector_store_timeout",
    "capacity_exceeded",
    "provider_overloaded",
    "provider_unavailable",
    "timeout_error",
)
# The model's own output did not have the form that the request asks for: another may.
_INVALID_OUTPUT = ("json_validate_failed", "tool_use_failed")

# By error code, in lower case.
CODES: dict[str, Rule] = {
    **dict.fromkeys(_THROTTLED, ("throttled", "throttled")),
    **dict.fromkeys(_QUOTA, ("account", "quota")),
    **dict.fromkeys(_KEY, ("account", "key")),
    **dict.fromkeys(_PERMISSION, ("account", "permission")),
    **dict.fromkeys(_MODEL, ("account", "model")),
    **dict.fromkeys(_POLICY, ("row", "policy")),
    "data_residency_mismatch": ("row", "bad_request"),
    **dict.fromkeys(_BAD_IMAGE, ("row", "bad_image")),
    **dict.fromkeys(_TOO_LONG, ("row", "too_long")),
    **dict.fromkeys(_SERVER, ("transient", "server")),
    **dict.fromkeys(_INVALID_OUTPUT, ("transient", "invalid_response")),
}

# By HTTP status, for errors without a known code; 498 is Groq's "capacity exceeded", 499 a request
# that a server on the way gave up. Other statuses from 500 on are the server's own, from 300 on
# redirects, from 400 on the row's.
STATUSES: dict[int, Rule] = {
    400: ("row", "bad_request"),
    401: ("account", "key"),
    402: ("account", "quota"),
    403: ("account", "forbidden"),
    404: ("row", "not_found"),
    407: ("account", "proxy"),
    408: ("transient", "server"),
    409: ("transient", "server"),
    413: ("row", "too_long"),
    422: ("row", "bad_request"),
    429: ("throttled", "throttled"),
    498: ("transient", "server"),
    499: ("transient", "server"),
}

# How providers word a refusal for which they have no code, and the code that says it. The words are
# those that a message begins with: what stands further on may be the row's.
PHRASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        # OpenAI, Groq: a request above the limit of a whole minute never gets through.
        (r"Request too large", "request_too_large"),
        # Anthropic
        (r"Your credit balance is too low", "credit_balance_exhausted"),
        (r"You have reached your specified (workspace )?API usage limits", "budget_exceeded"),
        # xAI
        (r"Your team \S+ has either used all available credits", "credit_balance_exhausted"),
        (r"Your newly created team doesn't have any credits", "credit_balance_exhausted"),
        (r"Incorrect API key provided", "incorrect_api_key"),
        (r"Content violates usage guidelines", "flagged"),
        # Gemini
        (r"User location is not supported", "unsupported_country_region_territory"),
        (r"Gemini API free tier is not available", "unsupported_country_region_territory"),
    )
)

# The reasons of refusals that no code attributes to the row: the account may be their cause.
UNATTRIBUTED = frozenset({"bad_request", "not_found", "forbidden", "invalid_response"})
