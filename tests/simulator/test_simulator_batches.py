"""The simulator's /files and /batches as the openai client sees them: every status, refusal and
file."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import tempfile
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch
from PIL import Image

from batchgen.errors import InputError
from batchgen.simulator import BatchInfo, Fate, RequestInfo, Settings, Simulator
from batchgen.simulator.batches import files, tasks

CHAT = "/v1/chat/completions"
KEY = "sk-canary-0123456789"
START = 1_800_000_000.0


@dataclass
class Clock:
    """Unix seconds that pass only when a test moves them."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Desk:
    """A simulator, its clock and the SDK's client of it."""

    simulator: Simulator
    client: openai.AsyncOpenAI
    clock: Clock = field(default_factory=Clock)

    async def upload(self, lines: Any) -> str:
        """The id of an uploaded file of lines: bytes unchanged, anything else as JSON."""
        raw = b"\n".join(
            line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines
        )
        return (await self.client.files.create(file=("requests.jsonl", raw), purpose="batch")).id

    async def create(self, lines: Any, endpoint: Any = CHAT, **options: Any) -> Batch:
        return await self.client.batches.create(
            input_file_id=await self.upload(lines),
            endpoint=endpoint,
            completion_window="24h",
            **options,
        )

    async def at(self, batch: Batch, seconds: float) -> Batch:
        """The batch so many seconds after the start."""
        self.clock.now = START + seconds
        return await self.client.batches.retrieve(batch.id)

    async def text(self, file_id: str | None) -> list[Any]:
        """The lines of a file, [] for none."""
        if file_id is None:
            return []
        return [
            json.loads(line)
            for line in (await self.client.files.content(file_id)).text.splitlines()
        ]


def talk(
    conversation: Callable[[Desk], Awaitable[Any]], settings: Settings | None = None, **options: Any
) -> Any:
    """Run `conversation` with a new simulator, whose batches take 0 seconds by default."""

    async def main() -> Any:
        clock = Clock()
        async with (
            Simulator(settings or Settings(batch_speed=0), clock=clock, **options) as simulator,
            openai.AsyncOpenAI(api_key=KEY, base_url=simulator.url, max_retries=0) as client,
        ):
            return await asyncio.wait_for(conversation(Desk(simulator, client, clock)), 120)

    return asyncio.run(main())


