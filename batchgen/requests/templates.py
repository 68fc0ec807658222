"""Jinja2, fenced in: sandboxed, strict about names and numbers, bounded in size and loops.

Only the job's own strings are templates; a row's text is a value in them and is never rendered itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import FunctionLoader, StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Bounds on one template: characters of text it may make, and turns of all its loops together.
MAX_TEXT = 32 * 1024 * 1024
MAX_LOOPS = 100_000
_WIDE = re.compile(r"\d{6,}")
_TAGS = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
_WHOLE = re.compile(r"\s*\{\{-?(.*?)-?\}\}\s*\Z", re.DOTALL)

Values = Mapping[str, Any]
Render = Callable[[Values], Any]


class TemplateFault(Exception):  # noqa: N818 - the user's fault, told to the user
    """A template that cannot be read or rendered; the text says why, without the row's values."""


class _Unknown(StrictUndefined):
    """A name that is no column: says so in the reader's words."""

    @property
    def _undefined_message(self) -> str:
        return f"{self._undefined_name!r} is not a column of this row"


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})
    loops = 0

    def compile(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        """Compile with every `for` counted, included templates too."""
        if isinstance(source, str):
            source = self.parse(source)
        for loop in source.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "counted", [], [], None, None).set_lineno(loop.lineno)
        return super().compile(source, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*" and _repeats(left, right) > MAX_TEXT:
            raise SecurityError("the product is too large")
        if operator == "**" and (abs(right) > 1000 or abs(left) > 10**9):
            raise SecurityError("the power is too large")
        if operator == "%" and isinstance(left, str):
            _narrow(left)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, callee: Any, *args: Any, **kwargs: Any) -> Any:
        text = getattr(callee, "__self__", None)
        if isinstance(text, str):
            _bound_method(text, callee.__name__, args)
        return super().call(context, callee, *args, **kwargs)


def _repeats(left: Any, right: Any) -> int:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int):
            return len(sequence) * times
    return 0


def _narrow(text: str) -> None:
    if _WIDE.search(text):
        raise SecurityError("the format's width is too large")


def _bound_method(text: str, method: str, args: tuple[Any, ...]) -> None:
    """Refuse the string methods that make much out of little."""
    if method in ("format", "format_map"):
        _narrow(text)
    elif method in ("center", "ljust", "rjust", "zfill", "expandtabs") and args:
        _sane(args[0])
    elif method == "replace" and len(args) > 1 and len(text) * len(str(args[1])) > MAX_TEXT:
        raise SecurityError("the replacement is too large")


def _sane(width: Any) -> None:
    if isinstance(width, int) and width > 10_000:
        raise SecurityError("the width is too large")


def _bounded_width(name: str) -> Callable[..., Any]:
    plain = FILTERS[name]

    def bounded(value: Any, width: Any = 4, *args: Any, **kwargs: Any) -> Any:
        for number in (width, *args, *kwargs.values()):
            _sane(number)
        return plain(value, width, *args, **kwargs)

    return bounded


def _bounded_format(value: Any, *args: Any, **kwargs: Any) -> Any:
    _narrow(str(value))
    return FILTERS["format"](value, *args, **kwargs)


