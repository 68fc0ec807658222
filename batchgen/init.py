"""A prompts file -> a job file that runs: its encoding, its id column, its real column names."""

from __future__ import annotations

import json
import keyword
import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write
from batchgen.errors import InputError, Problem
from batchgen.job import load_job
from batchgen.prompts import open_prompts
from batchgen.tables import LEADING, TRAILING

EXAMPLE = """id,product,facts
p1,Enamel kettle,"1.5 litres, whistles, works on every stove"
p2,Linen apron,"two pockets, adjustable neck, washable at 60 degrees"
p3,Cast-iron pan,"28 cm, pre-seasoned, for oven and open fire"
"""

# Usual headers of the column that names a row, and of the column that holds the prompt.
_IDS = ("id", "sku", "key", "uid", "uuid", "nr", "no", "number")
_TEXTS = ("prompt", "text", "question", "input", "instruction", "message", "content", "description")

# Words that mean something else in a template than the column of that name, besides those of
# Python.
_RESERVED = re.compile(
    "row|turn|self|loop|true|false|none|range|dict|namespace|cycler|joiner|caller|varargs|kwargs"
)


def write_job(prompts: Path | None) -> Path:
    """Write a job for a prompts file beside it (None: an example with its own file in jobs/) and
    return the job's path.

    Raises InputError when such a file exists already, or the prompts cannot be read.
    """
    if prompts is None:
        prompts = Path("jobs") / "example.csv"
        path = prompts.with_suffix(".yaml")
        _refuse_existing(prompts, path)
        prompts.parent.mkdir(exist_ok=True)
        with atomic_write(prompts) as file:
            file.write(EXAMPLE)
    else:
        path = prompts.parent / f"{_stem(prompts)}.yaml"
        _refuse_existing(path)
    text = _job(prompts, path)
    with atomic_write(path) as file:
        file.write(text)
    load_job(path)
    return path


def _refuse_existing(*paths: Path) -> None:
    problems = [
        Problem(path=str(path), message="exists already; edit it or remove it")
        for path in paths
        if path.exists()
    ]
    if problems:
        raise InputError(problems)


def _stem(prompts: Path) -> str:
    """A job's name, from the prompts file's: as much of it as can name a folder."""
    stem = re.sub(
        r"(\.(gz|bz2|xz|zst|zip))?$", "", prompts.name, count=1, flags=re.IGNORECASE
    ).rsplit(".", 1)[0]
    letters = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    name = re.sub(r"\.simulated$", "", re.sub(r"[^\w.-]+", "-", letters), flags=re.IGNORECASE)
    return name.strip("-.")[:80] or "job"


def _job(prompts: Path, path: Path) -> str:
    encoding, columns = _encoding_and_columns(prompts)
    first = next(_rows(prompts, encoding))
    turns = _column(prompts, encoding, [name for name in columns if _holds(first[name], str)], str)
    messages = _column(
        prompts, encoding, [name for name in columns if _holds(first[name], dict)], dict
    )
    lines = [
        f"# The rows of {_printable(prompts.name)}, each sent as one request. To see what would "
        "be sent:",
        f"#   batchgen plan {_printable(shlex.quote(str(path)))}",
        "kind: chat                     # or text, image, image_edit, embedding, moderation, "
        "completion",
        "prompts:",
        f"  path: {_quoted(prompts.name)}",
        *_identity(prompts, encoding, columns),
        *(
            [f"  encoding: {encoding}           # is every letter right in `batchgen plan`?"]
            if encoding
            else []
        ),
        "request:                       # the API's own request body; {{ column }} is filled "
        "in from each row",
        "  model: gpt-5.6-luna",
        *_messages(columns, turns, messages),
        "  max_completion_tokens: 1000  # the model's thinking counts too",
        *([f"conversation: {{turns: {_quoted(turns)}}}"] if turns else []),
        "limits:",
        "  concurrency: 16",
        "  max_cost: 1.00               # USD over all runs; never exceeded",
        *_prefix(columns),
    ]
    return "\n".join(lines) + "\n"


