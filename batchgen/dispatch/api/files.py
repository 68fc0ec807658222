"""Files on this machine that are sent to the API, or written from its replies."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO

from batchgen.disk import atomic_write
from batchgen.requests import Request, read_upload

# Parts of a multipart body: field name, then file name, content and media type.
Multipart = Sequence[tuple[str, tuple[str, bytes | IO[bytes], str]]]


def multipart(request: Request) -> Multipart:
    """The files of a request, read now. Raises RequestError for one that has changed."""
    return [
        (upload.field, (upload.name.rsplit("/", 1)[-1], read_upload(upload), upload.media_type))
        for upload in request.uploads
    ]


class UploadFile(io.FileIO):
    """A file that calls `on_read` after each read: by then, earlier pieces have been sent."""

    def __init__(self, path: Path, on_read: Callable[[], None]) -> None:
        super().__init__(path, "rb")
        self._on_read = on_read

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._on_read()
        return data


async def write_pieces(path: Path, pieces: AsyncIterator[bytes]) -> None:
    """Write a file whole. Raises OutputError."""
    with atomic_write(path, binary=True) as file:
        async for piece in pieces:
            # Off the event loop, because a disk may be slow.
            await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(_sync, file)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