def _bounded_replace(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    if len(str(text)) * len(str(new)) > MAX_TEXT:
        raise SecurityError("the replacement is too large")
    return str(text).replace(str(old), str(new), -1 if count is None else count)


def _strict_number(kind: type[int] | type[float]) -> Callable[[Any], int | float]:
    """Jinja2's own filters turn what is no number into 0: a wrong cell would become a wrong request."""

    def number(value: Any) -> int | float:
        if isinstance(value, Undefined):
            value._fail_with_undefined_error()
        try:
            return kind(value)
        except (TypeError, ValueError):
            raise TemplateRuntimeError(f"{str(value)[:40]!r} is not a number ({kind.__name__})") from None

    return number


class Templates:
    """Compiles the job's strings. `folder` is where `{% include %}` reads, `filters` what a job may use besides Jinja2's."""

    def __init__(self, folder: Path, filters: Mapping[str, Callable[..., Any]]) -> None:
        self._folder = folder.resolve()
        self.included: dict[str, str] = {}
        environment = _Environment(
            undefined=_Unknown,
            autoescape=False,
            # Prompts speak of CSS, LaTeX and C; a comment mark in them is text.
            comment_start_string="\x00{#",
            comment_end_string="#}\x00",
            loader=FunctionLoader(self._load),
        )
        environment.globals.pop("lipsum")
        environment.filters.update(filters)
        environment.filters.update(
            counted=self._counted,
            int=_strict_number(int),
            float=_strict_number(float),
            center=_bounded_width("center"),
            indent=_bounded_width("indent"),
            batch=_bounded_width("batch"),
            format=_bounded_format,
            replace=_bounded_replace,
        )
        self._environment = environment

    def _load(self, name: str) -> str:
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise TemplateRuntimeError(f"{name!r} is no file below the job's folder")
        if path.stat().st_size > 1024 * 1024:
            raise TemplateRuntimeError(f"{name!r} is larger than 1 MiB")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateRuntimeError(f"{name!r} cannot be read as UTF-8 text: {type(error).__name__}") from None
        self.included[name] = text
        return text

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._environment.loops += 1
            if self._environment.loops > MAX_LOOPS:
                raise SecurityError(f"the loops turn more than {MAX_LOOPS:,} times")
            yield item

    def compile(self, source: str) -> Render:
        """A string of the job as a function of a row's values.

        One whole `{{ expression }}` keeps the expression's type; any other string gives text; a string without tags is
        itself. Raises TemplateFault here for its syntax, and in the function for what a row makes of it.
        """
        if "{{" not in source and "{%" not in source:
            return lambda values: source
        source = _composed(source)
        try:
            expression = self._whole(source)
            if expression is not None:
                return self._guarded(self._environment.compile_expression(expression, undefined_to_none=False))
            template = self._environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateFault(_syntax(error, source)) from None
        return self._guarded(template.render)

    def _guarded(self, render: Callable[[Values], Any]) -> Render:
        def guarded(values: Values) -> Any:
            self._environment.loops = 0
            try:
                result = render(values)
                if isinstance(result, Undefined):
                    result._fail_with_undefined_error()
            except (UndefinedError, TemplateRuntimeError, SecurityError) as error:
                raise TemplateFault(str(error)) from None
            except TemplateError as error:
                raise TemplateFault(f"an included template is wrong: {error}") from None
            except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
                raise TemplateFault(f"{type(error).__name__}: {str(error)[:200]}") from None
            if isinstance(result, str) and len(result) > MAX_TEXT:
                raise TemplateFault(f"the text is longer than {MAX_TEXT:,} characters")
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

    def names(self, source: str) -> set[str]:
        """The columns that a string speaks of: bare names, and the constants in `row["..."]`; includes are followed."""
        tree = self._environment.parse(_composed(source))
        found = {name for name in meta.find_undeclared_variables(tree) if name not in self._environment.globals}
        for kind in (nodes.Getitem, nodes.Getattr):
            for item in tree.find_all(kind):
                found |= _of_row(item)
        for name in meta.find_referenced_templates(tree):
            if name is not None:
                found |= self.names(self._load(name))
        return found


def _of_row(item: nodes.Node) -> set[str]:
    """The column that `row["x"]` or `row.x` names; none for anything else."""
    if not isinstance(item, nodes.Getitem | nodes.Getattr) or not isinstance(item.node, nodes.Name):
        return set()
    if item.node.name != "row":
        return set()
    if isinstance(item, nodes.Getattr):
        # `row.items()` and the like are methods of the row, not columns.
        return set() if hasattr(dict, item.attr) else {item.attr}
    return {item.arg.value} if isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str) else set()


def _composed(source: str) -> str:
    """The tags in NFC, as headers are: an umlaut typed on a Mac is the same column."""
    return _TAGS.sub(lambda tag: unicodedata.normalize("NFC", tag[0]), source)


def _syntax(error: TemplateSyntaxError, source: str) -> str:
    """The parser's complaint, with the way out when a header with a space was written bare."""
    bare = re.search(r"\{\{-?\s*([^\W\d]\w*(?:[ \-][\w()]+)+)\s*(?:\||-?\}\})", source)
    hint = f'; a column with a space is written {{{{ row["{bare[1]}"] }}}}' if bare else ""
    return f"template syntax, line {error.lineno} of this text: {error.message}{hint}"


__all__ = ["MAX_LOOPS", "MAX_TEXT", "Render", "TemplateFault", "Templates", "Values"]