def task(name: str, text: str = "ECHO:hi", **more: Any) -> dict[str, Any]:
    body = {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": body, **more}


def several(count: int) -> list[dict[str, Any]]:
    return [task(f"r{n}", f"ECHO:answer {n}") for n in range(count)]


def content(line: Any) -> str:
    """The content of the model's message in a line of an output file."""
    text: str = line["response"]["body"]["choices"][0]["message"]["content"]
    return text


def stamps(batch: Batch) -> dict[str, float]:
    """The known times of a batch, in seconds after the start."""
    return {
        name: value - START for name, value in batch if name.endswith("_at") and value is not None
    }


# --- lifecycle ------------------------------------------------------------------------------------


def test_a_batch_goes_its_way_by_the_clock() -> None:
    """Each status comes at its time with its timestamp, the counts grow, and the end has output and
    usage."""

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(several(40), metadata={"run": "7"})
        assert (batch.status, batch.request_counts and batch.request_counts.total) == (
            "validating",
            0,
        )
        assert (await desk.at(batch, 9)).status == "validating"
        going = await desk.at(batch, 50)
        assert (going.status, going.model, going.output_file_id) == (
            "in_progress",
            "gpt-5.6-luna",
            None,
        )
        assert going.request_counts is not None
        assert (going.request_counts.total, going.request_counts.completed) == (40, 20)
        assert (await desk.at(batch, 95)).status == "finalizing"
        done = await desk.at(batch, 100)
        assert (done.status, done.error_file_id, done.errors, done.metadata) == (
            "completed",
            None,
            None,
            {"run": "7"},
        )
        assert stamps(done) == {
            "created_at": 0,
            "in_progress_at": 10,
            "finalizing_at": 90,
            "completed_at": 100,
            "expires_at": 86_400,
        }
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (40, 0)
        lines = await desk.text(done.output_file_id)
        assert sorted((line["custom_id"], content(line)) for line in lines) == sorted(
            (f"r{n}", f"answer {n}") for n in range(40)
        )
        assert all(
            line["error"] is None and line["response"]["status_code"] == 200 for line in lines
        )
        assert (
            len({line["id"] for line in lines})
            == len({line["response"]["request_id"] for line in lines})
            == 40
        )
        used = [line["response"]["body"]["usage"] for line in lines]
        assert done.usage is not None
        assert done.usage.input_tokens == sum(usage["prompt_tokens"] for usage in used)
        assert done.usage.output_tokens == sum(usage["completion_tokens"] for usage in used)
        assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
        stats = desk.simulator.requests
        assert (stats.uploads, stats.batches, stats.lines) == (1, 1, 40)

    talk(conversation, Settings(batch_speed=100))


def test_the_output_is_in_an_order_of_its_own() -> None:
    """The order of the output differs from the input's, and is the same for the same seed."""

    async def conversation(desk: Desk) -> list[str]:
        done = await desk.at(await desk.create(several(40)), 0)
        return [line["custom_id"] for line in await desk.text(done.output_file_id)]

    first = talk(conversation)
    assert first != [f"r{n}" for n in range(40)]
    assert first == talk(conversation)
    assert first != talk(conversation, Settings(batch_speed=0, seed=1))


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_takes_5_to_15_seconds(seed: int) -> None:
    """Without a speed a batch is not done before 5 seconds, and is after 15."""

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(several(2))
        assert (await desk.at(batch, 4.9)).status in ("in_progress", "finalizing")
        assert (await desk.at(batch, 15)).status == "completed"

    talk(conversation, Settings(seed=seed))


BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "n": 2},
    "/v1/responses": {"model": "m", "input": "Hello", "max_output_tokens": 3},
    "/v1/completions": {"model": "m", "prompt": ["one", "two"]},
    "/v1/embeddings": {"model": "m", "input": ["one", "two"], "dimensions": 8},
    "/v1/moderations": {"model": "m", "input": "not [policy] fine"},
    "/v1/images/generations": {"model": "m", "prompt": "fox", "size": "64x64"},
}


@pytest.mark.parametrize("endpoint", BODIES)
def test_a_line_is_answered_as_online(endpoint: str) -> None:
    """Equal bodies get the online answer in the output file, or the online refusal in the error
    file."""
    body = BODIES[endpoint]
    wrong = {
        name: value for name, value in body.items() if name not in ("messages", "input", "prompt")
    }

    async def conversation(desk: Desk) -> None:
        lines = [task("good", url=endpoint, body=body), task("bad", url=endpoint, body=wrong)]
        done = await desk.at(await desk.create(lines, endpoint), 0)
        [good], [bad] = await desk.text(done.output_file_id), await desk.text(done.error_file_id)
        assert (good["custom_id"], bad["custom_id"], bad["error"]) == ("good", "bad", None)
        path = endpoint.removeprefix("/v1")
        online = await desk.client.post(path, cast_to=object, body=body)
        with pytest.raises(openai.BadRequestError) as caught:
            await desk.client.post(path, cast_to=object, body=wrong)
        assert bad["response"]["status_code"] == 400
        assert bad["response"]["body"]["error"] == caught.value.body
        assert _timeless(good["response"]["body"]) == _timeless(online)
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (1, 1)

    talk(conversation)


def test_an_edit_has_its_pictures_as_data_urls() -> None:
    """An edit in a batch is the same as its form online; a picture that is not a data URL is
    refused."""

    def png(colour: Any) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGBA", (32, 32), colour).save(buffer, "PNG")
        return buffer.getvalue()

    picture, mask = png("navy"), png((0, 0, 0, 0))
    first, second = (
        {"image_url": f"data:image/png;base64,{base64.b64encode(raw).decode()}"}
        for raw in (picture, mask)
    )
    body: dict[str, Any] = {"model": "m", "prompt": "hat", "size": "64x64", "n": 1}
    url = "/v1/images/edits"

    async def conversation(desk: Desk) -> None:
        bodies = {
            "good": body | {"images": [first], "mask": second},
            "none": body,
            "link": body | {"images": [{"image_url": "https://example.com/a.png"}]},
            "junk": body | {"images": [{"image_url": "data:image/png;base64,***"}]},
        }
        done = await desk.at(
            await desk.create([task(name, url=url, body=bodies[name]) for name in bodies], url), 0
        )
        [good] = await desk.text(done.output_file_id)
        online = await desk.client.images.edit(
            image=("a.png", picture, "image/png"), mask=("b.png", mask, "image/png"), **body
        )
        assert good["response"]["body"]["data"] == [
            {"b64_json": online.data and online.data[0].b64_json}
        ]
        errors = {
            line["custom_id"]: line["response"] for line in await desk.text(done.error_file_id)
        }
        assert {name: response["status_code"] for name, response in errors.items()} == {
            "none": 400,
            "link": 400,
            "junk": 400,
        }

    talk(conversation)


