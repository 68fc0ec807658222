"""What is wrong with one row's request, and where in the job file it comes from."""

from __future__ import annotations

Location = tuple[str | int, ...]


class RequestError(Exception):
    """A row of which no request can be made. `location` is the place in the job file, or () where the row itself says what
    is sent; `message` says why."""

    def __init__(self, location: Location, message: str) -> None:
        self.location = location
        self.message = message
        super().__init__(f"{spoken(location)}: {message}" if location else message)


def spoken(location: Location) -> str:
    """A location as people write it: `request.messages[0].content`."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in location
    ).lstrip(".")
