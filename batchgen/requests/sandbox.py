"""The sandbox around templates: a Jinja2 that cannot reach Python, make much out of little, or run
for long.

Jinja2's own sandbox keeps templates from Python's internals. This one also allows only the methods
named here, meters every step (see `metering`), and lets only plain values leave an expression:
never a function, an iterator or `Markup`.

minijinja was tried in its place, for its built-in step budget. It renders other bytes (`1e+16` as
10000000000000000.0, `7 // 2.0` as 3, `'9' * 5000` as a number cut to 128 bits), which would change
the fingerprints of paid answers; its `row.clear()` empties the row; and an unknown column alone in
an expression is None instead of an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from markupsafe import Markup

from batchgen.errors import did_you_mean
from batchgen.requests.filters import OFFERED, plain
from batchgen.requests.metering import (
    PADDING,
    Instrumentation,
    Meter,
    check_bits,
    check_format,
    check_product,
    check_string_method,
)

# The methods of plain values that a template may call.
_STRING_METHODS = """
    capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit
    islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix removesuffix
    replace rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title
    upper
"""
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (str, PADDING.union(_STRING_METHODS.split())),
    (dict, frozenset({"get", "items", "keys", "values"})),
    (list, frozenset({"count", "index"})),
    (int, frozenset()),
    (float, frozenset()),
)
# What can be called by a name after a dot: those methods, and the functions of loops and cyclers.
_CALLABLE = frozenset({"cycle", "changed", "next", "reset"}).union(*(each for _, each in _METHODS))

# The types of JSON, as people call them.
_IN_WORDS = {dict: "the object", list: "the list", str: "text", type(None): "null"}


class Unknown(StrictUndefined):
    """A name that is not a column, with an error message in the user's words."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        if self._undefined_obj is missing:
            return f"{self._undefined_name!r} is not a column of this row"
        kind = type(self._undefined_obj)
        return f"{_IN_WORDS.get(kind, kind.__name__)} has no {self._undefined_name!r}"