def _timeless(answer: Any) -> Any:
    return {name: value for name, value in answer.items() if not name.startswith("created")}


def test_lines_meet_faults() -> None:
    """A fault with an HTTP status is that status in the error file; a broken connection has no
    response."""

    def script(request: RequestInfo) -> str | None:
        if request.path != CHAT:
            return None
        return {"a": "500", "b": "reset", "c": "429", "d": "200_error"}.get(
            request.body["messages"][0]["content"]
        )

    async def conversation(desk: Desk) -> None:
        done = await desk.at(await desk.create([task(name, name) for name in "abcde"]), 0)
        errors = {line["custom_id"]: line for line in await desk.text(done.error_file_id)}
        assert {
            name: line["response"] and line["response"]["status_code"]
            for name, line in errors.items()
        } == {"a": 500, "b": None, "c": 429}
        assert errors["c"]["response"]["body"]["error"]["code"] == "rate_limit_exceeded"
        assert errors["b"]["error"]["code"] == "server_error"
        assert {line["custom_id"] for line in await desk.text(done.output_file_id)} == {"d", "e"}
        assert desk.simulator.requests.faults == {"500": 1, "reset": 1, "429": 1, "200_error": 1}

    talk(conversation, script=script)


def test_a_file_that_would_be_empty_is_not_there() -> None:
    """A batch whose lines all failed is completed, with an error file and no output file."""

    async def conversation(desk: Desk) -> None:
        done = await desk.at(await desk.create([task("r", "[policy]")]), 0)
        assert (done.status, done.output_file_id) == ("completed", None)
        assert [line["custom_id"] for line in await desk.text(done.error_file_id)] == ["r"]

    talk(conversation)


# --- what is wrong with a file --------------------------------------------------------------------

