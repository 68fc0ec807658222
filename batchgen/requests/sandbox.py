"""The fence around templates: a sandboxed Jinja2 that cannot reach Python, make much out of little, or run for long.

Every step (a loop's turn, a filter, a call, an operator, an include, a piece of output) is counted, what it makes is weighed,
and now and again the clock is read; the few operations that make much in one step are weighed before they begin. Whatever
is not a plain value (a function, an iterator, `Markup`) never leaves an expression.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import wraps
from typing import Any

from jinja2 import (
    StrictUndefined,
    TemplateSyntaxError,
    Undefined,
    nodes,
    pass_context,
    pass_environment,
)
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing as absent
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

# Bounds on one rendering: the weight of one value and of all together (about characters), steps, and seconds of CPU.
MAX_TEXT = 32 * 1024 * 1024
MAX_MADE = 4 * MAX_TEXT
MAX_STEPS = 100_000
MAX_SECONDS = 10.0

# Steps between two looks at the clock, which is the kernel's: it costs more than most steps.
CLOCKED = 8

# What a place in a list weighs beside what stands in it: about its bytes of memory, and of the time to look at it.
SLOT = 32

# The widest that text may be padded, and bits of the largest whole number.
MAX_WIDTH = 10_000
MAX_BITS = 10_000

# Filters that reach into objects, change from one rendering to the next, or take seconds for a large text.
_LEFT_OUT = ("attr", "pprint", "random", "urlize", "wordwrap", "xmlattr")

_PADDING = {"center", "expandtabs", "ljust", "rjust", "zfill"}
_STRING = _PADDING | {
    *(
        "capitalize",
        "casefold",
        "count",
        "endswith",
        "find",
        "format",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
    ),
    *(
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "lower",
        "lstrip",
    ),
    *(
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rpartition",
        "rsplit",
        "rstrip",
    ),
    *("split", "splitlines", "startswith", "strip", "swapcase", "title", "upper"),
}
_METHODS: tuple[tuple[type, set[str]], ...] = (
    (str, _STRING),
    (dict, {"get", "items", "keys", "values"}),
    (list, {"count", "index"}),
    (int, set()),
    (float, set()),
)


def weigh(value: Any) -> int:
    """Characters, places and bits in a value, however deep; counting ends above MAX_TEXT."""
    total, left = 0, [value]
    while left and total <= MAX_TEXT:
        item = left.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, Mapping):
            total += SLOT * len(item)
            left += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            total += SLOT * len(item)
            left += item
        elif isinstance(item, int):
            total += item.bit_length()
    return total


def plain(value: Any) -> Any:
    """A value as JSON has it, free of the row's own lists and objects. Raises TemplateRuntimeError for what is none."""
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes | type):
        return [plain(item) for item in value]
    raise TemplateRuntimeError(
        f"the result is a {type(value).__name__}, which is no text, number, list or object"
    )