class Environment(ImmutableSandboxedEnvironment):
    """Jinja2's environment in the sandbox. Several threads may render at the same time.

    Call `meter.start()` before each rendering.
    """

    # Jinja2 asks `call_binop` about these operators only; the others cannot make much out of
    # little.
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, filters: Mapping[str, Callable[..., Any]], **options: Any) -> None:
        """`filters` are offered besides Jinja2's; `options` are those of Jinja2's environment."""
        # optimized=False: the optimizer would compute constant expressions at compile time, outside
        # the meter.
        super().__init__(
            undefined=Unknown, autoescape=False, optimized=False, finalize=_output, **options
        )
        self.meter = Meter()
        self.globals.pop("lipsum")
        self.filters.clear()
        self.filters.update(
            {name: self._metered(each) for name, each in {**OFFERED, **filters}.items()}
        )
        # A filter calls a test for each item of a list, and `in` looks through a whole list.
        tests: Mapping[str, Any] = self.tests
        self.tests = {name: self._timed(each) for name, each in tests.items()}
        # The names that `Instrumentation` puts into syntax trees.
        self.filters.update(_counted=self.meter.count, _output=_output, _weighed=self.meter.weigh)

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        """What every template knows, as one dictionary: each rendering copies it, and Jinja2's own
        ChainMap is slow.
        """
        return {**self.globals, **(d or {})}

    def parse(self, source: str, *args: Any, **kwargs: Any) -> nodes.Template:
        """The syntax tree.

        Raises TemplateSyntaxError, also when an include names its file by anything but a constant:
        a row must never decide which file is read as a template; and when it uses a filter, a test
        or a method that there is not, also where a row may never get.
        """
        tree = super().parse(source, *args, **kwargs)
        self._check_names(tree)
        for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            if not _names_constants(node):
                raise TemplateSyntaxError(
                    "a file must be named by a text in quotes, and by nothing else", node.lineno
                )
        return tree

    def _check_names(self, tree: nodes.Template) -> None:
        """Raise TemplateSyntaxError for the first filter, test or method that there is not."""
        for kind, known in ((nodes.Filter, self.filters), (nodes.Test, self.tests)):
            for node in tree.find_all(kind):
                # Those that begin with _ are put into trees by `Instrumentation`.
                names = [name for name in known if not name.startswith("_")]
                if node.name not in names:
                    word, hint = kind.__name__.lower(), did_you_mean(node.name, names)
                    raise TemplateSyntaxError(
                        f"no {word} is called {node.name!r}{hint}", node.lineno
                    )
        # A file that is imported may have macros of any name.
        if tree.find(nodes.Import) or tree.find(nodes.FromImport):
            return
        for call in tree.find_all(nodes.Call):
            method = call.node
            if not isinstance(method, nodes.Getattr) or method.attr in _CALLABLE:
                continue
            # The blocks of a template are methods of `self`.
            if not isinstance(method.node, nodes.Name) or method.node.name != "self":
                hint = did_you_mean(method.attr, sorted(_CALLABLE))
                raise TemplateSyntaxError(f"no method is called {method.attr!r}{hint}", call.lineno)

    def compile(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        """Compile with loops, operators, includes and output metered.

        Jinja2 compiles included templates here too.
        """
        if isinstance(source, str):
            source = self.parse(source)
        return super().compile(Instrumentation().visit(source), *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute; a column comes before a method, so `row.items` is the column of that name
        if there is one.
        """
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute: of plain values only the methods named above; of
        Jinja2's own objects what its sandbox allows.
        """
        for kind, methods in _METHODS:
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`"...".format`, checked before it fills its fields."""
        fill = super().wrap_str_format(value)
        if fill is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            check_format(value.__self__, "{", [*args, *kwargs.values()])
            return fill(*args, **kwargs)

        return bounded

    def call(self, context: Context, callee: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, a macro or one of Jinja2's functions, metered."""
        text = getattr(callee, "__self__", None)
        if isinstance(text, str):
            check_string_method(text, callee.__name__, args)
        # Counted before too: a macro that calls itself would otherwise end only at Python's own
        # recursion limit.
        self.meter.weigh(None)
        return self.meter.weigh(super().call(context, callee, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Apply one of `intercepted_binops`, metered."""
        if operator == "*":
            check_product(left, right)
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            check_bits(left.bit_length() * abs(right))
        if operator == "%" and isinstance(left, str):
            check_format(left, "%", right if isinstance(right, tuple) else [right])
        return self.meter.weigh(super().call_binop(context, operator, left, right))

    def _timed(self, bare: Callable[..., Any]) -> Callable[..., Any]:
        """A test that is not begun when the time is up."""

        @wraps(bare)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.meter.tick()
            return bare(*args, **kwargs)

        return timed

    def _metered(self, bare: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose result is a plain value: an iterator becomes a list, `Markup` becomes
        text.
        """

        @wraps(bare)
        def metered(*args: Any, **kwargs: Any) -> Any:
            result = bare(*args, **kwargs)
            if isinstance(result, Iterator):
                result = list(self.meter.count(result))
            return self.meter.weigh(str(result) if isinstance(result, Markup) else result)

        return metered


@pass_context
def _output(context: Context, value: Any) -> Any:
    """The text of a value in `{{ }}` or `~`, weighed: text unchanged, none as an empty text, any
    other value as JSON.
    """
    assert isinstance(context.environment, Environment)
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    return context.environment.meter.weigh(text)


def _names_constants(node: nodes.Node) -> bool:
    """Whether an include, import or extends names all of its files by constants."""
    template = node.template  # type: ignore[attr-defined]
    names = template.items if isinstance(template, nodes.List | nodes.Tuple) else [template]
    return all(isinstance(name, nodes.Const) and isinstance(name.value, str) for name in names)
