"""The two errors of this room: a row that no request can be made of, and a template that cannot be
rendered.
"""

from __future__ import annotations

from batchgen.job import KeyPath, dotted


class RequestError(Exception):
    """No request can be made of a row, for the reason in `message`.

    `key_path` is the key of the job file that the problem comes from; () when the row itself is the
    request.
    """

    def __init__(self, key_path: KeyPath, message: str) -> None:
        self.key_path = key_path
        self.message = message
        super().__init__(f"{dotted(key_path)}: {message}" if key_path else message)


class TemplateError(Exception):
    """A template cannot be compiled, or cannot be rendered for one row; the text says why.

    `reason` says it in general words, which hold nothing of the row.
    """

    def __init__(self, message: str, *, reason: str = "the template fails") -> None:
        self.reason = reason
        super().__init__(message)
