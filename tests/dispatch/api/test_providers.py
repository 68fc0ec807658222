"""Each line of docs/providers.md, over a socket: what a provider sends is what the page says."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator
from typing import Any

import pytest
from hostile import CHAT, Hostile, http, ok
from lab import KEY, Lab, Server
from provider_forms import FINISH, FORMS, Form
from providers_page import becomes, does, outcome
from virtual import Memory, Run, request

from batchgen.dispatch import Failure, Received
from batchgen.dispatch.api.client import Client
from batchgen.dispatch.api.replies import read_reply
from batchgen.job import Connection

WORDS = [(provider, word) for provider, words in FINISH.items() for word in words]


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    """One server for all; a test sets what it sends."""
    hostile = Hostile(lambda n: ok())
    running = Server(hostile.start, hostile.stop)
    try:
        yield hostile
    finally:
        running.close()


def received(server: Hostile) -> Received | Failure:
    """What one call brings."""

    async def ask() -> Received | Failure:
        connection = Connection(
            provider_id="p", base_url=server.url, headers={}, organization=None, project=None
        )
        sent = request("r")
        async with Client(connection, KEY, connections=1, direct=True) as client:
            reply = await client.post(sent)
            if isinstance(reply, Failure):
                return reply
            return await read_reply(Memory(Run()), client, sent, reply)

    return asyncio.run(ask())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_an_error_of_a_provider(server: Hostile, form: Form) -> None:
    """P18 P22 P23 Whose fault it is, how long to wait, and the server's own words."""
    server.script = lambda n: http(form.status, form.body, form.headers)
    failure = received(server)
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason) == form.outcome == outcome(form)
    assert (failure.status, failure.retry_after) == (form.status, form.wait)
    assert failure.message
    assert not failure.message.startswith(("{", "[", "HTTP "))


@pytest.mark.parametrize(("provider", "word"), WORDS)
def test_a_finish_reason_of_a_provider(server: Hostile, provider: str, word: str) -> None:
    """P18 Whether the answer is whole, cut or none."""
    choice: dict[str, Any] = {**CHAT["choices"][0], "finish_reason": word}
    server.script = lambda n: http(200, {**CHAT, "choices": [choice]})
    result = received(server)
    if isinstance(result, Failure) or result.answer.broke_off:
        assert becomes(word) == ("asked again, then failed", "")
        return
    state = "succeeded" if result.answer.ended else "incomplete"
    assert becomes(word) == (state, f"`{result.answer.finish_reason}`")


def test_a_filtered_answer_without_a_message(server: Hostile) -> None:
    """P18 Gemini sends no message with an answer that it filtered whole: incomplete, not junk."""
    choice = {"index": 0, "finish_reason": "content_filter: PROHIBITED_CONTENT"}
    server.script = lambda n: http(200, {**CHAT, "choices": [choice]})
    result = received(server)
    assert isinstance(result, Received)
    assert (result.answer.ended, result.answer.finish_reason) == (False, "content_filter")


# One form of each outcome.
OUTCOMES = list({form.outcome: form for form in FORMS}.values())


@pytest.mark.parametrize("form", OUTCOMES, ids=lambda form: form.name)
def test_what_happens_is_what_the_page_says(server: Hostile, lab: Lab, form: Form) -> None:
    """P17 P23 A whole run in which the second of four requests meets each outcome."""
    count = len(server.requests)
    server.script = lambda n: http(form.status, form.body) if n == count + 2 else ok("answer")
    retry = {"attempts": 2, "max_wait": 0.01}
    report = lab.go(lab.job(server.url, rows=4, limits={"concurrency": 1}, retry=retry))
    states = [row["status"] for row in lab.table()]
    stops = form.outcome[0] == "account" and form.outcome[1] != "forbidden"
    assert ("stops with 4" in does(form.outcome)) == (form.outcome[0] == "account")
    if stops:
        assert (report.exit_code, states) == (4, ["succeeded", *["pending"] * 3])
    elif "sent again" in does(form.outcome):
        assert (report.exit_code, states) == (0, ["succeeded"] * 4)
    else:
        assert (report.exit_code, states) == (3, ["succeeded", "failed", *["succeeded"] * 2])
        with open(lab.output() / "errors.csv", encoding="utf-8-sig", newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["reason"], row["http_status"]) == (form.outcome[1], str(form.status))
