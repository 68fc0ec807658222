"""What batchgen relies on in the openai package and its transport, so that an upgrade that breaks
it is found here."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from hostile import Hostile, http
from lab import KEY, serving

import batchgen
from batchgen.dispatch import Failure
from batchgen.dispatch.api.client import Client
from batchgen.dispatch.api.http import Reply
from batchgen.job import Connection
from batchgen.requests import Request, Upload
from batchgen.simulator import Received, Simulator

PICTURE = Path(__file__).parent.parent.parent / "jobs" / "pictures" / "mug.png"
BODY = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "ECHO:hi"}]}


def link(api: Simulator, **parts: Any) -> Connection:
    """A connection to a simulated API."""
    fields: dict[str, Any] = {"organization": None, "project": None, "headers": {}, **parts}
    return Connection(base_url=api.url, provider_id=api.url, **fields)


def request(**parts: Any) -> Request:
    """A chat request; `parts` replace its fields."""
    fields = {
        "fingerprint": b"k",
        "endpoint": "/chat/completions",
        "body": BODY,
        "input_bound": 1,
        "answer_bound": 1,
        "pictures": 0,
    }
    return Request(**{**fields, **parts})


def sent(connection: Connection, what: Request, key: str | None = KEY) -> Reply | Failure:
    """The answer to one request, sent as a run sends it."""

    async def send() -> Reply | Failure:
        async with Client(connection, key, connections=2) as client:
            return await client.post(what)

    return asyncio.run(send())


def recorded(act: Callable[[Simulator], Any], **script: Any) -> list[Received]:
    """What a server received while `act` ran."""
    with serving(record=True, **script) as api:
        act(api)
        return list(api.log)


def test_post_takes_what_we_give() -> None:
    """`AsyncOpenAI.post(path, cast_to=, body=, files=, options=)` is public and has these names."""
    parameters = inspect.signature(openai.AsyncOpenAI.post).parameters
    assert {"path", "cast_to", "body", "files", "options"} <= set(parameters)


def test_cast_to_response_is_the_reply_itself() -> None:
    """With `cast_to=httpx2.Response` the reply comes as it is: nothing is parsed, nothing of it is
    lost."""
    with serving() as api:
        reply = sent(link(api), request())
    assert isinstance(reply, Reply)
    assert json.loads(reply.body)["choices"][0]["message"]["content"] == "hi"
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize("fault", ["429", "500", "503", "reset", "401"])
def test_no_retries_of_its_own(fault: str) -> None:
    """P46 With max_retries=0 one call is one request, whatever happens to it: retries are
    batchgen's, and are counted."""
    log = recorded(lambda api: sent(link(api), request()), script=lambda info: fault)
    assert len(log) == 1
    assert log[0].headers.get("x-stainless-retry-count", "0") == "0"


def test_no_idempotency_key_is_promised() -> None:
    """The client sends no idempotency key, which is why a call may happen twice; should it do so
    one day, use it."""
    (received,) = recorded(lambda api: sent(link(api), request()))
    assert "idempotency-key" not in received.headers


def test_the_headers_that_a_job_names() -> None:
    """Key, organisation, project and the job's own headers go with each request."""
    connection = {"organization": "org-1", "project": "proj-1", "headers": {"X-Team": "shop"}}
    (received,) = recorded(lambda api: sent(link(api, **connection), request()))
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["openai-organization"] == "org-1"
    assert received.headers["openai-project"] == "proj-1"
    assert received.headers["x-team"] == "shop"
    assert received.body == BODY


def lines(raw_request: bytes) -> tuple[bytes, set[bytes], bytes]:
    """A request as it came over the wire: its first line, its headers but for the connection's own,
    its body."""
    head, _, body = raw_request.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    named = [line.partition(b":") for line in headers]
    return (
        first,
        {name.lower() + b":" + value for name, _, value in named if name.lower() != b"connection"},
        body,
    )


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("endpoint", ["/chat/completions", "/embeddings"])
def test_plain_json_goes_out_as_the_client_would_send_it(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, proxied: bool
) -> None:
    """What is sent on a prepared route is, to the byte, what the client sends itself: method, path,
    headers, body; also through a proxy, and also for the second request."""
    body = {
        "model": "m",
        "x": [1.0, 1e100, None, True],
        "text": "é 中 \u2028 \U0001f600 \x00 </",
        "n": {"b": 1, "a": 2},
    }

    async def run() -> list[bytes]:
        async with Hostile(lambda n: http(200, b"{}")) as server:
            for name in ("HTTP_PROXY", "http_proxy"):
                monkeypatch.setenv(
                    name, server.url.replace("http://", "http://user:word@") if proxied else ""
                )
            address = Connection(
                base_url="http://localhost:9/a b" if proxied else f"{server.url}/a b",
                provider_id="x",
                organization="org-1",
                project=None,
                headers={"X-Team": "shop", "OpenAI-Beta": "x"},
            )
            async with Client(address, KEY, connections=1) as client:
                for _ in range(2):
                    assert isinstance(
                        await client.post(request(endpoint=endpoint, body=body)), Reply
                    )
                await client._sdk_post(endpoint, body)
            return server.requests

    first, second, own = (lines(raw_request) for raw_request in asyncio.run(run()))
    for mine, theirs in zip((*first, *second), (*own, *own), strict=True):
        assert mine == theirs
    assert own[0].startswith(b"POST http://localhost:9/a%20b/" if proxied else b"POST /v1/a%20b/")
    assert any(line.startswith(b"proxy-authorization: ") for line in own[1]) == proxied


