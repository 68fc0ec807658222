"""JSON documents: one array of objects or texts, streamed, with every type as it is."""

from __future__ import annotations

import io
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import InputError
from batchgen.prompts import Prompt, documents, open_prompts
from batchgen.prompts import lines as prompt_lines


def read(data: bytes | str, **options: Any) -> list[Prompt]:
    raw = data.encode() if isinstance(data, str) else data
    stream = io.BytesIO(raw)
    with open_prompts(None, stream=stream, display_name="p", format="json", **options) as file:
        return list(file)


def rows(data: bytes | str, **options: Any) -> list[dict[str, Any]]:
    return [each.columns for each in read(data, **options)]


def refusal(data: bytes | str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(data, **options)
    return str(caught.value)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ROW = st.dictionaries(TEXT.map(lambda name: unicodedata.normalize("NFC", name)), VALUE, max_size=4)


@given(
    st.lists(ROW | TEXT, min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([None, 0, 1, "\t"]),
    st.integers(1, 40),
)
def test_any_array_comes_back(
    table: list[Any], ascii_only: bool, indent: int | str | None, block: int
) -> None:
    """P28, P29 Whatever the array's form, and wherever the blocks cut it, each element comes back
    equal and with its types; a text is a prompt.
    """
    data = json.dumps(table, ensure_ascii=ascii_only, indent=indent)
    before = prompt_lines.BLOCK
    prompt_lines.BLOCK = block
    try:
        found = rows(data)
    finally:
        prompt_lines.BLOCK = before
    wanted = [{"prompt": each} if isinstance(each, str) else each for each in table]
    assert repr(found) == repr(wanted)


@given(st.lists(ROW, min_size=2, max_size=5), st.sampled_from(["\n", "\r\n", " ", ""]))
def test_objects_one_after_the_other(table: list[dict[str, Any]], between: str) -> None:
    """P28 A .json that is really JSON Lines is read too, pretty-printed or not."""
    data = between.join(json.dumps(each, indent=1) for each in table)
    assert repr(rows(data)) == repr(table)


def test_lines_are_where_elements_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """P30 The line of an element is exact, whatever the blocks."""
    data = '[\n{"a":\n1},\n\n{"a": 2}, {"a": 3},\n"x"\n]\n'
    for block in (1, 3, 1000):
        monkeypatch.setattr(prompt_lines, "BLOCK", block)
        assert [(each.n, each.line) for each in read(data)] == [(1, 2), (2, 5), (3, 5), (4, 6)]


def test_a_byte_order_mark_and_utf16() -> None:
    """P28 The encodings of the other texts hold here too."""
    text = '[{"ä": "ß"}]'
    for encoding in ("utf-8-sig", "utf-16"):
        assert rows(text.encode(encoding)) == [{"ä": "ß"}]
    assert "p:2: is not UTF-8; as cp1252 the line reads ' \"wei" in refusal(b'[\n "wei\xdf"]')


@pytest.mark.parametrize(
    ("element", "word"),
    [
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1e400}', "too large"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        (r'{"a": "\ud83d"}', "half a character"),
        ('{"a": ' + "1" * 5000 + "}", "too many digits"),
        ("1", "found a number"),
        ("[1]", "found a list"),
        ("null", "found null"),
    ],
)
def test_an_element_that_is_no_row(element: str, word: str) -> None:
    """P30 It is refused with its line; with bad_rows: fail it is one failed row among others."""
    data = f'[{{"a": 0}},\n{element},\n{{"a": 1}}]'
    assert refusal(data).startswith("p:2: ")
    assert word in refusal(data)
    found = read(data, bad_rows="fail")
    assert [each.line for each in found] == [1, 2, 3]
    assert word in (found[1].error or "")
    assert found[2].columns == {"a": 1}


@pytest.mark.parametrize(
    ("data", "line", "word"),
    [
        ('[{"a": 1},\n{"a" 1}]', 2, "colon"),
        ('[{"a": 1}\n{"a": 1}]', 2, "expected a comma or the closing bracket of the array"),
        ('[{"a": 1},\n]', 2, "missing, or is not JSON"),
        ('[{"a": 1},\n{"a": "x', 2, "never closed"),
        ('[{"a": 1}\n', 2, "the array is never closed; is the file whole?"),
        ('[{"a": 1}]\n[]', 2, "more text after the array"),
        ('["' + "x" * 200 + '\t"]', 1, "control character"),
        ("[" * 200_000, 1, "nested too deeply"),
        ('{"data": [{"a": 1}]}', 0, "jq -c '.data[]' IN.json > OUT.jsonl"),
        ('{"n": 1, "a b": [1]}', 0, """jq -c '.["a b"][]' IN.json > OUT.jsonl"""),
        ('{"x": {"a": 1}, "y": {}}', 0, "jq -c 'to_entries[] | {id: .key} + .value' IN.json"),
        ('{"a": 1}', 0, "put it into brackets"),
        ("[]", 0, "holds no prompts"),
        ("", 0, "holds no prompts"),
        (" \n", 0, "holds no prompts"),
    ],
)
def test_documents_that_are_broken(data: str, line: int, word: str) -> None:
    """P30 Where the next element cannot be found, the file is refused with the line, and
    bad_rows: fail does not forgive it.
    """
    message = refusal(data, bad_rows="fail")
    assert word in message
    assert message.startswith(f"p:{line}: " if line else "p: ")


def test_a_fault_is_found_without_reading_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 A broken element at the top of a large file does not bring all of it into memory."""
    monkeypatch.setattr(prompt_lines, "BLOCK", 1000)
    read_on: list[int] = []
    original = documents._Document._read

    def counted(self: documents._Document) -> bool:
        read_on.append(1)
        return original(self)

    monkeypatch.setattr(documents._Document, "_read", counted)
    assert "colon" in refusal('[{"a" 1}' + ', {"a": 1}' * 100_000 + "]")
    assert len(read_on) < 5


def test_an_endless_element_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 An element beyond LIMIT is refused instead of read."""
    monkeypatch.setattr(prompt_lines, "LIMIT", 1000)
    monkeypatch.setattr(prompt_lines, "BLOCK", 100)
    assert "longer than 1,000 characters" in refusal('["' + "x" * 10_000)
