"""Pictures inside replies that are texts, and what is known of sound in them.

Where they stand: `result` of an `image_generation_call` of the Responses API
(https://platform.openai.com/docs/guides/tools-image-generation); `images` of a chat message
(https://openrouter.ai/docs/features/multimodal/image-generation, also LiteLLM's) or its older
`image`; parts of a message's content; or the content itself, as a data URL.

A picture is base64, a data URL or a link, or None where one is announced and missing. One that was
stored as a file is an object with its `path`, `sha256`, `size` and `head`, which is what stood
before the base64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from batchgen.replies.usage import Json, mapping

# The keys in a part under which a picture stands; the first that is there counts.
_KEYS = (
    ("image_url", "url"),
    ("image_url",),
    ("inline_data", "data"),
    ("inlineData", "data"),
    ("source", "data"),
    ("b64_json",),
    ("url",),
)

# The types of parts that are pictures, also where none is there.
_PICTURES = ("image_url", "image", "output_image")

# The types of parts that are sound.
_SOUND = ("audio", "input_audio", "output_audio")


class PictureSlot(NamedTuple):
    """Where in a reply a picture stands, as keys and indexes, and what stands there."""

    keys: tuple[str | int, ...]
    value: Any

    @property
    def path(self) -> str:
        """The path of a stored picture; empty for one that is not stored."""
        return str(self.value["path"]) if isinstance(self.value, Mapping) else ""

    @property
    def encoded(self) -> tuple[str, str]:
        """What stands before the base64, and the base64; both empty for a link."""
        if not isinstance(self.value, str) or self.value.startswith(("http://", "https://")):
            return "", ""
        head, comma, data = self.value.rpartition(",")
        return f"{head}{comma}", data


def picture_slots(reply: Json) -> list[PictureSlot]:
    """The pictures in a chat completion or a response, in their order."""
    slots: list[PictureSlot] = []
    for at, choice in _objects(reply.get("choices")):
        slots += message_slots(mapping(choice.get("message")), ("choices", at, "message"))
    for at, item in _objects(reply.get("output")):
        if item.get("type") == "image_generation_call":
            slots.append(PictureSlot(("output", at, "result"), item.get("result")))
        slots += message_slots(item, ("output", at))
    return slots


def message_slots(message: Json, keys: tuple[str | int, ...] = ()) -> list[PictureSlot]:
    """The pictures in one message, which stands at `keys` of a reply."""
    content = message.get("content")
    slots = []
    is_stored = isinstance(content, Mapping) and "path" in content
    if is_stored or (isinstance(content, str) and content.startswith("data:image/")):
        slots.append(PictureSlot((*keys, "content"), content))
    image = message.get("image")
    if isinstance(image, Mapping):
        slots += _slot_of(image, (*keys, "image"))
    for name in ("content", "images"):
        for at, part in _objects(message.get(name)):
            slots += _slot_of(part, (*keys, name, at))
    images = message.get("images")
    for at, value in enumerate(images if isinstance(images, list) else ()):
        if isinstance(value, str):
            slots.append(PictureSlot((*keys, "images", at), value))
    return slots


def _slot_of(part: Json, keys: tuple[str | int, ...]) -> list[PictureSlot]:
    """The picture in a part that stands at `keys`, if it has one."""
    if part.get("type") in _SOUND or isinstance(part.get("text"), str):
        return []
    if "path" in part:
        return [PictureSlot(keys, part)]
    for inner in _KEYS:
        value: Any = part
        for key in inner:
            value = value.get(key) if isinstance(value, Mapping) else None
        if (isinstance(value, str) and value) or (isinstance(value, Mapping) and "path" in value):
            return [PictureSlot((*keys, *inner), value)]
    is_picture = "images" in keys[-2:-1] or part.get("type") in _PICTURES
    return [PictureSlot((*keys, "url"), None)] if is_picture else []


def has_sound(reply: Json) -> bool:
    """Whether a chat completion holds recordings."""
    messages = [mapping(choice.get("message")) for _, choice in _objects(reply.get("choices"))]
    return any(
        mapping(message.get("audio")).get("data")
        or any(part.get("type") in _SOUND for _, part in _objects(message.get("content")))
        for message in messages
    )


def with_pictures(reply: Json, values: Mapping[tuple[str | int, ...], Any]) -> dict[str, Any]:
    """A copy of a reply with other values at these keys."""
    copy: dict[str, Any] = dict(reply)
    for keys, value in values.items():
        inner: Any = copy
        for key in keys[:-1]:
            inner[key] = inner[key].copy()
            inner = inner[key]
        inner[keys[-1]] = value
    return copy


def sendable_content(content: Any) -> Any:
    """A message's content without pictures and sound, which servers do not take from assistants."""
    if isinstance(content, list):
        parts = [mapping(part) for part in content]
        return [part for part in parts if part.get("type") not in _SOUND and not _slot_of(part, ())]
    return content if isinstance(content, str) and not content.startswith("data:") else None


def _objects(value: Any) -> Iterator[tuple[int, Json]]:
    items: Sequence[Any] = value if isinstance(value, list) else ()
    return ((at, item) for at, item in enumerate(items) if isinstance(item, Mapping))
