"""What is wrong with one row's request, and where in the job file it comes from."""

from __future__ import annotations

KeyPath = tuple[str | int, ...]


class RequestError(Exception):
    """A row of which no request can be made. `key_path` is the place in the job file, or () where the row itself says what
    is sent; `message` says why."""

    def __init__(self, key_path: KeyPath, message: str) -> None:
        self.key_path = key_path
        self.message = message
        super().__init__(f"{dotted(key_path)}: {message}" if key_path else message)


def dotted(key_path: KeyPath) -> str:
    """A key_path as people write it: `request.messages[0].content`."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in key_path
    ).lstrip(".")
