"""The rules of the house that a test can check: sizes, names, and the order within dispatch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

LONGEST_FILE = 300
LONGEST_INIT = 150
LONGEST_FUNCTION = 60
MANY_PARAMETERS = 5
WIDEST_LINE = 100
# The `__init__` files that may be longer, because they only list types.
TYPE_LISTS = {"batchgen/dispatch/__init__.py"}

# Words that no name may hold, each with the words to use instead.
FORBIDDEN_WORDS = {
    "attend": "set_stop",
    "doubt": "suspicion",
    "fence": "sandbox",
    "governor": "limiter",
    "harmless": "noise_rate",
    "heard": "received, or what was received",
    "ident": "outcome_id, row_id, provider_id",
    "intake": "staging, stager",
    "ledger": "recorder",
    "look": "stat, poll, preview, layout",
    "looked": "polled, read",
    "patience": "threshold",
    "place": "workspace, position, path",
    "purse": "CostBudget",
    "said": "output, message, text",
    "shard": "input file, batch",
    "shards": "input files, batches",
    "slept": "shift_clock",
    "spoke": "record_response",
    "stray": "stale request",
    "strayed": "stale requests",
    "strays": "stale requests",
    "telling": "translating_errors",
    "ticket": "permit",
    "told": "message, reply, options, expected",
    "troubled": "record_trouble",
    "unasked": "release_probe",
    "vain": "ineffective_cuts",
    "wire": "http",
}
# Names that mean several things; a longer name that holds one of them may be clear.
FORBIDDEN_NAMES = {
    "Bucket": "SharedLimit, Window",
    "Called": "AttemptResult",
    "Caller": "Transport",
    "Calls": "AttemptRunner",
    "Known": "BatchRegistry, QueueLimit",
    "Line": "SharedLimit",
    "Place": "Workspace",
    "Questions": "Counts",
    "Standing": "RowCounts",
    "Tally": "RowCounts",
    "Watch": "Watchdog, ProgressCallback",
}
# Where such a word stays, because a file format or another package has it.
ALLOWED_NAMES: dict[str, set[str]] = {
    # Fields of `plan --json`.
    "batchgen/planner.py": {"shards", "strays"},
    "batchgen/cli/plan_lines.py": {"shards", "strays"},
    "tests/dispatch/batches/test_batch_hostile.py": {"strays"},
    "tests/dispatch/batches/test_batches.py": {"shards"},
    # The simulated server has a token bucket.
    "batchgen/simulator/limits.py": {"Bucket"},
    "tests/simulator/test_simulated_limits.py": {"Bucket"},
}

# What each part of dispatch may import of the others ("": the types in its __init__).
DISPATCH: dict[str, set[str]] = {
    "": set(),
    "retry": {""},
    "failure_limit": {""},
    "api": {""},
    "limits": {"", "api"},
    "online": {"", "api", "limits", "retry", "failure_limit"},
    "batches": {"", "api", "limits", "retry", "failure_limit"},
}


def words_of(name: str) -> list[str]:
    """`_BatchLedger2`, `batch_ledger` and `BATCH_LEDGER` are batch, ledger (and 2)."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]


def names_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module uses or gives, with its line."""
    for node in ast.walk(tree):
        for attribute in ("id", "attr", "arg", "name", "asname"):
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                yield name, getattr(node, "lineno", 0)


def forbidden_names(path: Path, shown: str) -> list[str]:
    """The forbidden names of a file, each with its line and what to use instead."""
    messages = {}
    for name, line in names_in(ast.parse(path.read_text(encoding="utf-8"))):
        # The name of a test is a sentence, in which these words have their usual meaning.
        if name in ALLOWED_NAMES.get(shown, set()) or name.startswith("test_"):
            continue
        instead = FORBIDDEN_NAMES.get(name.lstrip("_"))
        for word in words_of(name):
            instead = instead or FORBIDDEN_WORDS.get(word)
        if instead:
            messages[name] = f"{shown}:{line}: {name}; use {instead}"
    return list(messages.values())


def long_functions(path: Path) -> Iterator[tuple[str, int]]:
    """The functions of a file that are too long, with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield node.name, length


def unnamed_parameters(path: Path) -> Iterator[str]:
    """The callables of a file with five or more parameters, some of which no docstring names.

    Those of a class may be named in its own docstring, and those that are another callable's may
    be left to it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owners = {
        id(inner): node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for inner in node.body
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        names = [each.arg for each in arguments if each.arg not in ("self", "cls")]
        text = ast.get_docstring(node) or ""
        if node.name == "__init__":
            text += ast.get_docstring(owners[id(node)]) or ""
        missing = [name for name in names if not re.search(rf"\b{name}\b", text)]
        if len(names) >= MANY_PARAMETERS and missing and "parameters are those of" not in text:
            yield f"{node.name}: {', '.join(missing)}"