def _rows(prompts: Path, encoding: str | None) -> Iterator[dict[str, Any]]:
    with open_prompts(prompts, display_name=str(prompts), encoding=encoding) as file:
        for prompt in file:
            yield prompt.columns


def _encoding_and_columns(prompts: Path) -> tuple[str | None, list[str]]:
    """The encoding that must be named (None: none), and the columns that every row has.

    Raises InputError.
    """
    try:
        return None, _common_columns(prompts, None)
    except InputError as error:
        # The reader's message suggests an encoding when it can only guess it.
        advice = re.search(r"set prompts\.encoding: ([\w-]+)", str(error))
        if advice is None:
            raise
    return advice[1], _common_columns(prompts, advice[1])


def _common_columns(prompts: Path, encoding: str | None) -> list[str]:
    common: list[str] | None = None
    for row in _rows(prompts, encoding):
        common = list(row) if common is None else [name for name in common if name in row]
    if not common:
        raise InputError(
            [Problem(path=str(prompts), message="the rows have no column in common; give them one")]
        )
    return common


def _column(prompts: Path, encoding: str | None, names: Iterable[str], kind: type) -> str | None:
    """The first of these columns that holds a list of `kind` in every row."""
    return next(
        (
            name
            for name in names
            if all(_holds(row[name], kind) for row in _rows(prompts, encoding))
        ),
        None,
    )


def _holds(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, kind) for each in value)


def _identity(prompts: Path, encoding: str | None, columns: Sequence[str]) -> list[str]:
    """The lines for the id column: one with a usual name and another value in every row."""
    names = [name for name in columns if name.lower() in _IDS]
    names += [name for name in columns if name.lower().endswith(("_id", " id", "-id"))]
    id_column = next(
        (name for name in names if _names_rows(row[name] for row in _rows(prompts, encoding))), None
    )
    return [] if id_column is None else [f"  id: {_quoted(id_column)}"]


def _names_rows(values: Iterable[Any]) -> bool:
    seen: set[str] = set()
    for value in values:
        if (
            isinstance(value, bool)
            or not isinstance(value, str | int)
            or value == ""
            or str(value) in seen
        ):
            return False
        seen.add(str(value))
    return True


def _messages(columns: Sequence[str], turns: str | None, messages: str | None) -> list[str]:
    if messages is not None and turns is None:
        return [f"  messages: {_quoted(_reference(messages))}"]
    content = ["{{ turn }}"] if turns else _content(columns)
    hint = "      # Put what you want from the model in your own words around the cells."
    return [
        "  messages:",
        "    - role: user",
        hint,
        "      content: |",
        *(f"        {line}" for line in content),
    ]


def _content(columns: Sequence[str]) -> list[str]:
    """The column that is the prompt by its name, else a line for every column."""
    known = {name.lower(): name for name in columns}
    text = next((known[name] for name in _TEXTS if name in known), None)
    if text is not None:
        return [_reference(text)]
    return [f"{_label(name)}: {_reference(name)}" for name in columns]


def _label(name: str) -> str:
    """A column's name as text of a template."""
    return name if name.isprintable() and "{" not in name else f"{{{{ {_quoted(name)} }}}}"


def _reference(name: str) -> str:
    """A column's value in a template."""
    is_word = name.isidentifier() and name == unicodedata.normalize("NFKC", name)
    if is_word and not keyword.iskeyword(name) and not _RESERVED.fullmatch(name):
        return f"{{{{ {name} }}}}"
    return f"{{{{ row[{_quoted(name)}] }}}}"


def _quoted(text: str) -> str:
    """Text in double quotes, as YAML and Jinja both read it."""
    return _printable(json.dumps(text, ensure_ascii=False))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in text)


def _prefix(columns: Sequence[str]) -> list[str]:
    if not any(name in (*LEADING, *TRAILING) for name in columns):
        return []
    prefix = "bg_"
    while any(name.startswith(prefix) for name in columns):
        prefix = f"_{prefix}"
    return [
        "output:",
        f'  prefix: "{prefix}"               # a column of the file has the name of one of '
        "batchgen's own",
    ]
