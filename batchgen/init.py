"""A job that runs, for somebody else's file: its dialect, its id column, its real column names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchgen.disk import writing
from batchgen.errors import InputError, Problem
from batchgen.prompts import Dialect, Prompt, look, open_prompts
from batchgen.spec import load_job

EXAMPLE = """id,product,facts
p1,Enamel kettle,"1.5 litres, whistles, works on every stove"
p2,Linen apron,"two pockets, adjustable neck, washable at 60 degrees"
p3,Cast-iron pan,"28 cm, pre-seasoned, for oven and open fire"
"""

# Headers that people give to the column that names a row, and to the one that holds the prompt.
_IDS = ("id", "sku", "key", "uid", "uuid", "nr", "no", "number")
_TEXTS = ("prompt", "text", "question", "input", "instruction", "message", "content", "description")


def write_job(prompts: Path | None) -> Path:
    """Write a job for a prompts file (None: an example with its own file) and return the job's path.

    A job goes into jobs/ beside the prompts when they lie in no such folder, else beside them. Raises InputError when
    there is one already or the prompts cannot be read.
    """
    if prompts is None:
        prompts = Path("jobs") / "example.csv"
        _new(prompts)
        _new(prompts.with_suffix(".yaml"))
        prompts.parent.mkdir(exist_ok=True)
        with writing(prompts) as file:
            file.write(EXAMPLE)
    dialect, rows = look(prompts)
    if broken := next((row for row in rows if row.error), None):
        raise InputError([Problem(path=str(prompts), line=broken.line, message=str(broken.error))])
    path = _place(prompts)
    _new(path)
    with writing(path) as file:
        file.write(_job(prompts, path, dialect, rows))
    load_job(path)
    return path


def _new(path: Path) -> None:
    if path.exists():
        raise InputError([Problem(path=str(path), message="is there already; remove it or edit it")])


def _place(prompts: Path) -> Path:
    stem = prompts.name.removesuffix(".gz").rsplit(".", 1)[0]
    name = re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII).strip("-.") or "job"
    return prompts.parent / f"{name}.yaml"


def _job(prompts: Path, path: Path, dialect: Dialect, rows: Sequence[Prompt]) -> str:
    columns = list(dialect.header or dict.fromkeys(name for row in rows for name in row.columns))
    turns = next((name for name in columns if rows and all(_is_turns(row.columns.get(name)) for row in rows)), None)
    content = "{{ turn }}" if turns else _template(columns, rows)
    lines = [
        f"# The rows of {prompts.name}, each sent as one request. `batchgen plan {path}` shows what would be sent.",
        "kind: chat                     # or text, image, image_edit, embedding, moderation, completion",
        "prompts:",
        f"  path: {json.dumps(prompts.name, ensure_ascii=False)}",
        *_identity(prompts, dialect, columns, rows),
        *_dialect(dialect),
        "request:                       # the API's own request body; {{ column }} is filled in from each row",
        "  model: gpt-5.6-luna",
        "  messages:",
        "    - role: user",
        "      content: |",
        *(f"        {line}" for line in content.split("\n")),
        "  max_completion_tokens: 1000",
        *([f"conversation: {{turns: {json.dumps(turns, ensure_ascii=False)}}}"] if turns else []),
        "limits:",
        "  concurrency: 16",
        "  max_cost: 1.00               # USD over all runs; never passed",
        *_prefix(columns),
    ]
    return "\n".join(lines) + "\n"


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, str) for turn in value)


def _template(columns: Sequence[str], rows: Sequence[Prompt]) -> str:
    """The column that is the prompt by its name, else every column as a line."""
    known = {name.lower(): name for name in columns}
    text = next((known[name] for name in _TEXTS if name in known), None)
    if text is not None:
        return _reference(text)
    return "\n".join(f"{name}: {_reference(name)}" for name in columns)


def _reference(name: str) -> str:
    if name.isidentifier() and name not in (
        "row",
        "turn",
        "true",
        "false",
        "none",
        "not",
        "and",
        "or",
        "in",
        "is",
        "if",
    ):
        return f"{{{{ {name} }}}}"
    return f"{{{{ row[{json.dumps(name, ensure_ascii=False)}] }}}}"


def _identity(prompts: Path, dialect: Dialect, columns: Sequence[str], rows: Sequence[Prompt]) -> list[str]:
    """The id column: named like one, present and unique in every row."""
    candidates = [name for name in columns if name.lower() in _IDS or name.lower().endswith(("_id", " id"))]
    candidates.sort(key=lambda name: name.lower() not in _IDS)
    unique = next((name for name in candidates if _is_unique(prompts, name)), None)
    if unique is None:
        return []
    return [f"  id: {json.dumps(unique, ensure_ascii=False)}"]


def _is_unique(prompts: Path, name: str) -> bool:
    seen: set[str] = set()
    try:
        with open_prompts(prompts, shown=str(prompts)) as file:
            for prompt in file:
                value = str(prompt.columns.get(name) or "")
                if not value or value in seen:
                    return False
                seen.add(value)
    except InputError:
        return False
    return True


def _dialect(dialect: Dialect) -> list[str]:
    """What the file's name and first bytes do not say by themselves."""
    return [] if dialect.encoding in ("utf-8", "utf-8-sig", "utf-16", "ascii") else [f"  encoding: {dialect.encoding}"]


def _prefix(columns: Sequence[str]) -> list[str]:
    from batchgen.tables import LEADING, TRAILING

    if not any(name in (*LEADING, *TRAILING) for name in columns):
        return []
    return ["output:", '  prefix: "bg_"               # a column of the file has the name of one of batchgen\'s own']
