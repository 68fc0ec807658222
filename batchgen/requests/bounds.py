"""The most tokens that one request can use, before it is sent: bounds of its input and of its
answers.

A token is at least one byte of text, so a body's bytes bound its tokens, whatever the model's
tokenizer. (JSON's own punctuation only makes the bound larger.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batchgen.kinds import Kind
from batchgen.replies import count_inputs, word_of

# The most tokens that a chat message costs besides its text (role, separators).
MAX_MESSAGE_TOKENS = 16
# The most tokens that a picture shown to a model costs: the highest known count is 2,833, and
# 5,667 for each of up to eight tiles.
# https://platform.openai.com/docs/guides/images-vision#calculating-costs
MAX_PICTURE_TOKENS = 50_000
# Tokens that such a picture usually costs.
TYPICAL_PICTURE_TOKENS = 1_000

# Canonical JSON escapes the quotes within a value, so a row's text never matches either pattern.
_PICTURE_PART = re.compile(r'"type":"(?:image_url|input_image)"')
_DATA_URL = re.compile(r'"(?:image_)?url":"data:image/[a-z]+;base64,[A-Za-z0-9+/=]*"')
# What makes the server read more than the body: fields of the body, and parts of messages at any
# depth.
_STORED = ("previous_response_id", "conversation", "web_search_options")
# The same of other providers, unless they are switched off: searches, documents, and other models
# that the server may choose.
_SWITCHED = (
    "plugins",  # OpenRouter
    "models",
    "preset",
    "search_parameters",  # xAI
    "enable_search",  # Alibaba
    "search_options",
    "data_sources",  # Azure
    "dataSources",
    "connectors",  # Cohere
    "web_search",
    "search_settings",  # Groq
    "compound_custom",
    "cached_content",  # Gemini
    "extra_body",
    "mcp_servers",  # Anthropic
    "container",
    "context_management",
)
# Those of them that search, which many servers take a fee for.
_SEARCHES = (
    "web_search_options",
    "plugins",
    "search_parameters",
    "enable_search",
    "search_options",
    "data_sources",
    "dataSources",
    "connectors",
    "web_search",
    "search_settings",
    "compound_custom",
    "mcp_servers",
    "container",
)
_STORED_PART = re.compile(r'"type":"(input_file|file|input_audio|item_reference)"|"(file_id)":"')
# Models that search the web by themselves, by their names.
_SEARCHING = re.compile(r":online\b|-online$|(?<![a-z])search|deep-research|(?:^|/)compound")
# The same, priced by the request: what they find does not count as input.
_PRICED_SEARCHING = re.compile(r"(?:^|/)(?:[\w.-]*-)?sonar")
# Types of tools that run at the caller; all others run at the server, which feeds their results
# back to the model.
_CALLER_TOOLS = frozenset({"function", "custom"})


def input_bound(body: Mapping[str, Any], text: str) -> tuple[int, int]:
    """The highest count of a body's input tokens, and the number of pictures in it.

    `text` is its canonical JSON.
    """
    messages = body.get("messages")
    data_urls = _DATA_URL.findall(text)
    pictures = max(len(_PICTURE_PART.findall(text)), len(data_urls))
    text_bytes = len(text.encode()) - sum(map(len, data_urls))
    overhead = MAX_MESSAGE_TOKENS * (len(messages) if isinstance(messages, list) else 1)
    return text_bytes + MAX_PICTURE_TOKENS * pictures + overhead, pictures


def answer_bound(kind: Kind, body: Mapping[str, Any]) -> int | None:
    """The highest count of output tokens, of all answers together; None without a cap."""
    if not kind.has_output_tokens or kind.makes_images:
        return 0
    caps = [body[name] for name in kind.token_caps if body.get(name) is not None]
    if not caps or not all(map(is_count, caps)):
        return None
    answers = max(count_of(body, "n"), count_of(body, "best_of"))
    return int(max(caps)) * answers * count_inputs(body.get("prompt"))


def unbounded_by(body: Mapping[str, Any], text: str) -> str | None:
    """The first field that adds input whose tokens have no bound; None if there is none.

    Such fields are stored turns and prompts, files, sound, searches, models that search by
    themselves, and tools that run at the server.
    """
    tools = body.get("tools")
    if isinstance(tools, list) and any(
        not isinstance(tool, Mapping) or tool.get("type") not in _CALLER_TOOLS for tool in tools
    ):
        return "tools"
    if isinstance(body.get("prompt"), Mapping):
        return "prompt"
    model = body.get("model")
    if isinstance(model, str) and (_SEARCHING.search(model.lower()) or model.startswith("@")):
        return f"model: {model}"
    field = next((name for name in _STORED if body.get(name) is not None), None)
    field = field or next((name for name in _SWITCHED if _is_on(body.get(name))), None)
    part = _STORED_PART.search(text)
    return field or (part and (part[1] or part[2])) or None


def searches(model: str) -> bool:
    """Whether a model searches the web by itself, which costs more than its tokens."""
    name = model.lower()
    return bool(_SEARCHING.search(name) or _PRICED_SEARCHING.search(name))


def server_tools(body: Mapping[str, Any]) -> list[str]:
    """What a body makes the server run, which may cost a fee besides tokens.

    Types of tools, and fields that switch searches on.
    """
    tools = body.get("tools")
    kinds = [
        tool.get("type") if isinstance(tool, Mapping) else None
        for tool in (tools if isinstance(tools, list) else ())
    ]
    names = [word_of(kind) or "tools" for kind in kinds if kind not in _CALLER_TOOLS]
    return [*names, *(name for name in _SEARCHES if _is_on(body.get(name)))]


def _is_on(value: Any) -> bool:
    """Whether the value of a field asks for something: not empty, false, or a mode that is off."""
    return bool(value) and not (isinstance(value, Mapping) and value.get("mode") == "off")


def is_count(value: Any) -> bool:
    """Whether a value is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def count_of(body: Mapping[str, Any], name: str) -> int:
    """How many answers a field such as `n` asks for; 1 when it is absent."""
    return body[name] if is_count(body.get(name)) else 1