def test_a_route_is_prepared_anew_after_a_401() -> None:
    """What the client says of itself is not kept beyond a refusal of it; other refusals prove
    nothing of the kind."""
    statuses = [200, 400, 401, 200]

    async def run() -> list[bool]:
        async with Hostile(lambda n: http(statuses[n - 1], b"{}")) as server:
            address = Connection(
                base_url=server.url, provider_id="x", organization=None, project=None, headers={}
            )
            async with Client(address, KEY, connections=1) as client:
                return [bool(await client.post(request()) and client._routes) for _ in statuses]

    assert asyncio.run(run()) == [True, True, False, True]


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
def test_the_headers_that_no_job_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """OPENAI_CUSTOM_HEADERS, which the client would add to every request, is silenced; the key's
    header stays ours."""
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Sneaky: 1\nX-More: 2\n{name}: Bearer sk-other")
    (received,) = recorded(lambda api: sent(link(api), request()))
    assert not {"x-sneaky", "x-more"} & set(received.headers)
    assert received.headers["authorization"] == f"Bearer {KEY}"


def test_a_server_without_keys_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """P40 `api_key_env: null` sends no Authorization, whatever key the environment has."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    (received,) = recorded(lambda api: sent(link(api), request(), None))
    assert "authorization" not in received.headers
    assert "sk-of-somebody-else" not in str(received.headers)


def test_an_edit_is_multipart() -> None:
    """Files go as form fields under the names that the API reads, with file name and type; the rest
    as plain fields."""
    content = PICTURE.read_bytes()
    upload = {
        "path": str(PICTURE),
        "name": "mug.png",
        "media_type": "image/png",
        "sha256": sha256(content).hexdigest(),
    }
    edit = request(
        endpoint="/images/edits",
        body={"model": "gpt-image-2", "prompt": "blue"},
        uploads=(Upload(field="image[]", **upload), Upload(field="image[]", **upload)),
        pictures=1,
    )
    (received,) = recorded(lambda api: sent(link(api), edit))
    assert received.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert received.body is not None
    assert received.body["prompt"] == "blue"
    assert str(received.body).count(f"sha256:{upload['sha256']}") == 2


def test_no_private_name_is_used() -> None:
    """The package imports no private module or name of openai, httpx2 or aiohttp, so that any newer
    release may change them."""
    libraries = "openai|httpx2|httpcore2|aiohttp"
    private = re.compile(rf"\b({libraries})(\.\w+)*\._|from ({libraries})\S* import .*\b_")
    for path in sorted(Path(batchgen.__file__).parent.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        uses = [line for line in lines if private.search(line)]
        assert not uses, f"{path.name} uses a private name of a library: {uses[0]}"


def test_a_copied_client_sends_through_another_http_client() -> None:
    """`AsyncOpenAI.copy(http_client=...)`, which records a route, keeps headers and URL and sends
    nothing itself."""
    requests: list[httpx2.Request] = []

    def record(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, json={})

    async def run() -> None:
        headers: dict[str, Any] = {"X-Team": "shop", "OpenAI-Organization": openai.omit}
        sdk = openai.AsyncOpenAI(
            api_key=KEY,
            base_url="http://api.test/v1",
            organization="org-1",
            default_headers=headers,
        )
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(record)) as recorder:
            await sdk.copy(http_client=recorder).post("/x", cast_to=httpx2.Response, body={})
        await sdk.close()

    asyncio.run(run())
    (sent,) = requests
    assert (str(sent.url), sent.headers["x-team"]) == ("http://api.test/v1/x", "shop")
    assert "openai-organization" not in sent.headers, "openai.omit no longer removes a header"


def test_a_status_error_holds_its_response() -> None:
    """Refusals come as APIStatusError with the whole response, from which the failure is
    classified."""
    assert issubclass(openai.APIStatusError, openai.APIError)
    with serving(script=lambda info: "400_policy") as api:
        failure = sent(link(api), request())
    assert isinstance(failure, Failure)
    assert (failure.status, failure.code) == (400, "content_policy_violation")
    assert failure.request_id
