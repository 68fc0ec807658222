"""Rows that are conversations: messages, ShareGPT and its like, lists of the user's turns."""

from __future__ import annotations

import re

from batchgen.init.names import expression
from batchgen.init.shape import Shape
from batchgen.init.survey import Column, Survey
from batchgen.init.texts import is_answer

# Headers of conversations, the likeliest first.
_CHATS = ("messages", "conversations", "conversation", "prompt", "chat", "dialog", "dialogue")
# Headers of a list of texts that are the user's turns.
_TURNS = re.compile(r"(user[ _-])?(turns|questions|prompts)")
# Fields of a request that fine-tuning files have beside the messages, and what they hold.
_PASSED = {"tools": "objects", "functions": "objects", "parallel_tool_calls": "flag"}


def messages_of(survey: Survey) -> Shape | None:
    """A column of messages, or of what the filter `messages` makes messages of."""
    columns = [
        column
        for column in survey.columns.values()
        if survey.mostly_filled(column)
        and not is_answer(column.name)
        and column.kinds["messages"] + column.kinds["conversation"] == column.filled
    ]
    if not columns:
        return None
    rank = {name: position for position, name in enumerate(_CHATS)}
    column = min(columns, key=lambda each: rank.get(each.name.lower(), len(rank)))
    plain = column.all("messages")
    found = f"{column.name}, a conversation{'' if plain else ' in another form, made messages'}"
    replies = column.kinds["reply_last"]
    if replies:
        some = " where there is one" if replies < column.filled else ""
        found += f"; the assistant's last reply is left off{some}"
    return Shape(
        found=found,
        columns=(column.name,),
        messages=_expression(column, plain, replies),
        passed=_passed(survey),
        unsure=tuple(
            f"{each.name}: not sent; put its pictures into the messages if they belong there"
            for each in survey.columns.values()
            if each.name.lower() in ("images", "image") and each.filled
        ),
    )


def _expression(column: Column, plain: bool, replies: int) -> str:
    """The messages, as they are or made such, without the last reply where it is an answer."""
    name = expression(column.name)
    whole = name if plain else f"{name} | messages"
    if not replies:
        return whole
    group = whole if plain else f"({whole})"
    if replies == column.filled:
        return f"{group}[:-1]"
    condition = f'{group} | length > 1 and {group}[-1].role == "assistant"'
    return f"{group}[:-1] if {condition} else {group}"


def _passed(survey: Survey) -> dict[str, str]:
    """The fields of a request beside the messages, where the rows have them as the API does."""
    passed = {}
    for name, kind in _PASSED.items():
        column = survey.columns.get(name)
        if column is not None and column.all(kind):
            value = expression(name, always=survey.in_every_row(name))
            # Null, or an empty list, leaves the field out.
            empty = column.filled < survey.rows and kind == "objects"
            passed[name] = f"{value} or none" if empty else value
    if "tools" not in passed:
        passed.pop("parallel_tool_calls", None)
    return passed


def turns_of(survey: Survey) -> Shape | None:
    """A list of texts whose header says that they are the user's turns."""
    for column in survey.columns.values():
        if (
            _TURNS.fullmatch(column.name.lower())
            and column.all("texts")
            and survey.mostly_filled(column)
        ):
            return Shape(
                found=f"{column.name}, the user's turns of a conversation, sent one by one",
                columns=(column.name,),
                lines=("{{ turn }}",),
                turns=column.name,
            )
    return None
