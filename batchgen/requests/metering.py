"""How much one rendering may make and how long it may take, and the checks that keep it within
that.

Every step (a loop's turn, a filter, a call, an operator, an include, a piece of output) is counted
and its result is weighed. The few operations that make much out of little in one step are checked
before they begin.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.visitor import NodeTransformer

# Bounds on one rendering: the weight of one value and of all together (about characters), steps,
# seconds of CPU.
MAX_TEXT = 32 * 1024 * 1024
MAX_MADE = 4 * MAX_TEXT
MAX_STEPS = 100_000
MAX_SECONDS = 10.0

# Steps between two readings of the clock: reading it is a system call, which costs more than most
# steps.
STEPS_PER_CLOCK_READ = 8

# The weight of one slot of a list or mapping, besides its content: about its bytes of memory, and
# the time to visit it.
SLOT = 32

# The widest padding, and the bits of the largest whole number.
MAX_WIDTH = 10_000
MAX_BITS = 10_000

# String methods that fill up to a width.
PADDING = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})


def weight_of(value: Any) -> int:
    """The characters, slots and bits in a value, however deep; counting stops above MAX_TEXT."""
    total, pending = 0, [value]
    while pending and total <= MAX_TEXT:
        item = pending.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, Mapping):
            total += SLOT * len(item)
            pending += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            total += SLOT * len(item)
            pending += item
        elif isinstance(item, int):
            total += item.bit_length()
    return total


class Meter(threading.local):
    """What the rendering in this thread has used so far. Each thread counts for itself."""

    steps = 0
    tests = 0
    made = 0
    # The thread's CPU clock, in seconds, at which the rendering must end; 0 until the clock is
    # first read.
    deadline = 0.0

    def start(self) -> None:
        """Begin a new rendering."""
        self.steps, self.tests, self.made, self.deadline = 0, 0, 0, 0.0

    def weigh(self, value: Any) -> Any:
        """Count a step and its result; return the result. Raises SecurityError above a bound."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise SecurityError(
                f"the template's loops and calls take more than {MAX_STEPS:,} steps"
            )
        if self.steps % STEPS_PER_CLOCK_READ == 0:
            self._check_time()
        weight = len(value) if type(value) is str else weight_of(value)
        self.made += weight
        if weight > MAX_TEXT or self.made > MAX_MADE:
            raise SecurityError(f"the template makes more than {MAX_TEXT:,} characters")
        return value

    def tick(self) -> None:
        """Look at the clock now and then, for a test that makes nothing. Raises SecurityError."""
        self.tests += 1
        if self.tests % STEPS_PER_CLOCK_READ == 0:
            self._check_time()

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, each counted as a step."""
        for item in items:
            self.weigh(None)
            yield item

    def _check_time(self) -> None:
        now = time.thread_time()
        self.deadline = self.deadline or now + MAX_SECONDS
        if now > self.deadline:
            raise SecurityError(f"the template runs for more than {MAX_SECONDS:g} seconds")


class Instrumentation(NodeTransformer):
    """Adds the meter's filters to a syntax tree, where Jinja2 has no other hook."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the visitor's protocol
        if node.recursive:
            raise TemplateSyntaxError("recursive loops are not offered", node.lineno)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_counted")
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        # Literal text becomes a constant, which goes through the output filter: so literal text in
        # a loop is weighed too.
        return nodes.Const(node.data).set_lineno(node.lineno)

    def visit_Include(self, node: nodes.Include) -> list[nodes.Node]:  # noqa: N802
        # An include makes no value of its own, so a step is counted before it: else includes could
        # nest for ever.
        step = nodes.ExprStmt(_filtered(nodes.Const(None), "_weighed"))
        return [step.set_lineno(node.lineno), node]

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.Concat):
            node.nodes = [_filtered(each, "_output") for each in node.nodes]
        makes_value = isinstance(node, nodes.Concat | nodes.List | nodes.Dict)
        makes_value = makes_value or (isinstance(node, nodes.Tuple) and node.ctx == "load")
        return _filtered(node, "_weighed") if makes_value else node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    filtered = nodes.Filter(node, name, [], [], None, None)
    filtered.set_lineno(node.lineno)
    return filtered


def check_size(characters: int) -> None:
    """Raises SecurityError when a result of this many characters would be too large."""
    if characters > MAX_TEXT:
        raise SecurityError(f"the result would have more than {MAX_TEXT:,} characters")


def check_bits(number: int) -> None:
    """Raises SecurityError when a whole number of this many bits would be too large."""
    if number > MAX_BITS:
        raise SecurityError("the number is too large")


def check_width(width: Any) -> None:
    """Raises SecurityError for a width or a count above MAX_WIDTH."""
    if isinstance(width, int) and width > MAX_WIDTH:
        raise SecurityError("the width is too large")


def check_product(left: Any, right: Any) -> None:
    """Check `left * right` before it is made. Raises SecurityError."""
    for value, times in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(value, int):
            check_bits(value.bit_length() + times.bit_length())
        elif isinstance(times, int):
            check_size(weight_of(value) * times)


def check_format(text: str, mark: str, values: Iterable[Any]) -> None:
    """Check a format string before it is filled; `mark` begins a field.

    Raises SecurityError when the widths, plus the fields times the largest value, are too large.
    """
    if re.search(r"%[^a-zA-Z%]*\*|\{[^{}]*\{", text):
        raise SecurityError("a format's width must be a number")
    widths = sum(int(digits[:9]) for digits in re.findall(r"[0-9]+", text))
    check_size(widths + text.count(mark) * max(map(weight_of, values), default=0))


def check_string_method(text: str, method: str, args: tuple[Any, ...]) -> None:
    """Check a string method that can make much out of little, before it is called.

    Raises SecurityError.
    """
    if method in PADDING and args:
        check_width(args[0])
        if method == "expandtabs" and isinstance(args[0], int):
            check_size(text.count("\t") * args[0])
    elif method == "replace" and len(args) > 1:
        check_size((text.count(str(args[0])) if args[0] else len(text) + 1) * len(str(args[1])))
    elif method == "join" and args and isinstance(args[0], list | tuple):
        check_size(len(text) * len(args[0]) + weight_of(args[0]))
