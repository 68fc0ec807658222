"""The replies that are text: chat completions, completions and responses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from batchgen.replies.answer import (
    Answer,
    Choice,
    UnreadableReplyError,
    answer_of,
    has_fewer_answers,
    items_of,
    word_of,
)
from batchgen.replies.finish import INCOMPLETE, finish_word, is_whole
from batchgen.replies.pictures import PictureSlot, message_slots, picture_slots
from batchgen.replies.usage import Json, mapping

# The types of parts that are no part of the answer: reasoning, reasoning_text, thinking.
_THOUGHT = re.compile("reason|think")


def first_message(response: Json) -> Json:
    """The message of the choice with the lowest index. Raises UnreadableReplyError."""
    return _message(items_of(response, "choices")[0])


def _message(choice: Json) -> Json:
    message = choice.get("message")
    if message is None and finish_word(choice.get("finish_reason")) in INCOMPLETE.values():
        # Gemini sends none with an answer that it filtered whole.
        return {}
    if not isinstance(message, dict):
        raise UnreadableReplyError("the reply's choice has no message")
    return message


def audio_transcript(message: Json) -> str:
    """The transcript of a chat message that is audio; empty for any other."""
    transcript = mapping(message.get("audio")).get("transcript")
    return transcript if isinstance(transcript, str) else ""


def _choice(
    text: str,
    reason: object,
    *,
    refused: bool = False,
    calls: bool = False,
    slots: Sequence[PictureSlot] = (),
) -> Choice:
    """A text choice.

    The finish reason of an empty or refused text is `empty` or `refusal`, whatever the server says;
    that of a text with a picture which is not stored is `picture`.

    text: its text.
    reason: the server's.
    refused: the text is a refusal.
    calls: the text is that of tool calls.
    slots: its pictures. Without a text, the path of the first stands for it.
    """
    if refused:
        return Choice(text=text, finish_reason="refusal")
    word = word_of(finish_word(reason))
    pictures = tuple(slot.path for slot in slots if slot.path)
    if slots and is_whole(word) and len(pictures) < len(slots):
        return Choice(text=text, finish_reason="picture", pictures=pictures)
    if pictures and not text.strip():
        text = pictures[0]
    # White space is what some models write for ever when they are to write JSON.
    blank = not text.strip() and is_whole(word)
    finish = "empty" if blank else word
    return Choice(text=text, finish_reason=finish, calls=calls, pictures=pictures)


def read_chat(response: Json, body: Json) -> Answer:
    """A chat completion: https://platform.openai.com/docs/api-reference/chat/object"""
    choices = []
    for item in items_of(response, "choices"):
        message = _message(item)
        refusal = message.get("refusal") or _refusal_part(message.get("content"))
        text = _content(message.get("content")) or audio_transcript(message)
        calls = "" if text else _tool_calls(message)
        refused = isinstance(refusal, str) and bool(refusal)
        text = str(refusal) if refused else text or calls
        choices.append(
            _choice(
                text,
                item.get("finish_reason"),
                refused=refused,
                calls=bool(calls),
                slots=message_slots(message),
            )
        )
    return answer_of(
        response, choices, lacking="fewer_choices" if has_fewer_answers(choices, body) else ""
    )


def _refusal_part(content: object) -> str:
    """The refusals among the parts of a message's content."""
    parts = content if isinstance(content, list) else []
    refusals = [mapping(part).get("refusal") for part in parts]
    return "".join(refusal for refusal in refusals if isinstance(refusal, str))


def _tool_calls(message: Json) -> str:
    """The tool calls of a message as JSON, or its one call in the old form; empty without any."""
    for calls in (message.get("tool_calls"), message.get("function_call")):
        if isinstance(calls, list | Mapping) and calls:
            return json.dumps(calls, ensure_ascii=False)
    return ""


def _content(content: object) -> str:
    """A message's text: a string, null, or a list of text parts as some servers send it."""
    is_picture = isinstance(content, Mapping) and "path" in content
    if content is None or is_picture:
        return ""
    if isinstance(content, str):
        return "" if content.startswith("data:image/") else content
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        return _text_of(content)
    raise UnreadableReplyError(f"the reply's content is {type(content).__name__}, not text")


def _text_of(parts: Sequence[Json]) -> str:
    """The text of a message's parts, without what the model thought before it answered."""
    return "".join(
        part["text"]
        for part in parts
        if isinstance(part.get("text"), str) and not _THOUGHT.search(str(part.get("type")))
    )


def read_completion(response: Json, body: Json) -> Answer:
    """A completion: https://platform.openai.com/docs/api-reference/completions/object"""
    choices = []
    for item in items_of(response, "choices"):
        text = item.get("text")
        if not isinstance(text, str):
            raise UnreadableReplyError("the reply's choice has no text")
        choices.append(_choice(text, item.get("finish_reason")))
    return answer_of(
        response, choices, lacking="fewer_choices" if has_fewer_answers(choices, body) else ""
    )


# Items of a response that ask the caller to act. They are the answer, like tool_calls in a chat.
_CALLS = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "computer_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
    }
)

# Statuses of items that did not come to their end.
_CUT = ("incomplete", "in_progress")


def read_text(response: Json, body: Json) -> Answer:
    """A response: https://platform.openai.com/docs/api-reference/responses/object"""
    status = response.get("status")
    if status not in ("completed", "incomplete"):
        raise UnreadableReplyError(f"the reply's status is {status!r}")
    # A model that is cut before its first word sends an empty list, or none. One that ends by
    # itself sends at least its reasoning.
    has_no_output = status == "incomplete" and not response.get("output")
    output = [] if has_no_output else items_of(response, "output")
    messages = _final_messages(output)
    parts = [part for item in messages for part in _parts(item)]
    text = _text_of(parts)
    refusal = "".join(part["refusal"] for part in parts if isinstance(part.get("refusal"), str))
    calls = [item for item in output if str(item.get("type")) in _CALLS]
    only_calls = bool(calls) and not text
    if only_calls:
        text = json.dumps(calls, ensure_ascii=False)
    refused = bool(refusal)
    # An item says so when it was cut, and so do the details, whatever the response says.
    is_cut = any(item.get("status") in _CUT for item in (*messages, *calls))
    is_cut = is_cut or bool(mapping(response.get("incomplete_details")).get("reason"))
    if (status == "incomplete" or is_cut) and not refused:
        reason = _why_incomplete(response)
        return answer_of(response, [Choice(text=text, finish_reason=reason)], lacking=reason)
    reason = "tool_calls" if calls else "stop"
    return answer_of(
        response,
        [
            _choice(
                text or refusal,
                reason,
                refused=refused,
                calls=only_calls,
                slots=picture_slots(response),
            )
        ],
    )


def _final_messages(output: list[Json]) -> list[Json]:
    """The messages that are the answer: the final one where models comment on their work before."""
    messages = [item for item in output if item.get("type") == "message"]
    final = [item for item in messages if item.get("phase") == "final_answer"]
    return final or [item for item in messages if item.get("phase") != "commentary"] or messages


def _parts(item: object) -> list[Json]:
    content = mapping(item).get("content") if mapping(item).get("type") == "message" else None
    if isinstance(content, str):
        # The form that the API takes for a message, which some servers also send.
        return [{"text": content}]
    return (
        [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    )


def _why_incomplete(response: Json) -> str:
    """The reason, as chat completions name it if they have a name for it."""
    word = word_of(finish_word(mapping(response.get("incomplete_details")).get("reason")))
    return "incomplete" if word is None or is_whole(word) else word
