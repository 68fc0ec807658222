"""A reply that no reader expects fails its row and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hostile import Behaviour, Hostile, http
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import Lab, Server
from virtual import Memory, Run, Scripted, request

from batchgen.dispatch import Failure, Received
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.api.redaction import Redaction
from batchgen.dispatch.api.replies import read_reply
from batchgen.errors import OutputError
from batchgen.kinds import KINDS
from batchgen.requests import Request

RESPONSE: dict[str, Any] = {
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "fine"}]}],
}


def test_a_type_that_is_a_list_ends_no_run(lab: Lab) -> None:
    """P18 One reply of a hundred has a list where a name belongs: the others are answered, each
    asked once."""
    odd = {"type": ["message"], "content": []}

    def script(n: int) -> Behaviour:
        prompt = server.requests[n - 1]
        body = {**RESPONSE, "output": [odd]} if b"answer 50" in prompt else RESPONSE
        return http(200, body)

    server = Hostile(script)
    thread = Server(server.start, server.stop)
    try:
        job = lab.job(
            server.url,
            rows=100,
            kind="text",
            request={"model": "gpt-5.6-luna", "input": "{{ text }}"},
            retry={"attempts": 1},
        )
        report = lab.go(job)
    finally:
        thread.close()
    assert len(server.requests) == 100
    # An item of no known type is no text.
    assert (report.exit_code, report.rows) == (3, {"succeeded": 99, "incomplete": 1})


class Broken(Memory):
    """A recorder whose reader raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(Run())
        self._error = error

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        raise self._error


def read(recorder: Memory, body: bytes) -> Received | Failure:
    """A reply with this body, as the online backend reads it."""
    reply = Redaction(None).reply(Reply(headers={}, body=body))
    transport = Scripted(Run(), lambda request, count: reply)
    return asyncio.run(read_reply(recorder, transport, request("r"), reply))


@pytest.mark.parametrize(
    "error", [TypeError("unhashable"), KeyError("x"), OverflowError(), ZeroDivisionError()]
)
def test_whatever_reading_raises_is_a_failure(error: Exception) -> None:
    """P18 An exception of a reader is the row's failure, which says that it may have cost money."""
    failure = read(Broken(error), b"{}")
    assert isinstance(failure, Failure)
    assert (failure.meaning, failure.reason) == ("transient", "invalid_response")
    assert failure.may_be_billed
    assert type(error).__name__ in failure.message


def test_a_full_disk_is_not_the_rows_fault() -> None:
    """The other side: what cannot be written stops the run."""
    with pytest.raises(OutputError):
        read(Broken(OutputError("the disk is full")), b"{}")


def test_an_answer_is_still_an_answer() -> None:
    """The other side: a sound reply is read."""
    assert isinstance(
        read(Memory(Run()), b'{"choices": [{"message": {"content": "x"}}]}'), Received
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "choices",
    "output",
    "data",
    "results",
    "usage",
    "error",
    "model",
    "service_tier",
    "status",
    "type",
    "content",
    "text",
    "message",
    "index",
    "finish_reason",
    "refusal",
    "tool_calls",
    "flagged",
    "categories",
    "embedding",
    "b64_json",
    "path",
    "url",
    "audio",
    "incomplete_details",
    "reason",
    "prompt_tokens_details",
    "completion_tokens_details",
]
SHAPED = st.recursive(
    JSON,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(kind=st.sampled_from(sorted(KINDS)), body=st.dictionaries(st.sampled_from(FIELDS), SHAPED))
def test_no_reader_raises(kind: str, body: dict[str, Any]) -> None:
    """P18 Whatever stands at the names that readers know, reading ends as an answer or failure."""

    class Reader(Memory):
        async def receive(
            self, request: Request, body: Mapping[str, Any], reply: bytes
        ) -> Received:
            return Received(answer=KINDS[kind].read(body, {}), reply=reply)

    result = read(Reader(Run()), json.dumps(body).encode())
    assert isinstance(result, Received | Failure)