WRONG: dict[str, tuple[list[Any], list[tuple[str, int | None]]]] = {
    "junk": ([task("a"), b"{broken", task("b")], [("invalid_json_line", 2)]),
    "no object": ([b"[1]"], [("invalid_json_line", 1)]),
    "nan": ([b'{"custom_id": NaN}'], [("invalid_json_line", 1)]),
    "blank": ([task("a"), b"", task("b")], [("invalid_json_line", 2)]),
    "deep": ([b"[" * 100_000], [("invalid_json_line", 1)]),
    "twice": (
        [task("a"), task("b"), task("a"), task("a")],
        [("duplicate_custom_id", 3), ("duplicate_custom_id", 4)],
    ),
    "url": ([task("a"), task("b", url="/v1/responses")], [("url_mismatch", 2)]),
    "method": ([task("a", method="GET")], [("invalid_method", 1)]),
    "models": (
        [task("a"), task("b", body={"model": "other", "messages": []})],
        [("model_mismatch", 2)],
    ),
    "no id": ([{"method": "POST", "url": CHAT, "body": {}}], [("missing_required_parameter", 1)]),
    "id": ([task("a") | {"custom_id": 7}], [("invalid_type", 1)]),
    "body": ([task("a", body="x")], [("invalid_type", 1)]),
    "empty": ([], [("empty_file", None)]),
    "many": (
        [b"{}"] * (tasks.MOST_TASKS + 1),
        [("missing_required_parameter", n) for n in range(1, 101)],
    ),
    "several": (
        [task("a"), b"x", task("a", url="/v1/x", method="PUT")],
        [
            ("invalid_json_line", 2),
            ("duplicate_custom_id", 3),
            ("invalid_method", 3),
            ("url_mismatch", 3),
        ],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_fails_its_batch(case: str) -> None:
    """An invalid file is accepted, and so is its batch, which fails and names lines and codes;
    nothing is answered."""
    lines, expected = WRONG[case]

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(lines)
        assert (batch.status, batch.errors) == ("validating", None)
        failed = await desk.at(batch, 0)
        assert failed.status == "failed"
        assert failed.errors is not None
        assert failed.errors.data is not None
        assert [(error.code, error.line) for error in failed.errors.data] == expected
        assert all(error.message for error in failed.errors.data)
        assert (failed.output_file_id, failed.error_file_id, failed.failed_at) == (
            None,
            None,
            START,
        )
        assert failed.request_counts is not None
        assert (failed.request_counts.total, desk.simulator.requests.lines) == (0, 0)

    talk(conversation)


@pytest.mark.parametrize(
    ("count", "endpoint", "body"),
    [
        (tasks.MOST_TASKS, CHAT, {"model": "m"}),
        (tasks.MOST_TASKS // 2000, "/v1/embeddings", {"model": "m", "input": ["x"] * 2000}),
        (2, "/v1/embeddings", {"model": "m", "input": list(range(tasks.MOST_TASKS))}),
    ],
    ids=["lines", "inputs", "token ids of one input"],
)
def test_as_many_tasks_as_are_taken(
    tmp_path: Path, count: int, endpoint: str, body: dict[str, Any]
) -> None:
    """A file may have 50,000 lines, and for embeddings 50,000 inputs, but not one more."""

    def errors(lines: int) -> list[Any]:
        path = tmp_path / "tasks.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(
                json.dumps(task(f"r{n}", url=endpoint, body=body)) + "\n" for n in range(lines)
            )
        return [error["code"] for error in asyncio.run(tasks.read_tasks(path, endpoint)).errors]

    assert errors(count) == []
    assert errors(count + 1) == ([] if count == 2 else ["too_many_tasks"])


def test_a_queue_that_is_full_fails_a_batch() -> None:
    """Unfinished batches hold their tokens in the model's queue; a batch that exceeds it fails, and
    fits when one of them has ended."""

    async def conversation(desk: Desk) -> None:
        lines = [task("r", "x" * 400)]
        first, second = await desk.create(lines), await desk.create(lines)
        other = await desk.create([task("r", body={**lines[0]["body"], "model": "other"})])
        failed = await desk.at(second, 10)
        assert failed.errors is not None
        assert failed.errors.data is not None
        assert [(error.code, error.line, error.param) for error in failed.errors.data] == [
            ("token_limit_exceeded", None, None)
        ]
        assert str(failed.errors.data[0].message).startswith(
            "Enqueued token limit reached for gpt-5.6-luna"
        )
        assert (await desk.at(other, 100)).status == "completed"
        assert (await desk.at(first, 100)).status == "completed"
        again = await desk.create(lines)
        assert (await desk.at(again, 200)).status == "completed"

    talk(conversation, Settings(batch_speed=100, batch_tokens=150))


# --- ends before its time -------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [5, 50, 95])
def test_a_cancelled_batch_keeps_what_was_answered(seconds: float) -> None:
    """A batch cancelled at any time is cancelling, then cancelled: its answers are in the output,
    the rest are errors."""

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(several(40))
        desk.clock.now = START + seconds
        cancelling = await desk.client.batches.cancel(batch.id)
        assert (cancelling.status, stamps(cancelling)["cancelling_at"]) == ("cancelling", seconds)
        assert (await desk.client.batches.cancel(batch.id)).status == "cancelling"
        assert (await desk.at(batch, seconds + 9)).status == "cancelling"
        done = await desk.at(batch, seconds + 10)
        assert (done.status, stamps(done)["cancelled_at"]) == ("cancelled", seconds + 10)
        output, errors = await desk.text(done.output_file_id), await desk.text(done.error_file_id)
        assert len(output) == {5.0: 0, 50.0: 20, 95.0: 40}[seconds]
        assert {line["custom_id"] for line in output + errors} == {f"r{n}" for n in range(40)}
        assert all(
            line["response"] is None and line["error"]["code"] == "batch_cancelled"
            for line in errors
        )
        assert done.request_counts is not None
        assert (
            done.request_counts.total,
            done.request_counts.completed,
            done.request_counts.failed,
        ) == (40, len(output), 0)
        assert (await desk.client.batches.cancel(batch.id)).status == "cancelled"
        assert desk.simulator.requests.lines == len(output)

    talk(conversation, Settings(batch_speed=100))


def test_what_has_ended_is_not_cancelled() -> None:
    """A completed or failed batch cannot be cancelled (409), and does not change."""

    async def conversation(desk: Desk) -> None:
        for lines, status in ((several(1), "completed"), ([b"x"], "failed")):
            batch = await desk.create(lines)
            with pytest.raises(openai.ConflictError, match=status):
                await desk.client.batches.cancel(batch.id)
            assert (await desk.at(batch, 0)).status == status

    talk(conversation)


def test_an_expired_batch_keeps_what_was_answered() -> None:
    """A batch that expires halfway has half its answers; the rest are batch_expired in the error
    file."""

    async def conversation(desk: Desk) -> None:
        done = await desk.at(await desk.create(several(41)), 0)
        assert (done.status, done.expired_at) == ("expired", START)
        output, errors = await desk.text(done.output_file_id), await desk.text(done.error_file_id)
        assert (len(output), len(errors)) == (20, 21)
        assert {line["custom_id"] for line in output + errors} == {f"r{n}" for n in range(41)}
        assert {line["error"]["code"] for line in errors} == {"batch_expired"}

    talk(conversation, fate=lambda batch: Fate(ends="expired", answers=0.5))


def test_a_batch_that_takes_longer_than_its_window_expires() -> None:
    """After 24 hours a batch is over, with the answers until then, however late it is polled."""

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(several(100))
        assert (await desk.at(batch, 86_399)).status == "in_progress"
        done = await desk.at(batch, 1_000_000)
        assert (done.status, stamps(done)["expired_at"], stamps(done)["expires_at"]) == (
            "expired",
            86_400,
            86_400,
        )
        assert len(await desk.text(done.output_file_id)) == 50

    talk(conversation, Settings(batch_speed=86_400 * 2 / 1.0))


def test_fates() -> None:
    """Each batch has its own fate: failed with a code, in progress until cancelled, or unknown
    statuses."""
    fates = [
        Fate(ends="failed", code="odd_failure"),
        Fate(ends="in_progress", answers=0.5),
        Fate(shows=("scheduling", "in_progress")),
        None,
    ]
    infos: list[BatchInfo] = []

    def fate(info: BatchInfo) -> Fate | None:
        infos.append(info)
        return fates[info.n - 1]

    async def conversation(desk: Desk) -> None:
        failing, staying, odd, plain = [
            await desk.create(several(4), metadata={"n": str(n)}) for n in range(4)
        ]
        failed = await desk.at(failing, 0)
        assert failed.errors is not None
        assert [error.code for error in failed.errors.data or []] == ["odd_failure"]
        stays = await desk.at(staying, 1000)
        assert (stays.status, stays.request_counts and stays.request_counts.completed) == (
            "in_progress",
            2,
        )
        assert (await desk.client.batches.cancel(staying.id)).status == "cancelling"
        assert (await desk.at(staying, 1000)).status == "cancelled"
        assert [(await desk.at(odd, 0)).status for _ in range(3)] == [
            "scheduling",
            "in_progress",
            "completed",
        ]
        assert (await desk.at(plain, 0)).status == "completed"
        assert infos[1] == BatchInfo(
            n=2, endpoint=CHAT, model="gpt-5.6-luna", lines=4, metadata={"n": "1"}
        )

    talk(conversation, fate=fate)


def test_a_batch_in_an_unknown_status_can_be_cancelled() -> None:
    """A batch that is shown as scheduling has not begun: cancelled then, no line is answered."""

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(several(3))
        status: str = (await desk.at(batch, 0)).status
        assert status == "scheduling"
        assert (await desk.client.batches.cancel(batch.id)).status == "cancelling"
        done = await desk.at(batch, 0)
        assert (done.status, done.output_file_id, desk.simulator.requests.lines) == (
            "cancelled",
            None,
            0,
        )
        assert len(await desk.text(done.error_file_id)) == 3

    talk(conversation, fate=lambda batch: Fate(shows=("scheduling",) * 3))


def test_a_fate_that_cannot_be_is_refused() -> None:
    """A fate with an impossible end is an error."""
    wrong: dict[str, Any]
    for wrong in ({"ends": "cancelled"}, {"answers": 1.5}):
        with pytest.raises(ValueError, match="no batch ends"):
            Fate(**wrong)


# --- refusals and pages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"completion_window": "48h"}, "completion_window"),
        ({"endpoint": "/v1/videos"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, f"metadata.{'k' * 64}"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 3599}},
            "output_expires_after.seconds",
        ),
        (
            {"output_expires_after": {"anchor": "now", "seconds": 3600}},
            "output_expires_after.anchor",
        ),
    ],
)
def test_a_wrong_create_is_refused(wrong: dict[str, Any], param: str) -> None:
    """A create that the API refuses is a 400 that names the parameter, and makes no batch."""

    async def conversation(desk: Desk) -> None:
        right = {
            "input_file_id": await desk.upload(several(1)),
            "endpoint": CHAT,
            "completion_window": "24h",
        }
        with pytest.raises(openai.BadRequestError) as caught:
            await desk.client.post("/batches", cast_to=object, body=right | wrong)
        assert caught.value.param == param
        assert [batch async for batch in desk.client.batches.list()] == []
        assert desk.simulator.requests.batches == 0

    talk(conversation)


