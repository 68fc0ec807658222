"""Answers in the official shapes, one function for each endpoint; their content is simulated."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import time
from collections.abc import Iterator
from typing import Any

from batchgen.simulator import pictures
from batchgen.simulator.calls import Body, Call, Pictures
from batchgen.simulator.checks import picture_size
from batchgen.simulator.texts import POLICY, cut, most_tokens, prompt_tokens, reply, texts, tokens

MODELS = (
    "gpt-5.6-luna",
    "gpt-5.6-sol",
    "gpt-6-sol",
    "gpt-3.5-turbo-instruct",
    "gpt-image-2",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "omni-moderation-latest",
)

_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def models() -> Body:
    """The list of models; requests for other models are answered too."""
    data = [
        {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "simulated"}
        for name in MODELS
    ]
    return {"object": "list", "data": data}


def chat(call: Call) -> Body:
    """A chat.completion with `n` choices."""
    body = call.body
    choices, spent = [], 0
    for number in range(body.get("n") or 1):
        text, was_cut = cut(reply(body, call.digest, number=number), most_tokens(body))
        message: Body = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        reason = "length" if was_cut else "stop"
        choices.append(
            {"index": number, "message": message, "logprobs": None, "finish_reason": reason}
        )
        spent += tokens(text)
    return {
        "id": f"chatcmpl-sim-{call.digest[:16]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": choices,
        "usage": _chat_usage(prompt_tokens(body), spent),
        "service_tier": body.get("service_tier") or "default",
        "system_fingerprint": "fp_simulated",
    }


def completions(call: Call) -> Body:
    """A text_completion with `n` choices for each prompt."""
    body = call.body
    choices: list[Body] = []
    spent = 0
    for prompt in _prompts(body["prompt"]):
        for number in range(body.get("n") or 1):
            text, was_cut = cut(
                reply(body, call.digest, prompt=prompt, number=number), most_tokens(body)
            )
            reason = "length" if was_cut else "stop"
            choices.append(
                {"index": len(choices), "text": text, "logprobs": None, "finish_reason": reason}
            )
            spent += tokens(text)
    return {
        "id": f"cmpl-sim-{call.digest[:16]}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": choices,
        "usage": _chat_usage(prompt_tokens(body), spent),
    }


def responses(call: Call) -> Body:
    """A response with one output message; `incomplete` when max_output_tokens cut it."""
    body = call.body
    text, was_cut = cut(reply(body, call.digest), most_tokens(body))
    status = "incomplete" if was_cut else "completed"
    return {
        "id": f"resp_sim_{call.digest[:16]}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if was_cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "output": [_output_message(call.digest, status, text)],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "service_tier": body.get("service_tier") or "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation") or "disabled",
        "usage": _responses_usage(prompt_tokens(body), tokens(text)),
    }


def embeddings(call: Call) -> Body:
    """A list of unit vectors, each drawn from its own text and the model alone."""
    body = call.body
    size = body.get("dimensions") or (3072 if "large" in body["model"] else 1536)
    as_base64 = body.get("encoding_format") == "base64"
    data = []
    for number, text in enumerate(_prompts(body["input"])):
        packed = _vector(f"{body['model']}\n{text}", size)
        vector = (
            base64.b64encode(packed).decode()
            if as_base64
            else list(struct.unpack(f"<{size}f", packed))
        )
        data.append({"object": "embedding", "index": number, "embedding": vector})
    spent = prompt_tokens(body)
    usage = {"prompt_tokens": spent, "total_tokens": spent}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def moderations(call: Call) -> Body:
    """One result for each text; those that hold `[policy]` are flagged as illicit."""
    body = call.body
    results = [_moderation(text) for text in _moderated(body["input"])]
    model = body.get("model") or "omni-moderation-latest"
    return {"id": f"modr-sim-{call.digest[:16]}", "model": model, "results": results}


def images(call: Call, uploads: Pictures | None = None) -> Body:
    """`n` pictures as base64; over the first of `uploads` for an edit.

    Takes milliseconds of CPU each: use a thread.
    """
    body = call.body
    width, height = picture_size(body)
    count = body.get("n") or 1
    data = [
        {"b64_json": base64.b64encode(_picture(call, uploads, number)).decode()}
        for number in range(count)
    ]
    return {
        "created": int(time.time()),
        "background": "transparent" if body.get("background") == "transparent" else "opaque",
        "data": data,
        "output_format": body.get("output_format") or "png",
        "quality": _or_auto(body.get("quality"), "medium"),
        "size": f"{width}x{height}",
        "usage": _image_usage(body, uploads, count * (width * height // 1024)),
    }


def _picture(call: Call, uploads: Pictures | None, number: int) -> bytes:
    body = call.body
    options: dict[str, Any] = {
        "size": picture_size(body),
        "seed": int(call.digest[:8], 16) + 11 * number,
        "transparent": body.get("background") == "transparent",
        "form": body.get("output_format") or "png",
        "compression": body.get("output_compression"),
    }
    prompt = f"{body['prompt']} ({number + 1})" if number else body["prompt"]
    if uploads is None:
        return pictures.draw(prompt, **options)
    return pictures.draw_edit(prompt, uploads.images[0], uploads.mask, **options)


def _image_usage(body: Body, uploads: Pictures | None, spent: int) -> Body:
    sent = prompt_tokens(body)
    shown = (
        sum(max(1, image.width * image.height // 1024) for image in uploads.images)
        if uploads
        else 0
    )
    return {
        "input_tokens": sent + shown,
        "input_tokens_details": {"text_tokens": sent, "image_tokens": shown},
        "output_tokens": spent,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": spent},
        "total_tokens": sent + shown + spent,
    }


def _or_auto(requested: str | None, default: str) -> str:
    """The value of a parameter that a client may leave to the server."""
    return default if requested in (None, "auto") else str(requested)


def _chat_usage(sent: int, spent: int) -> Body:
    return {
        "prompt_tokens": sent,
        "completion_tokens": spent,
        "total_tokens": sent + spent,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _responses_usage(sent: int, spent: int) -> Body:
    return {
        "input_tokens": sent,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": spent,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sent + spent,
    }


def _output_message(digest: str, status: str, text: str) -> Body:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {
        "id": f"msg_sim_{digest[:16]}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _prompts(value: Any) -> Iterator[str]:
    """The texts in a prompt or input: one, a list of them, or token ids, written as text."""
    if isinstance(value, str):
        yield value
    elif value and isinstance(value[0], int):
        yield str(value)
    else:
        yield from (item if isinstance(item, str) else str(item) for item in value)


def _vector(words: str, size: int) -> bytes:
    """`size` little-endian float32 of a unit vector drawn from `words`."""
    raw = hashlib.shake_256(words.encode("utf-8", "surrogatepass")).digest(2 * size)
    numbers = [number + 0.5 for number in struct.unpack(f"<{size}h", raw)]
    norm = math.sqrt(math.fsum(number * number for number in numbers))
    return struct.pack(f"<{size}f", *(number / norm for number in numbers))


def _moderated(value: Any) -> Iterator[str]:
    """The texts to moderate: each string alone, or all parts of one multi-modal input together."""
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        yield "\n".join(texts({"input": value}))
    else:
        yield from _prompts(value)


def _moderation(text: str) -> Body:
    flagged = POLICY in text
    return {
        "flagged": flagged,
        "categories": {name: flagged and name == "illicit" for name in _CATEGORIES},
        "category_scores": {
            name: 0.9 if flagged and name == "illicit" else 0.0001 for name in _CATEGORIES
        },
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
