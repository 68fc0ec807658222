"""Job file -> plain data, and the line and column of every key and value in it. The only module that knows PyYAML.

A subset of YAML, on purpose: no tags, anchors, aliases or merge keys, one document, each key once, and plain scalars
by YAML 1.2's core rules, so that `no`, `1:30`, `010` and dates are text. Everything that is wrong is reported in plain
words, and reading goes on after whatever does not break the syntax.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from batchgen.errors import InputError, Problem

KeyPath = tuple[str | int, ...]
Position = tuple[int, int]

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
# Python refuses integers of more than 4,300 digits, and no number of a job needs a tenth of that.
MAX_DIGITS = 100

QUOTE_BRACES = (
    'quote a value that begins with {{ or {%, like "{{ name }}": YAML takes a bare { for a mapping'
)

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?[0-9]+")
# What PyYAML refuses as unprintable, and the line breaks that it counts but editors do not.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")
_BREAK = re.compile(r"\r\n|\r|\n")
_BRACES = re.compile(r"(?:^|[:,\[-])\s*(\{[{%])")

# What PyYAML says, shortened to the part that tells errors apart, and what it means to someone who wrote the file.
_WORDING = (
    ("got '<stream end>'", "the bracket that opens here is never closed"),
    ("unexpected end of stream", "the quote that opens here is never closed"),
    ("unexpected document separator", "the quote that opens here is never closed"),
    ("could not find expected ':'", "a colon is missing: a line here is `key: value`"),
    (
        "mapping values are not allowed",
        "a colon is not allowed here; check the indentation, and quote text that holds ': '",
    ),
    ("character '\\t'", "a tab cannot indent; use spaces"),
    (
        "that cannot start any token",
        "a value cannot start with this character; put the text in quotes",
    ),
    (
        "sequence entries are not allowed",
        "a list item cannot start here; put each `- item` on a line of its own",
    ),
    (
        "expected <block end>",
        "this does not fit the lines before it; check the indentation, and quote special characters",
    ),
    (
        "expected ',' or",
        "a comma or the closing bracket is missing; put text with special characters in quotes",
    ),
    (
        "unknown escape character",
        "unknown escape in double quotes; double the backslash or use single quotes",
    ),
    (
        "escape sequence",
        "unfinished escape in double quotes; double the backslash or use single quotes",
    ),
    ("chomping or indentation", "after | or > the text starts on the next line"),
    ("comment or a line break", "after | or > the text starts on the next line"),
    ("expected alphabetic or numeric", "a value cannot start with & or *; put the text in quotes"),
    ("another document", "only one document is allowed; remove the second ---"),
    (
        "undefined tag handle",
        "tags (!name) are not allowed; put the text in quotes if it begins with !",
    ),
    ("nested deeper", f"nested deeper than {MAX_DEPTH} levels"),
)
# These are about something that opened earlier: that is the place to look at.
_OPENED = (
    "got '<stream end>'",
    "unexpected end of stream",
    "unexpected document separator",
    "could not find expected ':'",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The file as plain data (dict, list, str, int, float, bool, None) and where each value and key begins."""

    data: Any
    values: Mapping[KeyPath, Position]
    keys: Mapping[KeyPath, Position]

    def position(self, loc: KeyPath, *, key: bool = False) -> Position:
        """Line and column of the deepest node there is along `loc`; of the key instead of its value when `key`."""
        if key and loc in self.keys:
            return self.keys[loc]
        while loc and loc not in self.values:
            loc = loc[:-1]
        return self.values.get(loc, (1, 1))


