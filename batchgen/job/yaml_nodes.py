"""Job file -> plain data, and the position of every key and value.

The only module that imports PyYAML.

It reads a subset of YAML on purpose: one document, each key once, without tags, anchors, aliases
and merge keys. Plain scalars follow YAML 1.2's core schema
(https://yaml.org/spec/1.2.2/#103-core-schema), so that `no`, `1:30`, `010` and dates are text. All
problems are reported at once, except that reading ends where the syntax is broken.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from batchgen.errors import InputError, Problem
from batchgen.job.positions import LINE_BREAK, Document, KeyPath, Position, shorten, text_position
from batchgen.job.wording import QUOTE_BRACES, opens_earlier, yaml_sentence

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
# Python refuses integers of more than 4,300 digits, and no job needs even a tenth of that.
MAX_DIGITS = 100

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?[0-9]+")
# Characters that PyYAML refuses as unprintable, and line breaks that it counts but editors do not.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")
_BRACES = re.compile(r"(?:^|[:,\[-])\s*(\{[{%])")


def read_text(path: Path, display_name: str) -> str:
    """The text of a file of at most 1 MiB of UTF-8.

    Messages call it `display_name`. Raises InputError.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
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
        )  # the decoder counts from after the BOM
        before = data[start : start + error.start].decode("utf-8")
        line, column = text_position(before, len(before))
        message = f"byte 0x{data[start + error.start]:02x} is not UTF-8; save the job file as UTF-8"
        raise InputError(
            [Problem(path=display_name, message=message, line=line, column=column)]
        ) from None


def parse(text: str, display_name: str) -> tuple[Document | None, list[Problem]]:
    """The document, or None if its syntax is broken or it is empty; and every problem found."""
    forbidden = _FORBIDDEN.search(text)
    if forbidden is not None:
        line, column = text_position(text, forbidden.start())
        code = ord(forbidden.group())
        message = (
            f"the character U+{code:04X} is not allowed; remove it, or write it in double "
            f'quotes as "\\u{code:04x}"'
        )
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
            "this escape is not a character; double the backslash or use single quotes",
        )
    problems = [
        Problem(path=display_name, message=message, line=line, column=column)
        for (line, column), message in reader.reported
    ]
    return document, problems


class _Reader(yaml.SafeLoader):
    """PyYAML's composer, which reports what a job file must not contain, and makes plain data of
    the rest.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.reported: list[tuple[Position, str]] = []
        self._depth = 0
        self._values: dict[KeyPath, Position] = {}
        self._keys: dict[KeyPath, Position] = {}

    def add(self, mark: Any, message: str) -> None:
        self.reported.append((_position(mark), message))

    def add_syntax(self, error: yaml.MarkedYAMLError, text: str) -> None:
        """Report a syntax error in plain words; if an unquoted {{ is its likely cause, report that
        instead.
        """
        problem = error.problem or ""
        opening = error.context_mark if opens_earlier(problem) else None
        mark = opening or error.problem_mark or error.context_mark
        lines = LINE_BREAK.split(text)
        for line in sorted(
            {
                near.line
                for near in (mark, error.context_mark)
                if near is not None and near.line < len(lines)
            }
        ):
            braces = _BRACES.search(lines[line])
            if braces is not None:
                position = (line + 1, braces.start(1) + 1)
                if (position, QUOTE_BRACES) not in self.reported:
                    self.reported.append((position, QUOTE_BRACES))
                return
        self.add(mark, yaml_sentence(problem))

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
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark
            )
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """Switch off YAML 1.1's types; `_scalar` decides instead."""
        return ""

    def document(self, root: Any) -> Document | None:
        """The data below a node; None, with the reason reported, if the top is not a mapping."""
        if root is None or (
            isinstance(root, yaml.ScalarNode) and root.style is None and root.value in _WORDS
        ):
            self.reported.append(
                ((0, 0), "the job file is empty; `batchgen init` writes one that runs")
            )
            return None
        if not isinstance(root, yaml.MappingNode):
            self.add(
                root.start_mark, "a job file is a mapping at the top: lines such as `kind: chat`"
            )
            return None
        return Document(data=self._plain(root, ()), values=self._values, keys=self._keys)

    def _plain(self, node: Any, key_path: KeyPath) -> Any:
        self._values[key_path] = _position(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key_path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*key_path, n)) for n, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: Any, key_path: KeyPath) -> dict[str, Any] | None:
        if node.flow_style and any(isinstance(key, yaml.MappingNode) for key, _ in node.value):
            self.add(node.start_mark, QUOTE_BRACES)
            return None
        return {
            key: self._plain(value, (*key_path, key))
            for key, value in self._entries(node, key_path)
        }

    def _entries(self, node: Any, key_path: KeyPath) -> Iterator[tuple[str, Any]]:
        """The keys of a mapping, as text and each once, and their nodes.

        Wrong keys are reported and left out.
        """
        for key_node, value in node.value:
            mark = key_node.start_mark
            if not isinstance(key_node, yaml.ScalarNode):
                self.add(mark, "a key must be text; put it in quotes")
                continue
            key = self._text(key_node)
            first = self._keys.get((*key_path, key))
            if first is not None:
                self.add(
                    mark,
                    f"the key {shorten(key)} is here twice; the first is in line {first[0]}",
                )
            elif key == "<<" and key_node.style is None:
                self.add(mark, "merge keys (<<) are not allowed; write the values out")
            elif key == "":
                self.add(mark, "a key is missing before the colon")
            else:
                self._keys[*key_path, key] = _position(mark)
                yield key, value

    def _scalar(self, node: Any) -> Any:
        """A scalar's value: by YAML 1.2's core schema with JSON's numbers if it is plain; else
        text.
        """
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
        """A scalar's text.

        An escaped surrogate pair, as JSON has it, is one character; half a pair is reported.
        """
        text: str = node.value
        if text.isascii():
            return text
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self.add(
                node.start_mark,
                "half a surrogate pair (\\ud800 to \\udfff) is not a character; remove it",
            )
            return text.encode("utf-8", "replace").decode("utf-8")


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1
