"""The table of promises is true: each has tests, which say so themselves."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NUMBERS = [f"P{number:02}" for number in range(1, 51)]


@cache
def guarded() -> dict[tuple[str, str], frozenset[str]]:
    """The numbers at the head of each test's docstring, by file and name."""
    found = {}
    for path in HERE.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                head = re.match(r"(?:P\d\d )*", ast.get_docstring(node) or "")
                found[path.relative_to(HERE).as_posix(), node.name] = frozenset(
                    head[0].split() if head else ()
                )
    return found


@cache
def promised() -> dict[str, str]:
    """What the table says of each number."""
    table = re.findall(
        r"^\| (P\d\d) \| [^|]+ \| ([^|]+) \|$",
        (HERE / "PROMISES.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert [number for number, _ in table] == NUMBERS
    return dict(table)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_promise_has_tests_that_say_so(number: str) -> None:
    """Each test that a promise names by file exists and begins with the promise's number."""
    tests = promised()[number]
    named = [
        (file, name)
        for file, names in (part.split(": ") for part in tests.split("; "))
        for name in names.split(", ")
    ]
    assert named
    for test in named:
        assert number in guarded()[test], test


def test_no_test_guards_what_is_not_promised() -> None:
    """A number in a docstring is one of the table's."""
    assert not frozenset().union(*guarded().values()) - set(NUMBERS)
