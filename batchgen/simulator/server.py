"""The server: sockets, and the order in which a request is read, charged, checked and answered."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType

from aiohttp import web

from batchgen.errors import InputError
from batchgen.simulator import answers
from batchgen.simulator.batches.batch import FateOf, Reply
from batchgen.simulator.batches.files import File, Files
from batchgen.simulator.batches.lifecycle import Batches
from batchgen.simulator.batches.resources import Resources, methods
from batchgen.simulator.calls import Body, Call
from batchgen.simulator.draws import FaultDraws, Script
from batchgen.simulator.endpoints import ENDPOINTS, MODELS, checked_key, route
from batchgen.simulator.faults import SPOILING, canned, misbehave
from batchgen.simulator.limits import Limits
from batchgen.simulator.loopback import check_loopback, refuse_other_hosts
from batchgen.simulator.refusals import RefusalError
from batchgen.simulator.settings import Settings
from batchgen.simulator.stats import Received, Stats

# Sixteen pictures of 50 MB and their form.
LARGEST_BODY = 17 * 50 * 1024 * 1024

# Bytes of a file that a spoiled download reads.
_SPOILED = 1024 * 1024


class Simulator:
    """An OpenAI-compatible server on loopback.

    `async with Simulator(settings) as simulator` starts and stops it. Its attributes:

    settings: may be replaced while it runs; changed limits start afresh
    requests: counts (Stats)
    log: every request (Received) in order, if `record` is set; otherwise empty

    Its parameters:

    settings: what it simulates
    script: names a fault for a request or a line of a batch, or None to leave it to
        `settings.faults`; called on the event loop
    record: whether to keep every request in `log`
    fate: names what becomes of a new batch, or None to let it complete; called on the event loop
    clock: returns the Unix seconds by which batches proceed and files expire
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        script: Script | None = None,
        record: bool = False,
        fate: FateOf | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings or Settings()
        self._limits = _limits(self._settings)
        self._faults = FaultDraws(script)
        self._record = record
        self._runner: web.AppRunner | None = None
        self._url = ""
        self._request_prefix = f"req_sim_{secrets.token_hex(4)}"
        self.requests = Stats()
        self.log: list[Received] = []
        files = Files(clock)
        batches = Batches(
            files, answer=self._answer_line, endpoints=tuple(ENDPOINTS), clock=clock, fate=fate
        )
        self._resources = Resources(files, batches, self.requests)

    @property
    def settings(self) -> Settings:
        """What is simulated now."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        before, self._settings = self._settings, settings
        if (settings.rpm, settings.tpm, settings.ipm) != (before.rpm, before.tpm, before.ipm):
            self._limits = _limits(settings)

    @property
    def url(self) -> str:
        """The base URL to give a client, `http://127.0.0.1:PORT/v1`; empty until started."""
        return self._url

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen on `host`, a loopback address, at `port` (0: any free one).

        Raises InputError if that is impossible.
        """
        check_loopback(host)
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A request whose client is gone must not count as in flight.
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, backlog=4096)
            await site.start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            raise InputError(
                f"cannot listen on {host} port {port} ({error}); choose another port"
            ) from error
        self._runner = runner
        name, number = runner.addresses[0][:2]
        self._url = f"http://{f'[{name}]' if ':' in name else name}:{number}/v1"

    async def stop(self) -> None:
        """Close every connection at once, answered or not, and forget files and batches."""
        runner, self._runner, self._url = self._runner, None, ""
        if runner is not None:
            await runner.cleanup()
            self._resources.close()

    async def __aenter__(self) -> Simulator:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        started = time.monotonic()
        self.requests.arrive(request.path)
        headers = {"x-request-id": f"{self._request_prefix}{self.requests.received:08x}"}
        try:
            refuse_other_hosts(request.headers.get("Host"))
            response = await self._reply(request, headers)
        except RefusalError as refusal:
            response = self._refused(refusal, headers)
        finally:
            self.requests.in_flight -= 1
        if not response.prepared:
            response.headers["openai-processing-ms"] = str(
                round((time.monotonic() - started) * 1000)
            )
            response.headers.update(headers)
        return response

    async def _reply(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        """Handle one request from key to answer; adds the headers of its limits to `headers`."""
        settings = self._settings
        call, unreadable = await self._read(request)
        try:
            key = checked_key(request, settings.key)
            endpoint = route(request)
            if endpoint is not None:
                # Failed requests count against the limits too, so the charge comes before the
                # checks.
                headers.update(self._limits.admit(key, endpoint.cost(call)))
            if request.path == MODELS:
                self.requests.answered += 1
                return _response(answers.models())
            if call is None:
                assert unreadable is not None, "a call is read or refused"
                raise unreadable
            if endpoint is not None:
                uploads = await endpoint.checked(call)
                return await self._act(
                    request, call, partial(endpoint.answer, call, uploads), settings
                )
            answer = partial(self._resources.answer, request.method, call, settings)
            return await self._act(request, call, answer, settings)
        finally:
            if call is not None and call.spooled is not None:
                # The files store has moved it away if the upload was accepted.
                call.spooled.path.unlink(missing_ok=True)

    async def _read(self, request: web.Request) -> tuple[Call | None, RefusalError | None]:
        """The call, or why it cannot be read; recorded either way."""
        call, refusal = None, None
        try:
            endpoint = ENDPOINTS.get(request.path)
            if request.method == "POST" and endpoint is not None:
                call = await endpoint.read(request)
            elif request.method in methods(request.path):
                call = await self._resources.read(request)
        except RefusalError as error:
            refusal = error
        except web.HTTPRequestEntityTooLarge:
            refusal = RefusalError(413, "The request body is too large.")
        if self._record:
            headers = {name.lower(): value for name, value in request.headers.items()}
            body = call.body if call else None
            self.log.append(
                Received(method=request.method, path=request.path, headers=headers, body=body)
            )
        return call, refusal

    async def _act(
        self,
        request: web.Request,
        call: Call,
        answer: Callable[[], Awaitable[Body | File]],
        settings: Settings,
    ) -> web.StreamResponse:
        """Wait as long as an answer takes, then give it, or the fault that this request meets.

        request, call: the request, raw and read
        answer: does what is asked, and makes the answer
        settings: as they were when the request arrived
        """
        draw = self._faults.draw(request.method, call, settings)
        if settings.latency:
            await asyncio.sleep(settings.latency * (0.75 + draw.dice.jitter / 2))
        if draw.fault is None:
            response = _response(await answer())
            self.requests.answered += 1
            return response
        self.requests.faults[draw.fault] += 1
        # The server does what was asked before it spoils the answer.
        body = _first_bytes(await answer()) if draw.fault in SPOILING else b""
        return await misbehave(draw.fault, draw.seen, request, body, settings.hang)

    async def _answer_line(self, path: str, body: Body) -> Reply:
        """The reply to one line of a batch."""
        reply = await self._reply_to_line(path, body)
        # Counted last: if the client that polls disconnects meanwhile, the next poll answers the
        # line again.
        self.requests.lines += 1
        return reply

    async def _reply_to_line(self, path: str, body: Body) -> Reply:
        """As online, without limits and latency; a broken connection is a line without answer."""
        settings, endpoint = self._settings, ENDPOINTS[path]
        try:
            call = endpoint.from_line(path, body)
            uploads = await endpoint.checked(call)
        except RefusalError as refusal:
            return Reply(status=refusal.status, body=json.loads(refusal.body))
        draw = self._faults.draw("POST", call, settings)
        if draw.fault is None:
            return Reply(status=200, body=await endpoint.answer(call, uploads))
        self.requests.faults[draw.fault] += 1
        faulty = canned(draw.fault, draw.seen)
        if faulty is not None and faulty.body.startswith(b"{"):
            return Reply(status=faulty.status, body=json.loads(faulty.body))
        message = f"The request failed: {draw.fault} (simulated)."
        return Reply(status=0, body={"code": "server_error", "message": message})

    def _refused(self, refusal: RefusalError, headers: dict[str, str]) -> web.Response:
        self.requests.limited += refusal.status == 429
        self.requests.refused += refusal.status != 429
        headers.update(refusal.headers)
        return web.Response(
            status=refusal.status, body=refusal.body, content_type="application/json"
        )


def _limits(settings: Settings) -> Limits:
    return Limits(rpm=settings.rpm, tpm=settings.tpm, ipm=settings.ipm)


def _response(answer: Body | File) -> web.StreamResponse:
    if isinstance(answer, File):
        return web.FileResponse(answer.path, headers={"Content-Type": "application/octet-stream"})
    return web.Response(body=json.dumps(answer).encode(), content_type="application/json")


def _first_bytes(answer: Body | File) -> bytes:
    """The bytes of an answer to be spoiled; of a file only the first."""
    if isinstance(answer, File):
        with answer.path.open("rb") as file:
            return file.read(_SPOILED)
    return json.dumps(answer).encode()
