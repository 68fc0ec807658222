"""The job's strings as functions of a row's values, and the columns that they use.

Only the job's own strings are templates. A row's text is a value in them and is never itself
rendered.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
from jinja2 import FunctionLoader, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError

from batchgen.job import KeyPath
from batchgen.requests.faults import TemplateError
from batchgen.requests.filters import plain
from batchgen.requests.metering import MAX_TEXT
from batchgen.requests.sandbox import Environment

_TAGS = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
_WHOLE = re.compile(r"\s*\{\{-?(.*?)-?\}\}\s*\Z", re.DOTALL)

Values = Mapping[str, Any]
Render = Callable[[Values], Any]


class Templates:
    """Compiles the job's strings.

    `{% include %}` reads below `folder`. `filters` are offered besides Jinja2's. Each file is read
    once, so that the text that is checked, rendered and returned by `included` is the same, even if
    the file changes during a run.
    """

    def __init__(self, folder: Path, filters: Mapping[str, Callable[..., Any]]) -> None:
        self._folder = folder.resolve()
        self._read: dict[str, str] = {}
        self._environment = Environment(
            filters,
            # Prompts contain CSS, LaTeX and C, so Jinja2's comment marks must be ordinary text in
            # them.
            comment_start_string="\x00{#",
            comment_end_string="#}\x00",
            loader=FunctionLoader(self._load),
        )

    def _load(self, name: str) -> str:
        if name not in self._read:
            self._read[name] = self._text(name)
        return self._read[name]

    def _text(self, name: str) -> str:
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise TemplateRuntimeError(f"{name!r} is not a file below the job's folder")
        # .env and .git hold secrets, so neither they nor links to them may become part of a prompt.
        if any(
            part.startswith(".")
            for part in (*PurePosixPath(name).parts, *path.relative_to(self._folder).parts)
        ):
            raise TemplateRuntimeError(
                f"{name!r} is hidden: no part of the path may begin with a dot"
            )
        if path.stat().st_size > 1024 * 1024:
            raise TemplateRuntimeError(f"{name!r} is larger than 1 MiB")
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateRuntimeError(
                f"{name!r} cannot be read as UTF-8 text: {type(error).__name__}"
            ) from None

    def compile(self, source: str) -> Render:
        """A string of the job as a function of a row's values.

        A string that is one whole `{{ expression }}` keeps the expression's type; any other string
        gives text. Raises TemplateError for wrong syntax; the function raises it when the string
        cannot be rendered for a row.
        """
        if "{{" not in source and "{%" not in source:
            return lambda values: source
        source = _in_nfc(source)
        try:
            expression = self._whole(source)
            if expression is not None:
                whole = self._environment.compile_expression(expression, undefined_to_none=False)
                return self._guarded(_direct_lookup(self._name(expression), whole))
            template = self._environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateError(_syntax(error, source)) from None
        return self._guarded(template.render)

    def compile_expression(self, source: str) -> Render:
        """An expression, written without braces, as a function of a row's values.

        Raises TemplateError as `compile` does.
        """
        source = unicodedata.normalize("NFC", source)
        try:
            return self._guarded(
                self._environment.compile_expression(source, undefined_to_none=False)
            )
        except TemplateSyntaxError as error:
            raise TemplateError(_syntax(error, f"{{{{ {source} }}}}")) from None

    def _guarded(self, render: Callable[[Values], Any]) -> Render:
        def guarded(values: Values) -> Any:
            self._environment.meter.start()
            try:
                result = plain(render(values))
            except UndefinedError as error:
                raise TemplateError(str(error), reason="no such field or item") from None
            except SecurityError as error:
                raise TemplateError(str(error), reason="the template takes too much") from None
            except (TemplateRuntimeError, TemplateError) as error:
                raise TemplateError(str(error)) from None
            except jinja2.TemplateError as error:
                raise TemplateError(f"an included template is wrong: {error}") from None
            except (
                TypeError,
                ValueError,
                ArithmeticError,
                LookupError,
                AttributeError,
                RecursionError,
                MemoryError,
            ) as error:
                raise TemplateError(f"{type(error).__name__}: {str(error)[:200]}") from None
            if isinstance(result, str) and len(result) > MAX_TEXT:
                raise TemplateError(f"the text is longer than {MAX_TEXT:,} characters")
            return result

        return guarded

    def _whole(self, source: str) -> str | None:
        """The expression of a string that is one `{{ expression }}` and nothing else, or None."""
        match = _WHOLE.match(source)
        if not match:
            return None
        body = self._environment.parse(source.strip()).body
        whole = len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1
        if not whole or isinstance(body[0].nodes[0], nodes.TemplateData):  # type: ignore[attr-defined]
            return None
        return match.group(1)

    def _name(self, expression: str) -> str | None:
        """The name that an expression is, if it is nothing but one."""
        (output,) = self._environment.parse(f"{{{{ {expression} }}}}").find_all(nodes.Output)
        node = output.nodes[0]
        return node.name if isinstance(node, nodes.Name) else None

    def names(self, source: str) -> tuple[set[str], set[tuple[str, str]]]:
        """The bare names in a string, and each key that it takes of one: `row.x`, `row["x"]` are
        `("row", "x")`. Those in its includes too.
        """
        bare: set[str] = set()
        keys: set[tuple[str, str]] = set()
        for text in (source, *self.included(source).values()):
            tree = self._environment.parse(_in_nfc(text))
            bare |= meta.find_undeclared_variables(tree) - set(self._environment.globals)
            # A loop or a `set` gives a name another meaning.
            others = {each.name for each in tree.find_all(nodes.Name) if each.ctx != "load"}
            items = tree.find_all((nodes.Getitem, nodes.Getattr))
            keys |= {key for item in items for key in _key_of(item) if key[0] not in others}
        return bare, keys

    def optional(self, source: str) -> set[str]:
        """The columns in `row.get("x")`, which a row need not have; in its includes too."""
        return {
            call.args[0].value
            for text in (source, *self.included(source).values())
            for call in self._environment.parse(_in_nfc(text)).find_all(nodes.Call)
            if isinstance(call.node, nodes.Getattr)
            and call.node.attr == "get"
            and isinstance(call.node.node, nodes.Name)
            and call.node.node.name == "row"
            and call.args
            and isinstance(call.args[0], nodes.Const)
        }

    def uses_alone(self, source: str, name: str) -> bool:
        """Whether a string, or a file that it includes, has a name without a key after it."""
        for text in (source, *self.included(source).values()):
            tree = self._environment.parse(_in_nfc(text))
            if name not in meta.find_undeclared_variables(tree):
                continue
            used = sum(each.name == name for each in tree.find_all(nodes.Name))
            owners = (
                each.node  # type: ignore[attr-defined]
                for each in tree.find_all((nodes.Getitem, nodes.Getattr))
            )
            keyed = sum(isinstance(each, nodes.Name) and each.name == name for each in owners)
            if used > keyed:
                return True
        return False

    def included(self, source: str) -> dict[str, str]:
        """The texts of the files that a string includes, however deep, by name.

        Raises jinja2.TemplateError.
        """
        texts: dict[str, str] = {}
        pending = [source]
        while pending:
            tree = self._environment.parse(_in_nfc(pending.pop()))
            for name in meta.find_referenced_templates(tree):
                if name is not None and name not in texts:
                    texts[name] = self._load(name)
                    pending.append(texts[name])
        return texts


def compile_value(
    value: Any, key_path: KeyPath, compile_text: Callable[[str, KeyPath], Render]
) -> Render:
    """A part of the request as a function of a row's values.

    `compile_text` compiles one string. A string that renders to None drops its key or its item.
    """
    if isinstance(value, str):
        return compile_text(value, key_path)
    if isinstance(value, Mapping):
        parts = {
            name: compile_value(item, (*key_path, name), compile_text)
            for name, item in value.items()
        }
        optional = {name for name, item in value.items() if isinstance(item, str)}
        return lambda values: _rendered_mapping(parts, optional, values)
    if isinstance(value, list):
        items = [
            (compile_value(item, (*key_path, n), compile_text), isinstance(item, str))
            for n, item in enumerate(value)
        ]
        return lambda values: [
            result
            for render, optional in items
            if (result := render(values)) is not None or not optional
        ]
    return lambda values: value


def _rendered_mapping(
    parts: Mapping[str, Render], optional: set[str], values: Values
) -> dict[str, Any]:
    body = {}
    for name, render in parts.items():
        value = render(values)
        if value is not None or name not in optional:
            body[name] = value
    return body


def _direct_lookup(name: str | None, render: Render) -> Render:
    """A faster `render` for a string that is just one column, as most are: no template context has
    to be built.
    """
    if name is None:
        return render
    return lambda values: values[name] if name in values else render(values)


def _key_of(item: nodes.Node) -> list[tuple[str, str]]:
    """The name and the key in `row["x"]` or `row.x`; none for anything else."""
    if not isinstance(item, nodes.Getitem | nodes.Getattr) or not isinstance(item.node, nodes.Name):
        return []
    owner = item.node.name
    if isinstance(item, nodes.Getattr):
        # `row.items()` and the like are methods, not columns. An answer's output is a text.
        is_method = hasattr(str if owner == "output" else dict, item.attr)
        return [] if is_method else [(owner, item.attr)]
    if isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str):
        return [(owner, item.arg.value)]
    return []


def _in_nfc(source: str) -> str:
    """The source with its tags in NFC, as headers are: an umlaut that was typed decomposed names
    the same column.
    """
    return _TAGS.sub(lambda tag: unicodedata.normalize("NFC", tag[0]), source)


def _syntax(error: TemplateSyntaxError, source: str) -> str:
    """The parser's message, with a hint if a column with a space was written without `row[...]`."""
    bare = re.search(r"\{\{-?\s*([^\W\d]\w*(?:[ \-][\w()]+)+)\s*(?:\||-?\}\})", source)
    hint = f'; a column with a space is written {{{{ row["{bare[1]}"] }}}}' if bare else ""
    return f"template syntax, line {error.lineno} of this text: {error.message}{hint}"