def test_metadata_at_its_limits_is_kept() -> None:
    """Sixteen keys of 64 characters with values of 512 come back as they were sent."""
    metadata = {f"{n:064}": "v" * 512 for n in range(16)}

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(several(1), metadata=metadata)
        assert (await desk.at(batch, 0)).metadata == metadata

    talk(conversation)


def test_batches_are_listed_newest_first() -> None:
    """Pages follow one another by the last id, and have every batch once, newest first."""

    async def conversation(desk: Desk) -> None:
        made = [(await desk.create(several(1))).id for _ in range(5)]
        page = await desk.client.batches.list(limit=2)
        assert ([batch.id for batch in page.data], page.has_more) == (made[:2:-1], True)
        rest = await desk.client.batches.list(limit=3, after=made[3])
        assert ([batch.id for batch in rest.data], rest.has_more) == (made[2::-1], False)
        assert [batch.id async for batch in desk.client.batches.list(limit=2)] == made[::-1]
        raw: Any = await desk.client.get("/batches?limit=2", cast_to=object)
        assert (raw["object"], raw["first_id"], raw["last_id"]) == ("list", made[4], made[3])
        for wrong in ({"limit": 0}, {"limit": 101}, {"after": "batch_none"}):
            with pytest.raises(openai.BadRequestError):
                await desk.client.batches.list(**wrong)

    talk(conversation)


