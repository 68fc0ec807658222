"""Names that are safe, and that no two rows share."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.images import (
    file_stem,
    slug,
)

HOSTILE = [
    *(
        "../../x",
        "/etc/x",
        "a/b",
        "a\\b",
        "CON",
        "con",
        "aux.png",
        "nul",
        "COM1",
        "lpt9.txt",
        "a\0b",
        "x" * 300,
        "x" * 301,
    ),
    *(
        "A",
        "a",
        "Ä",
        unicodedata.normalize("NFD", "Ä"),
        "ä",
        "",
        ".",
        "..",
        ".hidden",
        "~",
        "-",
        "a b",
        "a_b",
        "日本",
        "本日",
    ),
    *("\ud800", "a.", "a", "a:b", "*", "\u202e", "row", "-rf", "a\n", "ß", "ss", "İ", "i"),
]


@pytest.mark.parametrize("identity", HOSTILE)
def test_names_are_safe(identity: str) -> None:
    """P33 For any id: letters, digits, . _ - only; never hidden, a device, too long or outside of
    the folder.
    """
    _assert_safe(identity)


def _assert_safe(identity: str) -> None:
    name = slug(identity)
    assert name
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert not name.startswith(".")
    assert name.partition(".")[0].lower() not in ("con", "prn", "aux", "nul", "com1", "lpt9")
    assert len(name) <= 117
    assert os.path.basename(name) == name


def test_plain_ids_name_their_files() -> None:
    """P33 An id that is a safe name already is the name."""
    for identity in ("a", "sku-001", "photo_1.v2", "42"):
        assert slug(identity) == identity
    assert file_stem("sku-1", {"size": "small", "n": 2}) == "sku-1-small-2"
    assert len(file_stem("x" * 300, {str(n): "y" * 300 for n in range(9)})) < 220


def test_names_never_meet() -> None:
    """P33 Ids that differ only by case, Unicode form, truncation or removed characters, or that
    imitate a hash, get different names.
    """
    ids = list(dict.fromkeys(HOSTILE))
    ids += [slug(identity) for identity in ids if slug(identity) not in ids]
    ids += [slug(identity).lower() for identity in ids if slug(identity).lower() not in ids]
    assert len({slug(identity).lower() for identity in ids}) == len(ids)


@given(st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
def test_any_two_ids_have_two_names(ids: list[str]) -> None:
    """P33 Safe and different, for any two ids, on any file system."""
    for identity in ids:
        _assert_safe(identity)
    one, other = (unicodedata.normalize("NFC", slug(identity)).casefold() for identity in ids)
    assert one != other
