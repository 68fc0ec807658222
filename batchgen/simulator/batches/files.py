"""/files: uploads and the results of batches, in a folder that is removed when the server stops."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Protocol, TypeVar

from aiohttp import BodyPartReader, web

from batchgen.simulator.calls import Body, Call, Spooled, call_of
from batchgen.simulator.refusals import RefusalError, invalid, missing, not_json

MOST_BYTES = 200 * 1024 * 1024  # of a file of requests
KEPT = 30 * 86_400  # seconds that files of batches are kept by default
SHORTEST_KEPT = 3600
MOST_FILES = 10_000  # on one page of the list

_CHUNK = 256 * 1024


class _Listed(Protocol):
    @property
    def id(self) -> str: ...


_Item = TypeVar("_Item", bound=_Listed)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file; `size` in bytes, times in Unix seconds."""

    id: str
    path: Path
    filename: str
    purpose: str
    size: int
    created_at: int
    expires_at: int

    def as_json(self) -> Body:
        """The official file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Files:
    """The files of one simulator, oldest first; `clock` returns Unix seconds.

    Its folder is made when first needed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._folder: TemporaryDirectory[str] | None = None
        self._files: dict[str, File] = {}

    @property
    def folder(self) -> Path:
        """Where the bytes are."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="batchgen-simulator-")
        return Path(self._folder.name)

    def close(self) -> None:
        """Forget and remove everything."""
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    async def read(self, path: str, request: web.Request) -> Call:
        """Read an upload, its file straight to disk; raises RefusalError for any other form."""
        if request.content_type != "multipart/form-data":
            raise not_json("this endpoint takes multipart/form-data.")
        fields: Body = {}
        spooled = None
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader) or (
                    part.name == "file" and spooled is not None
                ):
                    raise ValueError("one file and plain fields are expected")
                if part.name == "file":
                    spooled, fields["file"] = await self._spool(part)
                else:
                    fields[part.name or ""] = (await part.read(decode=True)).decode("utf-8")
        except BaseException as error:
            if spooled is not None:
                spooled.path.unlink(missing_ok=True)
            if isinstance(error, (ValueError, AssertionError)):
                raise not_json(f"its multipart form is broken ({error}).") from None
            raise
        return call_of(path, fields, spooled)

    async def _spool(self, part: BodyPartReader) -> tuple[Spooled, str]:
        """Write the file of an upload to disk, up to the bound; returns it and its digest."""
        path = self.folder / f"incoming-{secrets.token_hex(12)}"
        size, digest = 0, hashlib.sha256()
        try:
            with _created(path) as file:
                # What is too large is read to its end: a client that is still sending would never
                # see the answer.
                while chunk := await part.read_chunk(_CHUNK):
                    size += len(chunk)
                    digest.update(chunk)
                    if size <= MOST_BYTES:
                        file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Spooled(
            path=path, filename=part.filename or "upload", size=size
        ), f"sha256:{digest.hexdigest()}"

    def create(self, call: Call) -> File:
        """Accept an upload; raises RefusalError for one that the API or this simulator refuses."""
        spooled, purpose = call.spooled, call.body.get("purpose")
        if spooled is None:
            raise missing("file")
        if purpose is None:
            raise missing("purpose")
        if purpose != "batch":
            raise invalid("purpose", "the simulator takes files for batch only.")
        if spooled.size > MOST_BYTES:
            raise RefusalError(
                413, f"The batch input file is larger than the {MOST_BYTES} maximum.", param="file"
            )
        expiry = {name: call.body.get(f"expires_after[{name}]") for name in ("anchor", "seconds")}
        seconds = kept("expires_after", expiry if any(expiry.values()) else None)
        return self.add(spooled.path, spooled.filename, "batch", seconds)

    def add(self, path: Path, filename: str, purpose: str, seconds: int) -> File:
        """Keep the file at `path`, which is in the folder, for `seconds`."""
        identity = f"file-sim{secrets.token_hex(12)}"
        now = int(self._clock())
        own = path.rename(self.folder / identity)
        file = File(
            id=identity,
            path=own,
            filename=filename,
            purpose=purpose,
            size=own.stat().st_size,
            created_at=now,
            expires_at=now + seconds,
        )
        self._files[identity] = file
        return file

    def get(self, identity: str) -> File:
        """The file; raises RefusalError (404) if there is none, or it has expired."""
        file = self._files.get(identity)
        if file is not None and file.expires_at <= self._clock():
            self._drop(file)
            file = None
        if file is None:
            raise RefusalError(404, f"No such File object: {identity}", param="id")
        return file

    def delete(self, identity: str) -> Body:
        """Remove a file; raises RefusalError (404) if there is none."""
        self._drop(self.get(identity))
        return {"id": identity, "object": "file", "deleted": True}

    def listed(self, query: Body) -> Body:
        """A page of the files; `query` may have purpose, after, limit, and order asc or desc."""
        files = [
            file for file in self._files.values() if query.get("purpose") in (None, file.purpose)
        ]
        if query.get("order") != "asc":
            files.reverse()
        shown, more = page(files, query, MOST_FILES, MOST_FILES)
        return as_list([file.as_json() for file in shown], has_more=more)

    def _drop(self, file: File) -> None:
        del self._files[file.id]
        file.path.unlink()


def kept(param: str, policy: Any) -> int:
    """Seconds that a file is kept under an expiry policy; raises RefusalError for a wrong one."""
    if policy is None:
        return KEPT
    if not isinstance(policy, dict) or policy.get("anchor") != "created_at":
        raise invalid(f"{param}.anchor", "created_at is expected.")
    seconds = str(policy.get("seconds"))
    if not (seconds.isascii() and seconds.isdigit() and SHORTEST_KEPT <= int(seconds[:9]) <= KEPT):
        raise invalid(
            f"{param}.seconds", f"a whole number from {SHORTEST_KEPT} to {KEPT} is expected."
        )
    return int(seconds)


def page(
    items: Sequence[_Item], query: Body, default: int, most: int
) -> tuple[Sequence[_Item], bool]:
    """A page of `items`, and whether there are more.

    items: all, in order
    query: may have `after`, the id that the page follows, and `limit`, 1 to `most`
    default, most: of the items on the page

    Raises RefusalError for a limit out of bounds, or an `after` that is not among them.
    """
    limit = str(query.get("limit", default))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= most):
        raise invalid("limit", f"a whole number from 1 to {most} is expected.")
    start, after = 0, query.get("after")
    if after is not None:
        start = next((n for n, item in enumerate(items, start=1) if item.id == after), -1)
        if start < 0:
            raise invalid("after", f"nothing in this list has the id {after}.")
    end = start + int(limit)
    return items[start:end], end < len(items)


def as_list(data: Iterable[Body], *, has_more: bool) -> Body:
    """The official list object."""
    items = list(data)
    ends = (
        {"first_id": items[0]["id"], "last_id": items[-1]["id"]}
        if items
        else {"first_id": None, "last_id": None}
    )
    return {"object": "list", "data": items, **ends, "has_more": has_more}


def _created(path: Path) -> BinaryIO:
    return path.open("xb")
