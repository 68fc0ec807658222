"""Column names in templates and in YAML."""

from __future__ import annotations

import json
import keyword
import re
import unicodedata

# Words that mean something else in a template than the column of that name, besides those of
# Python.
_RESERVED = re.compile(
    "row|turn|self|loop|true|false|none|range|dict|namespace|cycler|joiner|caller|varargs|kwargs"
)


def expression(name: str, *, always: bool = True) -> str:
    """A column's value in an expression of a template; `always`: whether every row has it."""
    if not always:
        return f"row.get({quoted(name)})"
    is_word = name.isidentifier() and name == unicodedata.normalize("NFKC", name)
    if is_word and not keyword.iskeyword(name) and not _RESERVED.fullmatch(name):
        return name
    return f"row[{quoted(name)}]"


def label(name: str) -> str:
    """A column's name as text of a template."""
    return name if name.isprintable() and "{" not in name else f"{{{{ {quoted(name)} }}}}"


def quoted(text: str) -> str:
    """Text in double quotes, as YAML and Jinja both read it."""
    return printable(json.dumps(text, ensure_ascii=False))


def printable(text: str) -> str:
    """Text without control characters and the like."""
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in text)
