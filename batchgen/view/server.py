"""The server of `batchgen view`."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from batchgen.errors import DamagedError, InputError, OutputError
from batchgen.job import Job
from batchgen.job.provider import is_loopback
from batchgen.journal import Wanted
from batchgen.view.source import Source

HOST = "127.0.0.1"

# Cards that one reply may have.
MOST_CARDS = 2000

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def serve(
    job: Job,
    *,
    port: int = 0,
    simulate: bool = False,
    output: Path | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve a job's page until cancelled. Raises InputError, DamagedError.

    Args:
        job: the job; it must have been run.
        port: the port on 127.0.0.1 (0: any free one).
        simulate: show the simulated run.
        output: the folder that replaces the job's outputs folder.
        on_ready: called with the page's address, which holds the token.
    """
    source = Source(job, simulate=simulate, output=output)
    await asyncio.to_thread(source.page)  # a job that cannot be shown is an error at once
    token = secrets.token_urlsafe(16)
    runner = web.AppRunner(_application(source, token), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        try:
            await site.start()
        except OSError as error:
            raise InputError(
                f"cannot listen on {HOST} port {port} ({error.strerror}); choose another port"
            ) from None
        on_ready(f"http://{HOST}:{runner.addresses[0][1]}/{token}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _application(source: Source, token: str) -> web.Application:
    """The routes, all below the token."""

    async def page(request: web.Request) -> web.Response:
        html = await asyncio.to_thread(source.page)
        return web.Response(text=html, content_type="text/html", headers=_HEADERS)

    async def cards(request: web.Request) -> web.Response:
        query = request.query
        try:
            most = min(MOST_CARDS, int(query.get("limit", "50")))
        except ValueError:
            raise web.HTTPBadRequest(text="limit is not a number") from None
        wanted = Wanted(
            status=query.get("status", ""),
            reason=query.get("reason", ""),
            axes={
                name.removeprefix("axis."): value
                for name, value in query.items()
                if name.startswith("axis.")
            },
            words=query.get("q", "").split(),
        )
        found = await asyncio.to_thread(source.cards, wanted, most)
        return web.json_response(found, headers=_HEADERS)

    async def picture(request: web.Request) -> web.StreamResponse:
        path = await asyncio.to_thread(source.picture, request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        # An SVG opened by itself must not run anything either.
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return web.FileResponse(path, headers={**_HEADERS, **policy})

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not _is_this_machine(request.host):
            raise web.HTTPMisdirectedRequest(text="This page has loopback names only.")
        given = request.match_info.get("token", "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise web.HTTPNotFound
        try:
            return await handler(request)
        except (DamagedError, InputError, OutputError) as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None

    application = web.Application(middlewares=[guard])
    application.router.add_get("/{token}/", page)
    application.router.add_get("/{token}/cards", cards)
    application.router.add_get("/{token}/images/{name}", picture)
    return application


def _is_this_machine(host: str) -> bool:
    """Whether a Host header names this machine: else a page elsewhere could read this one (DNS
    rebinding).
    """
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)