def test_what_is_not_there_is_not_found() -> None:
    """An unknown file, batch or path is a 404, and a wrong method a 405."""

    async def conversation(desk: Desk) -> None:
        client = desk.client
        for asked in (
            client.files.retrieve("file-x"),
            client.files.content("file-x"),
            client.files.delete("file-x"),
            client.batches.retrieve("batch_x"),
            client.batches.cancel("batch_x"),
            client.get("/files/a/b", cast_to=object),
            client.get("/batches/a/cancel/b", cast_to=object),
        ):
            with pytest.raises(openai.NotFoundError):
                await asked
        with pytest.raises(openai.APIStatusError) as caught:
            await client.delete("/batches/batch_x", cast_to=object)
        assert caught.value.status_code == 405
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").files.create(file=b"x", purpose="batch")

    talk(conversation, Settings(key=KEY))


# --- files ----------------------------------------------------------------------------------------


def test_files_come_and_go() -> None:
    """An upload is kept byte for byte, listed and streamed, expires when asked to, and can be
    deleted."""
    raw = os.urandom(3_000_000)

    async def conversation(desk: Desk) -> None:
        client = desk.client
        first = await client.files.create(file=("a.jsonl", raw), purpose="batch")
        assert (first.bytes, first.filename, first.purpose, first.status) == (
            len(raw),
            "a.jsonl",
            "batch",
            "processed",
        )
        assert (first.created_at, first.expires_at) == (START, START + 30 * 86_400)
        second = await client.files.create(
            file=io.BytesIO(b"x"),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        assert second.expires_at == START + 3600
        assert await client.files.retrieve(first.id) == first
        assert [file.id async for file in client.files.list()] == [second.id, first.id]
        assert [file.id async for file in client.files.list(limit=1, order="asc")] == [
            first.id,
            second.id,
        ]
        assert [file.id async for file in client.files.list(purpose="batch_output")] == []
        async with client.files.with_streaming_response.content(first.id) as response:
            assert b"".join([chunk async for chunk in response.iter_bytes()]) == raw
        desk.clock.now += 3600
        with pytest.raises(openai.NotFoundError):
            await client.files.content(second.id)
        deleted = await client.files.delete(first.id)
        assert (deleted.id, deleted.deleted) == (first.id, True)
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(first.id)
        assert desk.simulator.requests.uploads == 2

    talk(conversation)


def test_a_batch_outlives_its_input_file() -> None:
    """An input file may be deleted when its batch exists; an output file cannot be an input."""

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(
            several(3), output_expires_after={"anchor": "created_at", "seconds": 7200}
        )
        await desk.client.files.delete(batch.input_file_id)
        done = await desk.at(batch, 0)
        assert len(await desk.text(done.output_file_id)) == 3
        output = await desk.client.files.retrieve(str(done.output_file_id))
        assert (output.purpose, output.expires_at) == ("batch_output", START + 7200)
        with pytest.raises(openai.BadRequestError):
            await desk.client.batches.create(
                input_file_id=output.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
            )

    talk(conversation)


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"purpose": "fine-tune"}, "purpose"),
        (
            {
                "purpose": "batch",
                "expires_after[anchor]": "created_at",
                "expires_after[seconds]": "9",
            },
            "expires_after.seconds",
        ),
        ({"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({}, "purpose"),
    ],
)
def test_a_wrong_upload_is_refused(form: dict[str, str], param: str) -> None:
    """A refused upload names its parameter and leaves nothing behind."""

    async def conversation(desk: Desk) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            await desk.client.post(
                "/files",
                cast_to=object,
                body=form,
                files={"file": ("a", b"x")},
                options={"headers": {"Content-Type": "multipart/form-data"}},
            )
        assert caught.value.param == param
        with pytest.raises(openai.BadRequestError):
            await desk.client.post("/files", cast_to=object, body=form)
        assert [file async for file in desk.client.files.list()] == []

    talk(conversation)


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte above the limit is a 413, after the whole file was sent; at the limit it is
    accepted."""
    monkeypatch.setattr(files, "MOST_BYTES", 1_000_000)

    async def conversation(desk: Desk) -> None:
        assert (
            await desk.client.files.create(file=b"x" * 1_000_000, purpose="batch")
        ).bytes == 1_000_000
        with pytest.raises(openai.APIStatusError) as caught:
            await desk.client.files.create(file=b"x" * 1_000_001, purpose="batch")
        assert caught.value.status_code == 413

    talk(conversation)


def test_the_limits_are_the_apis() -> None:
    """200 MB and 50,000 requests for a file."""
    assert (files.MOST_BYTES, tasks.MOST_TASKS) == (209_715_200, 50_000)


def test_nothing_is_left_when_it_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads, results and refused files are in one folder, which is removed when the simulator
    closes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def conversation(desk: Desk) -> None:
        await desk.at(await desk.create(several(3)), 0)
        await desk.create(several(3))
        with pytest.raises(openai.BadRequestError):
            await desk.client.files.create(file=b"x", purpose="vision")
        [folder] = os.listdir(tmp_path)
        names = os.listdir(tmp_path / folder)
        # Two inputs, one output, and the input that the unfinished batch holds on to.
        assert (len(names), [name for name in names if name.startswith("incoming")]) == (4, [])

    talk(conversation)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_flat(tmp_path: Path) -> None:
    """P31 Ten times the lines take no more memory to upload, check, answer and download."""
    path = tmp_path / "requests.jsonl"

    def peak(count: int) -> int:
        body = {"model": "m", "prompt": "ECHO:" + "x" * 2000}
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(
                json.dumps(task(f"r{n}", url="/v1/completions", body=body)) + "\n"
                for n in range(count)
            )

        async def conversation(desk: Desk) -> None:
            uploaded = await desk.client.files.create(file=source, purpose="batch")
            batch = await desk.client.batches.create(
                input_file_id=uploaded.id, endpoint="/v1/completions", completion_window="24h"
            )
            done = await desk.at(batch, 0)
            async with desk.client.files.with_streaming_response.content(
                str(done.output_file_id)
            ) as response:
                assert sum([chunk.count(b"\n") async for chunk in response.iter_bytes()]) == count

        with open(path, "rb") as source:
            tracemalloc.start()
            talk(conversation)
            size = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return size

    small, large = peak(500), peak(5000)
    assert large < small + 3_000_000


# --- trouble on the way ---------------------------------------------------------------------------


def scripted(method: str, path: str, fault: str) -> Callable[[RequestInfo], str | None]:
    """A script that names the fault for the first request of that kind."""

    def script(request: RequestInfo) -> str | None:
        is_it = request.method == method and request.path.endswith(path) and request.seen == 1
        return fault if is_it else None

    return script


@pytest.mark.parametrize(
    ("fault", "made"), [("500", 0), ("reset", 0), ("reset_body", 1), ("truncated", 1)]
)
def test_a_create_that_fails_may_have_made_a_batch(fault: str, made: int) -> None:
    """A create whose reply was lost has made its batch, which the list shows; a refused one has
    not."""

    async def conversation(desk: Desk) -> None:
        with pytest.raises((openai.APIError, ValueError)):
            await desk.create(several(1), metadata={"part": "1"})
        found = [batch.metadata async for batch in desk.client.batches.list()]
        assert found == [{"part": "1"}] * made
        assert (desk.simulator.requests.uploads, desk.simulator.requests.batches) == (1, made)

    talk(conversation, script=scripted("POST", "/batches", fault))


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_an_upload_that_fails_leaves_nothing(fault: str) -> None:
    """An upload that meets a fault is not stored, and the next one is."""

    async def conversation(desk: Desk) -> None:
        with pytest.raises(openai.APIError):
            await desk.upload(several(1))
        assert [file async for file in desk.client.files.list()] == []
        assert await desk.upload(several(1))

    talk(conversation, script=scripted("POST", "/files", fault))


@pytest.mark.parametrize("fault", ["reset_body", "truncated", "html"])
def test_a_download_may_break_off(fault: str) -> None:
    """A spoiled download is shorter than the file or different; the next one is whole."""

    async def conversation(desk: Desk) -> None:
        done = await desk.at(await desk.create(several(20)), 0)
        output = str(done.output_file_id)
        size = (await desk.client.files.retrieve(output)).bytes
        if fault == "reset_body":
            with pytest.raises(openai.APIConnectionError):
                await desk.client.files.content(output)
        else:
            broken = (await desk.client.files.content(output)).content
            assert (len(broken) == size // 2) == (fault == "truncated")
        assert len((await desk.client.files.content(output)).content) == size

    talk(conversation, script=scripted("GET", "/content", fault))


def test_a_poll_may_be_interrupted() -> None:
    """A poll that is interrupted loses no line and answers none twice: the next one continues."""
    count = 2000
    begun = asyncio.Event()

    def script(request: RequestInfo) -> str | None:
        if request.path == CHAT:
            begun.set()
        return None

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(several(count))
        asking = asyncio.ensure_future(desk.client.batches.retrieve(batch.id))
        await begun.wait()
        asking.cancel()
        done = await desk.at(batch, 0)
        names = [line["custom_id"] for line in await desk.text(done.output_file_id)]
        assert sorted(names) == sorted(f"r{n}" for n in range(count))
        assert desk.simulator.requests.lines == count

    talk(conversation, script=script)


def test_several_may_ask_at_once() -> None:
    """However many clients poll at once, each line is answered once."""

    async def conversation(desk: Desk) -> None:
        batch = await desk.create(several(300))
        polls = await asyncio.gather(*(desk.at(batch, 0) for _ in range(8)))
        assert {each.status for each in polls} == {"completed"}
        assert desk.simulator.requests.lines == 300

    talk(conversation)


@pytest.mark.parametrize(
    "wrong", [{"batch_speed": -1}, {"batch_speed": float("inf")}, {"batch_tokens": 0}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    """A setting out of bounds is an InputError that names it."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        Settings(**wrong)
