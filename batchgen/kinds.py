"""What each kind of request is, as data: its endpoint, its fields, and the reader of its replies.

A new kind is one entry in `KINDS` and one reader in `batchgen.replies`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from batchgen.replies import (
    Answer,
    Json,
    check_embedding,
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

    name: the kind in a job file.
    endpoint: the API's path.
    required: fields of the body that the API requires.
    text_field: the field that holds what is asked: a text, or a list of texts or messages.
    read: makes an `Answer` of a reply and the request's body. Raises UnreadableReplyError.
    check: the same without the text of the answer, where that takes long; None for `read`.
    token_caps: fields that limit the answer's tokens; the first is today's name.
    defaults: fields that batchgen adds; they are not in the fingerprint.
    file_fields: fields that name files, which are uploaded.
    json_fields: for a file field, the field to use where the request must be all JSON, as in a
        batch.
    makes_images: whether the answers are pictures.
    has_output_tokens: whether answers are billed by output tokens.
    """

    name: str
    endpoint: str
    required: tuple[str, ...]
    text_field: str
    read: Callable[[Json, Json], Answer]
    check: Callable[[Json, Json], Answer] | None = None
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
            text_field="input",
            read=read_text,
            token_caps=("max_output_tokens",),
            # Else the API keeps every response for 30 days.
            # https://platform.openai.com/docs/guides/your-data
            defaults={"store": False},
        ),
        Kind(
            name="completion",
            endpoint="/completions",
            required=("model", "prompt"),
            text_field="prompt",
            read=read_completion,
            token_caps=("max_tokens",),
        ),
        Kind(
            name="chat",
            endpoint="/chat/completions",
            required=("model", "messages"),
            text_field="messages",
            read=read_chat,
            token_caps=("max_completion_tokens", "max_tokens"),
        ),
        Kind(
            name="image",
            endpoint="/images/generations",
            required=("model", "prompt"),
            text_field="prompt",
            read=read_image,
            makes_images=True,
        ),
        Kind(
            name="image_edit",
            endpoint="/images/edits",
            required=("model", "image", "prompt"),
            text_field="prompt",
            read=read_image,
            file_fields=("image", "mask"),
            json_fields={"image": "images"},
            makes_images=True,
        ),
        Kind(
            name="embedding",
            endpoint="/embeddings",
            required=("model", "input"),
            text_field="input",
            read=read_embedding,
            check=check_embedding,
            # Base64 takes a quarter of the bytes of a list of decimals, on the network and in the
            # journal.
            defaults={"encoding_format": "base64"},
            has_output_tokens=False,
        ),
        Kind(
            name="moderation",
            endpoint="/moderations",
            required=("input",),
            text_field="input",
            read=read_moderation,
            has_output_tokens=False,
        ),
    )
}

# Each endpoint belongs to one kind.
KIND_BY_ENDPOINT: dict[str, Kind] = {kind.endpoint: kind for kind in KINDS.values()}
