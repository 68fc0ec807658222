"""The one JSON value in a text, whatever a model puts around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.schemas import find_json

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(
    SCALARS.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=15,
)
# Sentences without brackets, which are JSON's.
PROSE = st.text(st.characters(exclude_characters="[]{}`\ufeff", codec="utf-8"))


def found(text: str) -> Any:
    result = find_json(text)
    return (result.value, result.wrapping) if result else None


@given(VALUES, st.sampled_from([None, 2]), PROSE, PROSE)
def test_the_value_put_in_is_the_value_found(
    value: Any, indent: int | None, before: str, after: str
) -> None:
    """P47 A value alone, in a fence, and an object or a list in sentences are found as they are."""
    text = json.dumps(value, indent=indent)
    assert found(f" {text}\n") == (value, "")
    assert found(f"\ufeff{text}") == (value, "")
    assert found(f"```json\n{text}\n```") == (value, "fence")
    assert found(f"{before}.\n```\n{text}\n```\n.{after}") == (value, "fence")
    if isinstance(value, list | dict):
        assert found(f"{before}: {text} .{after}") == (value, "text")


@given(VALUES.filter(lambda value: isinstance(value, list | dict)), st.data())
def test_no_part_is_taken_for_the_whole(value: Any, data: st.DataObject) -> None:
    """P47 What is left of a value that was cut off is no value, in whatever it stands."""
    text = json.dumps(value, indent=data.draw(st.sampled_from([None, 1])))
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    for shown in (cut, f"Sure: {cut}", f"```json\n{cut}\n```", f"```json\n{cut}"):
        assert found(shown) is None


@given(st.lists(VALUES.filter(lambda value: isinstance(value, list | dict)), min_size=2))
def test_several_values_are_none(values: list[Any]) -> None:
    """P47 Where several values stand, none of them is chosen."""
    texts = [json.dumps(value) for value in values]
    for shown in ("\n".join(texts), " or ".join(texts)):
        assert found(shown) is None
    assert found("\n".join(f"```json\n{text}\n```" for text in texts)) is None


@given(st.text(st.sampled_from('{}[]",:1a`\n \\'), max_size=40))
def test_what_is_found_stands_in_the_text(text: str) -> None:
    """P47 A value that is found is JSON that stands in the text, with no bracket beside it that
    would make it a part of another.
    """
    result = find_json(text)
    if result is not None:
        assert json.loads(result.text) == result.value
        assert result.text in text
        before, _, after = text.partition(result.text)
        around = before + after
        assert result.wrapping != "text" or not set("{}[]") & set(around)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("   \n", None),
        ("two words", None),
        ("The answer is 42.", None),
        ('{"a": NaN}', None),
        ('{"a": 1e999}', None),
        ("[" * 200_000, None),
        ('{"a": "}"}', ({"a": "}"}, "")),
        ("```json\n```", None),
        ('Sizes [S, M]:\n```json\n{"a": 1}\n```\nSee [1].', ({"a": 1}, "fence")),
        ('```json {"a": 1} ```', ({"a": 1}, "text")),
        # A fence within a string of a broken value.
        ('{"a": "\n```json\n[1]\n```\n', None),
        ('{"a": "\n```json\n[1]\n```\n", "b": }', None),
    ],
)
def test_texts(text: str, expected: Any) -> None:
    """P47 What models write, and what is no value."""
    assert found(text) == expected
