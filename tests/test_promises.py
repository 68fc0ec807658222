"""The table of promises is true: each has tests, which say so themselves."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from conftest import Lab

import batchgen

HERE = Path(__file__).parent
NUMBERS = [f"P{number:02}" for number in range(1, 47)]
NOT_YET = "not yet: there is no batch mode"


@cache
def guarded() -> dict[tuple[str, str], frozenset[str]]:
    """The numbers at the head of each test's docstring, by file and name."""
    found = {}
    for path in [*HERE.glob("*.py"), *HERE.glob("faults/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                head = re.match(r"(?:P\d\d )*", ast.get_docstring(node) or "")
                found[path.relative_to(HERE).as_posix(), node.name] = frozenset(head[0].split() if head else ())
    return found


@cache
def promised() -> dict[str, str]:
    """What the table says of each number."""
    table = re.findall(
        r"^\| (P\d\d) \| [^|]+ \| ([^|]+) \|$", (HERE / "PROMISES.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [number for number, _ in table] == NUMBERS
    return dict(table)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_promise_has_tests_that_say_so(number: str) -> None:
    """A promise names its tests by file; each of them is there and begins with the promise's number."""
    told = promised()[number]
    if told == NOT_YET:
        assert not [test for test, numbers in guarded().items() if number in numbers]
        return
    named = [
        (file, name) for file, names in (part.split(": ") for part in told.split("; ")) for name in names.split(", ")
    ]
    assert named
    for test in named:
        assert number in guarded()[test], test


def test_no_test_guards_what_is_not_promised() -> None:
    """A number in a docstring is one of the table's."""
    assert not frozenset().union(*guarded().values()) - set(NUMBERS)


def test_what_is_not_yet_is_not_offered(lab: Lab) -> None:
    """Only batch mode's promise may be without tests, and only while there is no such mode."""
    assert [number for number, told in promised().items() if told == NOT_YET] == ["P12"]
    with pytest.raises(batchgen.InputError, match="batch"):
        lab.load(lab.job("http://127.0.0.1:9/v1", mode="batch"))
