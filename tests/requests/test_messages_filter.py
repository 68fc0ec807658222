"""The filter `messages`: conversations as data sets have them become messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateRuntimeError

from batchgen.requests.conversations import KEYS, ROLES, as_messages


def test_sharegpt_becomes_messages() -> None:
    """from and value become role and content, under the API's roles, and other keys go."""
    assert as_messages(
        [
            {"from": "system", "value": "S", "weight": 1},
            {"from": "human", "value": "Why?", "id": 3},
            {"from": "gpt", "value": "So."},
        ]
    ) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
    ]


def test_messages_stay_what_they_are() -> None:
    """What the API takes is kept, calls of tools too; what only fine-tuning takes is not."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    message = {"role": "user", "content": [{"type": "text", "text": "x"}], "name": "a"}
    assert as_messages([{**message, "weight": 0}, call]) == [message, call]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", "not a list"),
        (["text"], "not an object"),
        ([{"from": "alien", "value": "x"}], "'alien' is not one of"),
        ([{"content": "x"}], "'None' is not one of"),
    ],
)
def test_what_is_no_conversation_is_an_error(value: Any, words: str) -> None:
    """Anything else is an error of the row, in words."""
    with pytest.raises(TemplateRuntimeError, match=words):
        as_messages(value)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(sorted(ROLES)), "content": st.text()},
            optional={"weight": st.integers(), "name": st.text()},
        )
    )
)
def test_doing_it_twice_changes_nothing(value: list[dict[str, Any]]) -> None:
    """The messages have keys and roles that the API takes, so the filter leaves them alone."""
    messages = as_messages(value)
    assert as_messages(messages) == messages
    assert all(message.keys() <= {*KEYS} for message in messages)
