"""The filters that replace Jinja2's own: bounded, strict about numbers, and JSON as people and
models read it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import Environment, Undefined, pass_environment
from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import FILTERS, make_attrgetter, sync_do_slice
from jinja2.utils import missing

from batchgen.requests.conversations import as_messages
from batchgen.requests.metering import (
    check_format,
    check_size,
    check_string_method,
    check_width,
)

# Filters that reach into objects, change from one rendering to the next, or take seconds for a
# large text.
_LEFT_OUT = ("attr", "pprint", "random", "urlize", "wordwrap", "xmlattr")

# The most digits that `round` takes.
MAX_PRECISION = 400


def plain(value: Any) -> Any:
    """A value as JSON has it, sharing no list or object with the row.

    Raises TemplateRuntimeError when it cannot be one.
    """
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
        f"the result is a {type(value).__name__}, not text, a number, a list or an object"
    )


def _center(value: Any, width: int = 80) -> str:
    check_width(width)
    return str(value).center(width)


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> Any:
    check_width(width)
    check_size(str(value).count("\n") * (width if isinstance(width, int) else len(width)))
    return FILTERS["indent"](str(value), width, first, blank)


def _batch(value: Any, linecount: int, fill_with: Any = None) -> Any:
    check_width(linecount)
    return FILTERS["batch"](value, linecount, fill_with)


def _slice(value: Any, slices: int, fill_with: Any = None) -> Any:
    check_width(slices)
    return sync_do_slice(value, slices, fill_with)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    check_format(str(value), "%", [*args, *kwargs.values()])
    return str(FILTERS["format"](value, *args, **kwargs))


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = str(value), str(old), str(new)
    check_string_method(text, "replace", (old, new))
    return text.replace(old, new, -1 if count is None else count)


@pass_environment
def _join(
    environment: Environment, value: Iterable[Any], d: Any = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    items = [str(item) for item in value]
    check_string_method(str(d), "join", (items,))
    return str(d).join(items)


def _tojson(value: Any, indent: int | None = None) -> str:
    # Jinja2's own is for HTML: it escapes < and every letter outside ASCII, which a model would be
    # billed for.
    check_width(indent)
    spaces = None if indent is None else min(indent, 16)
    return json.dumps(plain(value), ensure_ascii=False, indent=spaces)


def _round(value: Any, precision: int = 0, method: Any = "common") -> Any:
    # A float has 17 digits and an exponent of at most 308; beyond that, 10 ** precision takes
    # minutes.
    if isinstance(precision, int) and abs(precision) > MAX_PRECISION:
        raise TemplateRuntimeError(f"round takes at most {MAX_PRECISION} digits")
    return FILTERS["round"](value, precision, method)


def _strict_number(kind: type[int] | type[float]) -> Callable[..., Any]:
    """The filter `int` or `float`.

    Jinja2's own turn text that is not a number into 0, and a wrong cell would become a wrong
    request; these raise, unless a default is given.
    """
    whole, decimal = r"[0-9]+", r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    form = re.compile(rf"\s*[+-]?{whole if kind is int else decimal}\s*")

    def number(value: Any, default: Any = missing) -> Any:
        if isinstance(value, Undefined) and default is missing:
            value._fail_with_undefined_error()
        try:
            # Python's own int() and float() take more than JSON has: 1_000, nan, digits of other
            # scripts.
            if not isinstance(value, str) or form.fullmatch(value):
                return kind(value)
        except (TypeError, ValueError, OverflowError):
            pass
        if default is not missing:
            return default
        raise TemplateRuntimeError(f"{str(value)[:40]!r} is not a number ({kind.__name__})")

    return number


# What a template may use: Jinja2's filters, with ours in place of those of the same name.
OFFERED: dict[str, Callable[..., Any]] = {
    **{name: each for name, each in FILTERS.items() if name not in _LEFT_OUT},
    "batch": _batch,
    "center": _center,
    "float": _strict_number(float),
    "format": _format,
    "indent": _indent,
    "int": _strict_number(int),
    "join": _join,
    "messages": as_messages,
    "replace": _replace,
    "round": _round,
    "slice": _slice,
    "tojson": _tojson,
}
