"""The server: sockets, routes, and the order in which a request is read, charged, checked, spoiled and answered."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import json
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from aiohttp import web

from batchgen.errors import InputError
from batchgen.simulator import answers, checks
from batchgen.simulator.batches.files import File, Files
from batchgen.simulator.batches.lifecycle import Batches, FateOf, Reply
from batchgen.simulator.batches.resources import Resources, methods
from batchgen.simulator.calls import (
    Body,
    Call,
    Pictures,
    call_of,
    open_pictures,
    read_form,
    read_json,
    read_references,
)
from batchgen.simulator.faults import FAULTS, SPOILING, Dice, canned, misbehave, roll
from batchgen.simulator.limits import Cost, Limits
from batchgen.simulator.refusals import INVALID, RefusalError, no_key, wrong_key
from batchgen.simulator.settings import Settings
from batchgen.simulator.stats import Received, RequestInfo, Stats
from batchgen.simulator.texts import UNBOUNDED_ANSWER, most_tokens, prompt_tokens

# Sixteen pictures of 50 MB and their form.
LARGEST_BODY = 17 * 50 * 1024 * 1024

# Bytes of a file that are sent when its download is spoiled.
_SPOILED = 1024 * 1024

_TEXT = "text"
_PICTURE = "picture"
_EDIT = "edit"


Script = Callable[[RequestInfo], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoint:
    kind: str
    check: Callable[[Body], None]
    answer: Callable[[Call], Body]


_ENDPOINTS = {
    "/v1/chat/completions": _Endpoint(kind=_TEXT, check=checks.chat, answer=answers.chat),
    "/v1/responses": _Endpoint(kind=_TEXT, check=checks.responses, answer=answers.responses),
    "/v1/completions": _Endpoint(kind=_TEXT, check=checks.completions, answer=answers.completions),
    "/v1/embeddings": _Endpoint(kind="", check=checks.embeddings, answer=answers.embeddings),
    "/v1/moderations": _Endpoint(kind="", check=checks.moderations, answer=answers.moderations),
    "/v1/images/generations": _Endpoint(kind=_PICTURE, check=checks.images, answer=answers.images),
    "/v1/images/edits": _Endpoint(kind=_EDIT, check=checks.images, answer=answers.images),
}

_MODELS = "/v1/models"


class Simulator:
    """An OpenAI-compatible server on loopback; `async with Simulator(settings) as simulator` starts and stops it.

    settings: may be replaced while it runs; changed limits start afresh
    requests: counts (Stats)
    log: every request (Received) in order, when `record` is set; otherwise empty
    script: names a fault for a request or a line of a batch, or None to leave it to `settings.faults`; called on the
        event loop
    fate: names what becomes of a batch that is created, or None to let it complete; called on the event loop
    clock: Unix seconds by which batches go on and files expire
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
        self._script = script
        self._record = record
        self._runner: web.AppRunner | None = None
        self._url = ""
        self._seen: Counter[str] = Counter()
        self._admitted = itertools.count(1)
        self._request_prefix = f"req_sim_{secrets.token_hex(4)}"
        self.requests = Stats()
        self.log: list[Received] = []
        files = Files(clock)
        batches = Batches(
            files, answer=self._answer_line, endpoints=tuple(_ENDPOINTS), clock=clock, fate=fate
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
        """Listen on `host`, a loopback address, at `port` (0: any free one); raises InputError when that cannot be."""
        _check_loopback(host)
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A request whose client has gone must not go on counting as in flight.
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
        address = runner.addresses[0]
        self._url = (
            f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}/v1"
        )

    async def stop(self) -> None:
        """Close every connection at once, answered or not, and forget files and batches. Does nothing when not started."""
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
        """The whole way of one request; what it learns for the `headers` is added to them."""
        settings = self._settings
        call, unreadable = await self._read(request)
        try:
            key = _checked_key(request, settings.key)
            endpoint = _routed(request)
            if endpoint is not None:
                # Failed requests count against the limits too, so the charge comes before the checks.
                headers.update(self._limits.admit(key, _cost(endpoint, call)))
            if request.path == _MODELS:
                self.requests.answered += 1
                return _sent(answers.models())
            if call is None:
                assert unreadable is not None, "a call is read or refused"
                raise unreadable
            if endpoint is not None:
                endpoint.check(call.body)
                uploads = await open_pictures(call) if endpoint.kind == _EDIT else None
                return await self._act(
                    request, call, partial(_answer, endpoint, call, uploads), settings
                )
            answer = partial(self._resources.answer, request.method, call, settings)
            return await self._act(request, call, answer, settings)
        finally:
            if call is not None and call.spooled is not None:
                # Gone already when it was taken.
                call.spooled.path.unlink(missing_ok=True)

    async def _read(self, request: web.Request) -> tuple[Call | None, RefusalError | None]:
        """The call, or why it cannot be read; recorded either way."""
        call, refusal = None, None
        try:
            endpoint = _ENDPOINTS.get(request.path)
            if request.method == "POST" and endpoint is not None:
                call = await _read_call(request, endpoint)
            elif request.method in methods(request.path):
                call = await self._resources.read(request)
        except RefusalError as error:
            refusal = error
        except web.HTTPRequestEntityTooLarge:
            refusal = RefusalError(413, "The request body is too large.")
        if self._record:
            named = {name.lower(): value for name, value in request.headers.items()}
            self.log.append(
                Received(
                    method=request.method,
                    path=request.path,
                    headers=named,
                    body=call.body if call else None,
                )
            )
        return call, refusal

    async def _act(
        self,
        request: web.Request,
        call: Call,
        answer: Callable[[], Awaitable[Body | File]],
        settings: Settings,
    ) -> web.StreamResponse:
        """Wait as long as an answer takes, then give it or the fault that this request meets."""
        seen = self._count(call, settings)
        dice = roll(settings.seed, call.digest, seen)
        fault = self._fault(request.method, call, seen, dice, settings)
        if settings.latency:
            await asyncio.sleep(settings.latency * (0.75 + dice.jitter / 2))
        if fault is None:
            sent = _sent(await answer())
            self.requests.answered += 1
            return sent
        self.requests.faults[fault] += 1
        faulty = canned(fault, seen)
        if faulty is not None:
            return web.Response(
                status=faulty.status,
                body=faulty.body,
                content_type=faulty.mime,
                headers=faulty.headers,
            )
        # What a spoiled answer tells of has happened all the same.
        body = _begun(await answer()) if fault in SPOILING else b""
        return await misbehave(fault, request, body, settings.hang)

    async def _answer_line(self, path: str, body: Body) -> Reply:
        """What a line of a batch gets."""
        reply = await self._reply_to_line(path, body)
        # Not before: whoever asks may go away meanwhile, and the line is answered for the next one.
        self.requests.lines += 1
        return reply

    async def _reply_to_line(self, path: str, body: Body) -> Reply:
        """As online, but for limits and latency; a broken connection is no answer."""
        settings, endpoint = self._settings, _ENDPOINTS[path]
        try:
            call = read_references(path, body) if endpoint.kind == _EDIT else call_of(path, body)
            endpoint.check(call.body)
            uploads = await open_pictures(call) if endpoint.kind == _EDIT else None
        except RefusalError as refusal:
            return Reply(status=refusal.status, body=json.loads(refusal.body))
        seen = self._count(call, settings)
        fault = self._fault("POST", call, seen, roll(settings.seed, call.digest, seen), settings)
        if fault is None:
            return Reply(status=200, body=await _answer(endpoint, call, uploads))
        self.requests.faults[fault] += 1
        faulty = canned(fault, seen)
        if faulty is not None and faulty.body.startswith(b"{"):
            return Reply(status=faulty.status, body=json.loads(faulty.body))
        return Reply(
            status=0,
            body={"code": "server_error", "message": f"The request failed: {fault} (simulated)."},
        )

    def _fault(
        self, method: str, call: Call, seen: int, dice: Dice, settings: Settings
    ) -> str | None:
        """The fault that a call meets, if any."""
        fault = self._scripted(method, call, seen)
        if fault is None and dice.fault < settings.faults and settings.fault_kinds:
            fault = settings.fault_kinds[int(dice.kind * len(settings.fault_kinds))]
        return fault

    def _count(self, call: Call, settings: Settings) -> int:
        """How many times this request came, this one included; 1 where nothing hangs on it."""
        # Without faults a million different requests must not cost a million entries.
        if self._script is None and not settings.faults:
            return 1
        self._seen[call.digest] += 1
        return self._seen[call.digest]

    def _scripted(self, method: str, call: Call, seen: int) -> str | None:
        number = next(self._admitted)
        if self._script is None:
            return None
        fault = self._script(
            RequestInfo(n=number, method=method, path=call.path, body=call.body, seen=seen)
        )
        if fault is not None and fault not in FAULTS:
            raise ValueError(
                f"the script named an unknown fault {fault!r}; known are {', '.join(FAULTS)}"
            )
        return fault

    def _refused(self, refusal: RefusalError, headers: dict[str, str]) -> web.Response:
        if refusal.status == 429:
            self.requests.limited += 1
        else:
            self.requests.refused += 1
        headers.update(refusal.headers)
        return web.Response(
            status=refusal.status, body=refusal.body, content_type="application/json"
        )


