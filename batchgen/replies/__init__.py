"""A reply's JSON -> Answer, for each kind of request.

- `parsing` bytes -> JSON, with only such numbers as JSON has
- `usage`   token counts, and the server's own bill
- `answer`  `Answer` and its parts, and what all readers share
- `finish`  what each finish reason means, as data
- `texts`   the readers of chat, completion and text
- `pictures`  pictures and sound inside replies that are texts
- `data`    the readers of image, embedding and moderation

The readers trust nothing, because compatible servers and proxies send login pages, nulls and empty
choices with status 200. Anything that is not a real answer raises `UnreadableReplyError`.
"""

from batchgen.replies.answer import (
    FORMAT_FIELDS,
    Answer,
    Choice,
    UnreadableReplyError,
    count_inputs,
    outline,
    word_of,
)
from batchgen.replies.data import (
    check_embedding,
    decode_embeddings,
    drawn_items,
    read_embedding,
    read_image,
    read_moderation,
    sniff,
)
from batchgen.replies.finish import accepted, explained, is_accepted, is_whole
from batchgen.replies.parsing import decoded, parse
from batchgen.replies.pictures import (
    PictureSlot,
    has_sound,
    picture_slots,
    sendable_content,
    with_pictures,
)
from batchgen.replies.texts import (
    audio_transcript,
    first_message,
    read_chat,
    read_completion,
    read_text,
)
from batchgen.replies.usage import MAX_TOKENS, Json, Usage, read_usage

__all__ = [
    "FORMAT_FIELDS",
    "MAX_TOKENS",
    "Answer",
    "Choice",
    "Json",
    "PictureSlot",
    "UnreadableReplyError",
    "Usage",
    "accepted",
    "audio_transcript",
    "check_embedding",
    "count_inputs",
    "decode_embeddings",
    "decoded",
    "drawn_items",
    "explained",
    "first_message",
    "has_sound",
    "is_accepted",
    "is_whole",
    "outline",
    "parse",
    "picture_slots",
    "read_chat",
    "read_completion",
    "read_embedding",
    "read_image",
    "read_moderation",
    "read_text",
    "read_usage",
    "sendable_content",
    "sniff",
    "with_pictures",
    "word_of",
]
