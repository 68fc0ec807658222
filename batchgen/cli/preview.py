"""A request cut down to a screen, without the bytes of pictures and other files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from batchgen.cli.terminal import as_json

# Bytes that are named instead of printed: 200 characters of base64 or more, with what a data URL
# says of them.
_ENCODED = re.compile(r"(?:data:([\w.+/-]*);base64,)?[A-Za-z0-9+/_-]{200,}={0,2}")
# Rows of the screen that a request leaves to what stands above it and to the prompt below.
_REST = 4
# Rows of the screen that one text may take.
_TEXT_ROWS = 4


def preview(request: Mapping[str, Any]) -> str:
    """A request as JSON, with texts and lines cut so that it fits into a screen."""
    width, height = shutil.get_terminal_size()
    width = max(40, width)
    lines = as_json(_cut(without_bytes(request), _TEXT_ROWS * width)).splitlines()
    kept, room = 0, max(10, height - _REST)
    for line in lines:
        room -= -(-len(line) // width)
        if room < 0:
            break
        kept += 1
    more = len(lines) - kept
    end = [f"... ({more:,} more line{'s' * (more != 1)}: --full)"] if more else []
    return "\n".join([*lines[:kept], *end])


def without_bytes(value: Any) -> Any:
    """A text, or a JSON value, whose long runs of base64 are replaced by how long they are."""
    if isinstance(value, str):
        return _ENCODED.sub(_size, value)
    return _each(value, without_bytes)


def _size(run: re.Match[str]) -> str:
    return f"[{run[1] or 'data'}, {len(run[0]):,} characters of base64]"


def _cut(value: Any, most: int) -> Any:
    """A JSON value whose texts have at most so many characters, and say how many more there are."""
    if isinstance(value, str):
        more = len(value) - most
        return value if more <= 0 else f"{value[:most]}... ({more:,} more characters: --full)"
    return _each(value, lambda inner: _cut(inner, most))


def _each(value: Any, change: Any) -> Any:
    """A list or an object with each of its values changed; any other value as it is."""
    if isinstance(value, Mapping):
        return {name: change(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [change(inner) for inner in value]
    return value
