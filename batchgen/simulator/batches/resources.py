"""The routes of /files and /batches: a method and a path -> the store that answers."""

from __future__ import annotations

import re

from aiohttp import web

from batchgen.simulator.batches.files import File, Files
from batchgen.simulator.batches.lifecycle import Batches
from batchgen.simulator.calls import Body, Call, call_of, read_json
from batchgen.simulator.refusals import RefusalError
from batchgen.simulator.settings import Settings
from batchgen.simulator.stats import Stats

_METHODS = {
    "files": ("GET", "POST"),
    "files/{id}": ("GET", "DELETE"),
    "files/{id}/content": ("GET",),
    "batches": ("GET", "POST"),
    "batches/{id}": ("GET",),
    "batches/{id}/cancel": ("POST",),
}
_PATH = re.compile(r"/v1/(?P<name>files|batches)(?P<id>/[^/]+)?(?P<rest>/[a-z]+)?")


def methods(path: str) -> tuple[str, ...]:
    """The methods that a path of files or batches allows; none for another path."""
    match = _PATH.fullmatch(path)
    if match is None:
        return ()
    pattern = f"{match['name']}{'/{id}' if match['id'] else ''}{match['rest'] or ''}"
    return _METHODS.get(pattern, ())


class Resources:
    """Reads and answers the calls that `methods` knows; counts uploads and batches."""

    def __init__(self, files: Files, batches: Batches, stats: Stats) -> None:
        self._files = files
        self._batches = batches
        self._stats = stats

    def close(self) -> None:
        """Forget and remove everything."""
        self._batches.close()
        self._files.close()

    async def read(self, request: web.Request) -> Call:
        """Read a request; the body of a GET is its query. Raises RefusalError."""
        if (request.method, request.path) == ("POST", "/v1/files"):
            return await self._files.read(request.path, request)
        if (request.method, request.path) == ("POST", "/v1/batches"):
            return read_json(request.path, await request.read())
        return call_of(request.path, dict(request.query))

    async def answer(self, method: str, call: Call, settings: Settings) -> Body | File:
        """Do what a call asks for; raises RefusalError if that is impossible.

        A File is answered with its content.
        """
        match [method, *call.path.split("/")[2:]]:
            case ["POST", "files"]:
                file = self._files.create(call)
                self._stats.uploads += 1
                return file.as_json()
            case ["GET", "files"]:
                return self._files.listed(call.body)
            case ["GET", "files", file_id]:
                return self._files.get(file_id).as_json()
            case ["GET", "files", file_id, "content"]:
                return self._files.get(file_id)
            case ["DELETE", "files", file_id]:
                return self._files.delete(file_id)
            case ["POST", "batches"]:
                batch = await self._batches.create(call, settings)
                self._stats.batches += 1
                return batch
            case ["GET", "batches"]:
                return await self._batches.listed(call.body)
            case ["GET", "batches", batch_id]:
                return await self._batches.retrieve(batch_id)
            case ["POST", "batches", batch_id, "cancel"]:
                return await self._batches.cancel(batch_id)
        raise RefusalError(404, f"Invalid URL ({method} {call.path})")
