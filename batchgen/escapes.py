"""Foreign texts in messages, logs and reports: nothing in them controls a terminal.

Answers are not touched: they are data, and go into tables as they came.
"""

from __future__ import annotations

import re

# C0 without tab and newline, DEL, C1, Unicode separators and bidirectional controls: they move the
# terminal's cursor, change its colours or reorder its text.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
_LINE_BREAKS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def escape_controls(text: str) -> str:
    """The text with visible escapes for control characters; its line breaks stay."""
    return _CONTROL.sub(_escape, text)


def escape_in_json(text: str) -> str:
    """A text of JSON, with JSON's own escapes for control characters."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    """A foreign text as a part of a message: one line, with visible escapes for controls.

    Half of a surrogate pair, which no file can hold, becomes U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _SURROGATES.sub("\ufffd", text)
    return escape_controls(_LINE_BREAKS.sub(" ", text))


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
