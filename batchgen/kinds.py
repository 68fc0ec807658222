"""What each kind of request is: its endpoint, the fields batchgen must know, and how to read its answer.

A kind is data plus one function from the API's JSON to an `Answer`. The function trusts nothing: whatever is not a real
answer raises `UnreadableReplyError`, because compatible servers and proxies send login pages, nulls and empty choices with status 200.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from batchgen.replies import (
    Answer,
    Json,
    read_chat,
    read_completion,
    read_embedding,
    read_image,
    read_moderation,
    read_text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of request.

    `required` are the body's fields without which the API refuses; `token_caps` the fields that bound the answer's tokens, the
    first being today's name; `defaults` what batchgen adds (outside the key); `file_fields` the fields that name files;
    `json_fields` what takes a file field's place where a request is all JSON, as in a line of a batch.
    """

    name: str
    endpoint: str
    required: tuple[str, ...]
    read: Callable[[Json, Json], Answer]
    token_caps: tuple[str, ...] = ()
    defaults: Json = field(default_factory=dict)
    file_fields: tuple[str, ...] = ()
    json_fields: Mapping[str, str] = field(default_factory=dict)
    makes_images: bool = False
    has_output_tokens: bool = True


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="text",
            endpoint="/responses",
            required=("model", "input"),
            read=read_text,
            token_caps=("max_output_tokens",),
            # The API keeps every response for 30 days unless told not to.
            defaults={"store": False},
        ),
        Kind(
            name="completion",
            endpoint="/completions",
            required=("model", "prompt"),
            read=read_completion,
            token_caps=("max_tokens",),
        ),
        Kind(
            name="chat",
            endpoint="/chat/completions",
            required=("model", "messages"),
            read=read_chat,
            token_caps=("max_completion_tokens", "max_tokens"),
        ),
        Kind(
            name="image",
            endpoint="/images/generations",
            required=("model", "prompt"),
            read=read_image,
            makes_images=True,
        ),
        Kind(
            name="image_edit",
            endpoint="/images/edits",
            required=("model", "image", "prompt"),
            read=read_image,
            file_fields=("image", "mask"),
            json_fields={"image": "images"},
            makes_images=True,
        ),
        Kind(
            name="embedding",
            endpoint="/embeddings",
            required=("model", "input"),
            read=read_embedding,
            # Base64 is a quarter of the bytes of a list of decimals, on the wire and in the journal.
            defaults={"encoding_format": "base64"},
            has_output_tokens=False,
        ),
        Kind(
            name="moderation",
            endpoint="/moderations",
            required=("input",),
            read=read_moderation,
            has_output_tokens=False,
        ),
    )
}

# The kind that an endpoint answers for.
KIND_BY_ENDPOINT: dict[str, Kind] = {kind.endpoint: kind for kind in KINDS.values()}