def read_text(path: Path, display_name: str) -> str:
    """The text of a file of at most 1 MiB of UTF-8; `display_name` is its path in errors. Raises InputError."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise InputError(
                [Problem(path=display_name, message=f"this is {kind}; name the job's .yaml file")]
            )
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError([Problem(path=display_name, message="there is no such file")]) from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "not a valid path").lower()
        raise InputError(
            [Problem(path=display_name, message=f"the job file cannot be read: {reason}")]
        ) from None
    if len(data) > MAX_BYTES:
        raise InputError(
            [
                Problem(
                    path=display_name,
                    message="larger than 1 MiB; a job file is text, rows go into prompts.path",
                )
            ]
        )
    return _decoded(data, display_name)


def _decoded(data: bytes, display_name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(
                [Problem(path=display_name, message="this is UTF-16; save the job file as UTF-8")]
            ) from None
        start = (
            3 if data.startswith(b"\xef\xbb\xbf") else 0
        )  # the decoder counts from behind the BOM
        before = data[start : start + error.start].decode("utf-8")
        line, column = text_position(before, len(before))
        message = f"byte 0x{data[start + error.start]:02x} is not UTF-8; save the job file as UTF-8"
        raise InputError(
            [Problem(path=display_name, message=message, line=line, column=column)]
        ) from None


def text_position(text: str, offset: int) -> Position:
    """Line and column, from 1, of a character of the text."""
    breaks = list(_BREAK.finditer(text, 0, offset))
    return len(breaks) + 1, offset - (breaks[-1].end() if breaks else 0) + 1


def parse(text: str, display_name: str) -> tuple[Document | None, list[Problem]]:
    """The document and every problem of form in it; None when the syntax is broken or nothing is there."""
    forbidden = _FORBIDDEN.search(text)
    if forbidden is not None:
        line, column = text_position(text, forbidden.start())
        code = ord(forbidden.group())
        message = f'the character U+{code:04X} is not allowed; remove it, or write it in double quotes as "\\u{code:04x}"'
        return None, [Problem(path=display_name, message=message, line=line, column=column)]
    reader = _Reader(text)
    document: Document | None = None
    try:
        root = reader.get_single_node()
        document = reader.document(root)
    except yaml.MarkedYAMLError as error:
        reader.add_syntax(error, text)
    except (ValueError, OverflowError):  # chr() of an escape such as "\Uffffffff"
        reader.add(
            reader.get_mark(),
            "this escape is no character; double the backslash or use single quotes",
        )
    problems = [
        Problem(path=display_name, message=words, line=line, column=column)
        for (line, column), words in reader.faults
    ]
    return document, problems


class _Reader(yaml.SafeLoader):
    """PyYAML's composer; it refuses what a job file may not hold, goes on, and turns its nodes into plain data."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[tuple[Position, str]] = []
        self._depth = 0
        self._values: dict[KeyPath, Position] = {}
        self._keys: dict[KeyPath, Position] = {}

    def add(self, mark: Any, message: str) -> None:
        self.faults.append((_place(mark), message))

    def add_syntax(self, error: yaml.MarkedYAMLError, text: str) -> None:
        """The syntax error in plain words, unless its cause is a bare {{ that was reported already."""
        said = error.problem or ""
        opened = error.context_mark if any(part in said for part in _OPENED) else None
        mark = opened or error.problem_mark or error.context_mark
        lines = _BREAK.split(text)
        for line in sorted(
            {
                near.line
                for near in (mark, error.context_mark)
                if near is not None and near.line < len(lines)
            }
        ):
            braces = _BRACES.search(lines[line])
            if braces is not None:
                place = (line + 1, braces.start(1) + 1)
                if (place, QUOTE_BRACES) not in self.faults:
                    self.faults.append((place, QUOTE_BRACES))
                return
        plain = "this is not valid YAML; check indentation, colons and quotes here"
        self.add(mark, next((words for part, words in _WORDING if part in said), plain))

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self.add(
                mark, "aliases (*name) are not allowed; write the value out, or quote the text"
            )
            return yaml.ScalarNode("", "", mark, mark)
        if event.anchor is not None:
            self.add(
                mark, "anchors (&name) are not allowed; write the value out, or quote the text"
            )
            event.anchor = None
        if getattr(event, "tag", None) is not None:
            self.add(
                mark, "tags (!name) are not allowed; put the text in quotes if it begins with !"
            )
            event.tag = None
        if self._depth == MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
            raise yaml.MarkedYAMLError(problem="nested deeper", problem_mark=mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """No YAML 1.1 types: `_scalar` decides."""
        return ""

    def document(self, root: Any) -> Document | None:
        """The data below a node; None, with the reason added, when there is no mapping at the top."""
        if root is None or (
            isinstance(root, yaml.ScalarNode) and root.style is None and root.value in _WORDS
        ):
            self.faults.append(
                ((0, 0), "the job file is empty; `batchgen init` writes one that runs")
            )
            return None
        if not isinstance(root, yaml.MappingNode):
            self.add(
                root.start_mark, "a job file is a mapping at the top: lines such as `kind: chat`"
            )
            return None
        return Document(data=self._plain(root, ()), values=self._values, keys=self._keys)

    def _plain(self, node: Any, loc: KeyPath) -> Any:
        self._values[loc] = _place(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*loc, n)) for n, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: Any, loc: KeyPath) -> dict[str, Any] | None:
        if node.flow_style and any(isinstance(key, yaml.MappingNode) for key, _ in node.value):
            self.add(node.start_mark, QUOTE_BRACES)
            return None
        return {key: self._plain(value, (*loc, key)) for key, value in self._entries(node, loc)}

    def _entries(self, node: Any, loc: KeyPath) -> Iterator[tuple[str, Any]]:
        """The keys of a mapping as written, whatever their type would be, each once."""
        for key_node, value in node.value:
            mark = key_node.start_mark
            if not isinstance(key_node, yaml.ScalarNode):
                self.add(mark, "a key must be text; put it in quotes")
                continue
            key = self._text(key_node)
            first = self._keys.get((*loc, key))
            if first is not None:
                self.add(
                    mark,
                    f"the key {shorten(key)} stands here twice; the first is in line {first[0]}",
                )
            elif key == "<<" and key_node.style is None:
                self.add(mark, "merge keys (<<) are not allowed; write the values out")
            elif key == "":
                self.add(mark, "a key is missing before the colon")
            else:
                self._keys[*loc, key] = _place(mark)
                yield key, value

    def _scalar(self, node: Any) -> Any:
        """A plain scalar by YAML 1.2's core rules, limited to JSON's numbers; anything in quotes or a block is text."""
        text = node.value
        if node.style is not None:
            return self._text(node)
        if text in _WORDS:
            return _WORDS[text]
        if not _NUMBER.fullmatch(text):
            return self._text(node)
        number: float = math.inf
        if len(text) <= MAX_DIGITS:
            number = int(text) if _INTEGER.fullmatch(text) else float(text)
        if math.isinf(number):
            self.add(node.start_mark, "this number is too large; put it in quotes if it is text")
            return None
        return number

    def _text(self, node: Any) -> str:
        """The scalar's text; an escaped surrogate pair, as in JSON, is one character, a lone half is refused."""
        text: str = node.value
        if text.isascii():
            return text
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self.add(
                node.start_mark,
                "half a surrogate pair (\\ud800 to \\udfff) is no character; remove it",
            )
            return text.encode("utf-8", "replace").decode("utf-8")


def shorten(word: str) -> str:
    """A word of the file for a message: as it stands when short and printable, else quoted and cut at 60."""
    if len(word) <= 60 and word.isprintable() and " " not in word and word:
        return word
    return repr(word if len(word) <= 60 else f"{word[:59]}…")


def _place(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1