class Unknown(StrictUndefined):
    """A name that is no column: says so in the reader's words."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        if self._undefined_obj is absent or isinstance(self._undefined_obj, Mapping):
            return f"{self._undefined_name!r} is not a column of this row"
        return f"{type(self._undefined_obj).__name__} has no {self._undefined_name!r}"


class _Count(threading.local):
    """What the rendering of this thread took so far: steps, what it made, and the thread's own clock at which it ends (0
    until it is looked at)."""

    steps = 0
    made = 0
    until = 0.0


class Environment(ImmutableSandboxedEnvironment):
    """Jinja2's environment with the fence; `start` begins the count of one rendering. Threads may render at one time."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, filters: Mapping[str, Callable[..., Any]], **options: Any) -> None:
        super().__init__(
            undefined=Unknown, autoescape=False, optimized=False, finalize=_output, **options
        )
        self._count = _Count()
        self.globals.pop("lipsum")
        known = {name: each for name, each in FILTERS.items() if name not in _LEFT_OUT}
        self.filters.clear()
        self.filters.update(
            {name: self._metered(each) for name, each in {**known, **_OWN, **filters}.items()}
        )
        self.filters.update(_counted=self._counted, _output=_output, _weighed=self.weighed)

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        """What every template knows, as one dictionary: each rendering copies it, and Jinja2's own chain of two is slow."""
        return {**self.globals, **(d or {})}

    def start(self) -> None:
        """Begin to count anew, in this thread."""
        count = self._count
        count.steps, count.made, count.until = 0, 0, 0.0

    def weighed(self, value: Any) -> Any:
        """Count a step and what it made. Raises SecurityError above a bound."""
        count = self._count
        count.steps += 1
        if count.steps > MAX_STEPS:
            raise SecurityError(
                f"the template's loops and calls take more than {MAX_STEPS:,} steps"
            )
        if count.steps % CLOCKED == 0:
            self._in_time()
        weight = len(value) if type(value) is str else weigh(value)
        count.made += weight
        if weight > MAX_TEXT or count.made > MAX_MADE:
            raise SecurityError(f"the template makes more than {MAX_TEXT:,} characters")
        return value

    def _in_time(self) -> None:
        count, now = self._count, time.thread_time()
        count.until = count.until or now + MAX_SECONDS
        if now > count.until:
            raise SecurityError(f"the template runs for more than {MAX_SECONDS:g} seconds")

    def parse(self, source: str, *args: Any, **kwargs: Any) -> nodes.Template:
        """The syntax tree. Raises TemplateSyntaxError also where a file is not named by a constant: what a row says is never
        the name of a file that is read as a template."""
        tree = super().parse(source, *args, **kwargs)
        for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            if not _is_named(node):
                raise TemplateSyntaxError(
                    "a file is named by a text in quotes, and by nothing else", node.lineno
                )
        return tree

    def compile(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        """Compile with every loop, operator, include and piece of output metered; included templates come here too."""
        if isinstance(source, str):
            source = self.parse(source)
        return super().compile(_Metering().visit(source), *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`row.items` is the column of that name where there is one."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of plain values only the methods named above; of Jinja2's own objects what its sandbox allows."""
        for kind, methods in _METHODS:
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`"...".format`, weighed before it fills its fields."""
        filled = super().wrap_str_format(value)
        if filled is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            _fits(value.__self__, "{", [*args, *kwargs.values()])
            return filled(*args, **kwargs)

        return bounded

    def call(self, context: Context, callee: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, macro or Jinja2's own function, metered."""
        text = getattr(callee, "__self__", None)
        if isinstance(text, str):
            _bound_method(text, callee.__name__, args)
        self.weighed(None)
        return self.weighed(super().call(context, callee, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator that may make much out of little, metered."""
        if operator == "*":
            _product(left, right)
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _bits(left.bit_length() * abs(right))
        if operator == "%" and isinstance(left, str):
            _fits(left, "%", right if isinstance(right, tuple) else [right])
        return self.weighed(super().call_binop(context, operator, left, right))

    def _metered(self, bare: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose result is a plain value: an iterator is turned into a list, `Markup` into text."""

        @wraps(bare)
        def metered(*args: Any, **kwargs: Any) -> Any:
            result = bare(*args, **kwargs)
            if isinstance(result, Iterator):
                result = list(self._counted(result))
            return self.weighed(str(result) if isinstance(result, Markup) else result)

        return metered

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.weighed(None)
            yield item


@pass_context
def _output(context: Context, value: Any) -> Any:
    """What `{{ }}` and `~` put into a text, weighed: text as it is, none as nothing, any other value as JSON."""
    assert isinstance(context.environment, Environment)
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    return context.environment.weighed(text)


class _Metering(NodeTransformer):
    """Puts the scales into a template's syntax tree, where the environment has no say."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the visitor's protocol
        if node.recursive:
            raise TemplateSyntaxError("recursive loops are not offered", node.lineno)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_counted")
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        return nodes.Const(node.data).set_lineno(node.lineno)

    def visit_Include(self, node: nodes.Include) -> list[nodes.Node]:  # noqa: N802
        return [
            nodes.ExprStmt(_filtered(nodes.Const(None), "_weighed")).set_lineno(node.lineno),
            node,
        ]

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.Concat):
            node.nodes = [_filtered(each, "_output") for each in node.nodes]
        made = isinstance(node, nodes.Concat | nodes.List | nodes.Dict)
        made = made or (isinstance(node, nodes.Tuple) and node.ctx == "load")
        return _filtered(node, "_weighed") if made else node


def _is_named(node: nodes.Node) -> bool:
    """Whether all files of an include, import or extends are constants."""
    named = node.template  # type: ignore[attr-defined]
    names = named.items if isinstance(named, nodes.List | nodes.Tuple) else [named]
    return all(isinstance(name, nodes.Const) and isinstance(name.value, str) for name in names)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    metered = nodes.Filter(node, name, [], [], None, None)
    metered.set_lineno(node.lineno)
    return metered


def _bits(number: int) -> None:
    if number > MAX_BITS:
        raise SecurityError("the number is too large")


def _large(characters: int) -> None:
    if characters > MAX_TEXT:
        raise SecurityError(f"the result would have more than {MAX_TEXT:,} characters")


def _product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(value, int):
            _bits(value.bit_length() + times.bit_length())
        elif isinstance(times, int):
            _large(weigh(value) * times)


def _fits(text: str, mark: str, values: Iterable[Any]) -> None:
    """Refuse a format whose widths, and fields times the largest value, come to too much."""
    if re.search(r"%[^a-zA-Z%]*\*|\{[^{}]*\{", text):
        raise SecurityError("a format's width must be a number")
    widths = sum(int(digits[:9]) for digits in re.findall(r"[0-9]+", text))
    _large(widths + text.count(mark) * max(map(weigh, values), default=0))


def _sane(width: Any) -> None:
    if isinstance(width, int) and width > MAX_WIDTH:
        raise SecurityError("the width is too large")


def _bound_method(text: str, method: str, args: tuple[Any, ...]) -> None:
    """Weigh what a string method that makes much out of little would make."""
    if method in _PADDING and args:
        _sane(args[0])
        _large(
            text.count("\t") * args[0] if method == "expandtabs" and isinstance(args[0], int) else 0
        )
    elif method == "replace" and len(args) > 1:
        _large((text.count(str(args[0])) if args[0] else len(text) + 1) * len(str(args[1])))
    elif method == "join" and args and isinstance(args[0], list | tuple):
        _large(len(text) * len(args[0]) + weigh(args[0]))


def _center(value: Any, width: int = 80) -> str:
    _sane(width)
    return str(value).center(width)


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> Any:
    _sane(width)
    _large(str(value).count("\n") * (width if isinstance(width, int) else len(width)))
    return FILTERS["indent"](str(value), width, first, blank)


def _batch(value: Any, linecount: int, fill_with: Any = None) -> Any:
    _sane(linecount)
    return FILTERS["batch"](value, linecount, fill_with)


def _slice(value: Any, slices: int, fill_with: Any = None) -> Any:
    _sane(slices)
    return FILTERS["slice"](value, slices, fill_with)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    _fits(str(value), "%", [*args, *kwargs.values()])
    return str(FILTERS["format"](value, *args, **kwargs))


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = str(value), str(old), str(new)
    _bound_method(text, "replace", (old, new))
    return text.replace(old, new, -1 if count is None else count)


@pass_environment
def _join(
    environment: Environment, value: Iterable[Any], d: Any = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    items = [str(item) for item in value]
    _bound_method(str(d), "join", (items,))
    return str(d).join(items)


def _tojson(value: Any, indent: int | None = None) -> str:
    """JSON as people and models read it. Jinja2's own is for HTML: it writes < as an escape, and 中 as another."""
    _sane(indent)
    return json.dumps(
        plain(value), ensure_ascii=False, indent=None if indent is None else min(indent, 16)
    )


def _strict_number(kind: type[int] | type[float]) -> Callable[..., Any]:
    """Jinja2's own filters turn what is no number into 0: a wrong cell would become a wrong request."""
    form = re.compile(
        r"\s*[+-]?[0-9]+\s*"
        if kind is int
        else r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
    )

    def number(value: Any, default: Any = absent) -> Any:
        if isinstance(value, Undefined) and default is absent:
            value._fail_with_undefined_error()
        try:
            if not isinstance(value, str) or form.fullmatch(value):
                return kind(value)
        except (TypeError, ValueError, OverflowError):
            pass
        if default is not absent:
            return default
        raise TemplateRuntimeError(f"{str(value)[:40]!r} is not a number ({kind.__name__})")

    return number


_OWN: dict[str, Callable[..., Any]] = {
    "batch": _batch,
    "center": _center,
    "float": _strict_number(float),
    "format": _format,
    "indent": _indent,
    "int": _strict_number(int),
    "join": _join,
    "replace": _replace,
    "slice": _slice,
    "tojson": _tojson,
}
