"""One pass over the prompts: what is in each column."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen.prompts import Dialect, PromptsFile
from batchgen.requests.conversations import KEYS, ROLES

# The longest text that may be a row's name.
LONGEST_NAME = 100
# The part of the rows in which a column must be filled to be the whole prompt.
MOSTLY = 0.5

_PICTURE = re.compile(r"\S.*\.(png|jpe?g|webp)", re.IGNORECASE)
_PDF = re.compile(r"\S.*\.pdf", re.IGNORECASE)
_URL = re.compile(r"https?://\S+", re.IGNORECASE)
_PICTURE_URL = re.compile(r"https?://\S+\.(png|jpe?g|webp)([?#]\S*)?", re.IGNORECASE)

Open = Callable[[], PromptsFile]


@dataclass(slots=True)
class Column:
    """What one column holds, over all rows.

    name: its header.
    present: in how many rows it is, empty or not.
    filled: in how many rows it is not empty.
    kinds: of how many filled cells it is true that they are `text`, `number`, `texts`, `messages`,
        `conversation`, `reply_last`, `picture`, `picture_url`, `pdf`, `code`, ...; see `kinds_of`.
    characters: the sum of the lengths of its texts.
    distinct: whether its filled cells can name rows, and all differ.
    first: its first filled cell.
    """

    name: str
    present: int = 0
    filled: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    distinct: bool = True
    first: Any = None
    _seen: set[int] = field(default_factory=set)

    def add(self, value: Any) -> None:
        """Count one cell."""
        self.present += 1
        if is_blank(value):
            return
        if not self.filled:
            self.first = value
        self.filled += 1
        self.kinds.update(kinds_of(value))
        self.characters += len(value) if isinstance(value, str) else 0
        if self.distinct:
            self.distinct = self._is_new(value)
            if not self.distinct:
                self._seen.clear()

    def _is_new(self, value: Any) -> bool:
        """Whether a value can name a row, and names none before."""
        if isinstance(value, bool) or not isinstance(value, str | int):
            return False
        name = str(value)
        if len(name) > LONGEST_NAME or "\n" in name or hash(name) in self._seen:
            return False
        self._seen.add(hash(name))
        return True

    def all(self, kind: str) -> bool:
        """Whether every filled cell is of a kind, and there are some."""
        return 0 < self.filled == self.kinds[kind]


@dataclass(frozen=True, slots=True)
class Survey:
    """What a prompts file holds.

    path: the file.
    rows: how many there are.
    columns: in order.
    dialect: how the file is written.
    open: opens it to be read once more.
    """

    path: Path
    rows: int
    columns: Mapping[str, Column]
    dialect: Dialect
    open: Open

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The cells of each row, read once more."""
        with self.open() as file:
            for prompt in file:
                yield prompt.columns

    def mostly_filled(self, column: Column) -> bool:
        """Whether a column may be the whole prompt: it is filled in half of the rows or more."""
        return column.filled >= max(1, MOSTLY * self.rows)

    def in_every_row(self, name: str) -> bool:
        """Whether every row has the column, empty or not."""
        return self.columns[name].present == self.rows


def survey(path: Path, open_file: Open) -> Survey:
    """Read the prompts once; `open_file` opens them. Raises InputError."""
    columns: dict[str, Column] = {}
    rows = 0
    with open_file() as file:
        for name in file.dialect.header or ():
            columns[name] = Column(name)
        for prompt in file:
            rows += 1
            for name, value in prompt.columns.items():
                if name not in columns:
                    columns[name] = Column(name)
                columns[name].add(value)
        return Survey(path, rows, columns, file.dialect, open_file)


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing."""
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())


def kinds_of(value: Any) -> Iterator[str]:
    """What a cell is, in one word or more."""
    if isinstance(value, str):
        yield "text"
        yield from _kinds_of_text(value.strip())
    elif isinstance(value, bool):
        yield "flag"
    elif isinstance(value, int | float):
        yield "number"
    elif isinstance(value, dict):
        yield "object"
    elif all(isinstance(each, str) and each for each in value):
        yield "texts"
    elif all(isinstance(each, dict) for each in value):
        yield from _kinds_of_objects(value)


def _kinds_of_text(text: str) -> Iterator[str]:
    if _PICTURE_URL.fullmatch(text):
        yield "picture_url"
    elif _URL.fullmatch(text):
        yield "url"
    elif _PICTURE.fullmatch(text) and "\n" not in text:
        yield "picture"
    elif _PDF.fullmatch(text) and "\n" not in text:
        yield "pdf"
    elif re.fullmatch(r"[+-]?\d+([.,]\d+)*\s?[%€$£]?", text):
        yield "digits"
    # A code: letters and digits in one word, such as A-17 or r3.
    elif re.fullmatch(r"(?=.*\d)[\w.:/#+-]+", text):
        yield "code"


def _kinds_of_objects(value: list[dict[str, Any]]) -> Iterator[str]:
    """`messages`: as the API takes them; `conversation`: the filter `messages` makes such of it.

    `reply_last`: one of these, and the last is an assistant's but not the only one; what it holds
    does not matter, because it is left off.
    """
    roles = [_role(each) for each in value]
    if None in roles:
        yield "objects"
        return
    reply_last = len(value) > 1 and roles[-1] == "assistant"
    sent = value[:-1] if reply_last else value
    if reply_last:
        yield "reply_last"
    plain = all(
        each.get("role") == role and each.keys() <= {*KEYS}
        for each, role in zip(sent, roles, strict=False)
    )
    yield "messages" if plain else "conversation"


def _role(message: dict[str, Any]) -> str | None:
    """A message's role as the API calls it; None where it is no message."""
    names = ("from", "value") if "from" in message else ("role", "content")
    sender, content = map(message.get, names)
    if not isinstance(sender, str):
        return None
    calls = content is None and ("tool_calls" in message or "function_call" in message)
    return ROLES.get(sender) if isinstance(content, str | list) or calls else None
