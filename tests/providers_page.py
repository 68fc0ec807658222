"""docs/providers.md, made of the tables of the code: `python tests/providers_page.py` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from provider_forms import FINISH, FORMS, Form

from batchgen.dispatch.api.codes import CODES, STATUSES, Rule
from batchgen.dispatch.api.errors import classify
from batchgen.replies.finish import broke_off, finish_word, is_whole

PAGE = Path(__file__).parent.parent / "docs/providers.md"

DOES = {
    "throttled": "all rows wait, then it is sent again",
    "transient": "it is sent again, at last the row fails",
    "row": "the row fails, the run goes on",
    "account": "the run stops with 4, rows stay pending",
}
# A 403 says of itself nothing about whose fault it is.
FORBIDDEN = "if nothing was answered yet, the run stops with 4; else the row fails"

# What stands above this line of the page is written by hand.
MARK = "<!-- tests/providers_page.py makes what follows -->\n"

CODES_HEAD = """\
## All codes

| code | what happens | reason |
|---|---|---|
"""

FINISH_HEAD = """\
## Finish reasons

What each provider sends, and what becomes of it; [Output](output.md#finish-reasons) has more words.

| provider | word | row | `finish_reason` |
|---|---|---|---|
"""

TABLE_HEAD = "| HTTP | the error says | what happens | reason |\n|--:|---|---|---|\n"


def does(rule: Rule) -> str:
    """What batchgen does with a failure, in words."""
    return FORBIDDEN if rule[1] == "forbidden" else DOES[rule[0]]


def becomes(word: str) -> tuple[str, str]:
    """What a finish reason makes of its row, and the word of the table."""
    if broke_off(word):
        return "asked again, then failed", ""
    shown = finish_word(word) or ""
    return "succeeded" if is_whole(shown) else "incomplete", f"`{shown}`"


def outcome(form: Form) -> Rule:
    """What the code makes of a form."""
    failure = classify(form.status, json.dumps(form.body).encode(), dict(form.headers))
    return failure.meaning, failure.reason


def _shown(code: str) -> str:
    return code if not code or " " in code or "`" in code else f"`{code}`"


def _lines(forms: Iterable[Form]) -> Iterator[str]:
    """The lines of a provider's table: the codes of one status and outcome share one."""

    def alike(form: Form) -> tuple[int, Rule, bool]:
        return form.status, outcome(form), not form.code

    for (status, rule, is_bare), group in groupby(sorted(forms, key=alike), key=alike):
        codes = sorted({form.code for form in group})
        shown = "anything else" if is_bare else ", ".join(map(_shown, codes))
        yield f"| {status} | {shown} | {does(rule)} | `{rule[1]}` |"


def page() -> str:
    """The whole page, with its beginning as it is."""
    head, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    parts = [head + mark]
    for provider in FINISH:
        lines = _lines(form for form in FORMS if form.provider == provider)
        parts.append(f"## {provider}\n\n{TABLE_HEAD}" + "\n".join(lines) + "\n")
    rules: dict[Rule, list[str]] = {}
    for code, rule in CODES.items():
        rules.setdefault(rule, []).append(f"`{code}`")
    for status, rule in STATUSES.items():
        rules.setdefault(rule, []).append(f"HTTP {status}")
    codes = [
        f"| {', '.join(group)} | {does(rule)} | `{rule[1]}` |" for rule, group in rules.items()
    ]
    parts.append(CODES_HEAD + "\n".join(codes) + "\n")
    words = [
        f"| {provider} | `{word}` | {' | '.join(becomes(word))} |"
        for provider, listed in FINISH.items()
        for word in listed
    ]
    parts.append(FINISH_HEAD + "\n".join(words) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
