"""docs/providers.md is what the tables of the code make of what providers send."""

from __future__ import annotations

import re

from provider_forms import FINISH, FORMS
from providers_page import PAGE, page

from batchgen.dispatch.api.codes import CODES, STATUSES, UNATTRIBUTED
from batchgen.dispatch.failure_limit import SAME_REFUSALS
from batchgen.dispatch.retry import LONGEST_WAIT
from batchgen.replies.finish import BROKEN_OFF, ENDED, INCOMPLETE


def test_the_page_is_what_the_code_makes() -> None:
    """A changed table changes the page."""
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python tests/providers_page.py`"


def test_every_code_is_on_the_page() -> None:
    """No code and no status of the tables is left out."""
    text = PAGE.read_text(encoding="utf-8")
    for code in CODES:
        assert f"`{code}`" in text
    for status in STATUSES:
        assert f"HTTP {status}" in text


def test_the_rules_above_the_tables_are_those_of_the_code() -> None:
    """The numbers and reasons that the page names."""
    rules = PAGE.read_text(encoding="utf-8").split("\n## ")[0]
    assert f"If {SAME_REFUSALS} requests" in rules
    sentence = rules.split("this holds for the reasons")[1].split(" only")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == UNATTRIBUTED
    assert LONGEST_WAIT == 600
    assert "more than ten minutes" in rules


def test_all_ten_providers_are_there() -> None:
    """Each has errors and finish reasons, and no error stands twice."""
    assert len(FINISH) == 10
    assert {form.provider for form in FORMS} == set(FINISH)
    names = [form.name for form in FORMS]
    assert len(names) == len(set(names))


def test_the_finish_reasons_of_the_providers_are_known() -> None:
    """Only a word that says nothing, Gemini's OTHER, is in no table."""
    known = {*ENDED, *INCOMPLETE, *BROKEN_OFF}
    unknown = {
        word
        for words in FINISH.values()
        for word in words
        if word.partition(":")[0].lower() not in known
    }
    assert unknown == {"OTHER"}