async def serve(settings: Settings, port: int, ready: Callable[[str], None] | None = None) -> None:
    """Run a simulator on 127.0.0.1 at `port` until cancelled; `ready` is told its URL as soon as it listens.

    Raises InputError when the port cannot be had.
    """
    simulator = Simulator(settings)
    await simulator.start(port=port)
    try:
        if ready is not None:
            ready(simulator.url)
        await asyncio.Event().wait()
    finally:
        await simulator.stop()


def _limits(settings: Settings) -> Limits:
    return Limits(rpm=settings.rpm, tpm=settings.tpm, ipm=settings.ipm)


def _check_loopback(host: str) -> None:
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise InputError(f"the simulator listens on loopback only, not on {host}; use 127.0.0.1")


def _checked_key(request: web.Request, wanted: str | None) -> str:
    """The bearer key that the request came with, '' without one; raises RefusalError when another is wanted."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    key = key.strip() if scheme.lower() == "bearer" else ""
    if wanted is None or secrets.compare_digest(key.encode("utf-8", "replace"), wanted.encode()):
        return key
    raise wrong_key(key) if key else no_key()


def _routed(request: web.Request) -> _Endpoint | None:
    """The endpoint that a request goes to; None for models, files and batches. Raises RefusalError for any other place."""
    path, method = request.path, request.method
    endpoint = _ENDPOINTS.get(path)
    wanted = ("POST",) if endpoint is not None else ("GET",) if path == _MODELS else methods(path)
    if not wanted:
        raise RefusalError(404, f"Invalid URL ({method} {path})")
    if method not in wanted:
        raise RefusalError(
            405,
            f"Not allowed to {method} on {path} (HINT: use {' or '.join(wanted)})",
            kind=INVALID,
        )
    return endpoint


def _cost(endpoint: _Endpoint, call: Call | None) -> Cost:
    """What the limits charge; a body that cannot be read costs a request and nothing more."""
    if call is None:
        return Cost(model="unknown", tokens=0)
    wanted: Any = call.body.get("n")
    choices = wanted if isinstance(wanted, int) and 0 < wanted <= checks.MOST_CHOICES else 1
    spent = prompt_tokens(call.body)
    if endpoint.kind == _TEXT:
        bound = most_tokens(call.body)
        spent += (UNBOUNDED_ANSWER if bound is None else bound) * choices
    images = choices if endpoint.kind in (_PICTURE, _EDIT) else 0
    return Cost(model=str(call.body.get("model")), tokens=spent, images=images)


async def _read_call(request: web.Request, endpoint: _Endpoint) -> Call:
    """What is asked: JSON, for an edit of pictures a form or JSON; raises RefusalError."""
    if endpoint.kind == _EDIT and request.content_type != "application/json":
        return await read_form(request.path, request)
    call = read_json(request.path, await request.read())
    return read_references(request.path, call.body) if endpoint.kind == _EDIT else call


async def _answer(endpoint: _Endpoint, call: Call, uploads: Pictures | None) -> Body:
    """The true answer; pictures are drawn in a thread."""
    if endpoint.kind in (_PICTURE, _EDIT):
        return await asyncio.to_thread(answers.images, call, uploads)
    return endpoint.answer(call)


def _sent(answer: Body | File) -> web.StreamResponse:
    if isinstance(answer, File):
        return web.FileResponse(answer.path, headers={"Content-Type": "application/octet-stream"})
    return web.Response(body=json.dumps(answer).encode(), content_type="application/json")


def _begun(answer: Body | File) -> bytes:
    """An answer to be spoiled; of a file its beginning will do."""
    if isinstance(answer, File):
        with answer.path.open("rb") as file:
            return file.read(_SPOILED)
    return json.dumps(answer).encode()
