"""/batches: from validating to an end, by the clock and only when somebody asks; nothing runs in the background.

A batch that takes T seconds (`Settings.batch_speed`) goes this way:

```text
0           T/10           9T/10         T
validating  in_progress    finalizing    completed
            failed: for an input file that is wrong
            expired: at T or after 24 hours, where that is its fate
            cancelling, cancelled T/10 later: from when it is asked for
```

While it is in progress its lines are answered evenly over that time, in an order of their own; those that are answered
are kept whatever comes then, and the others stand in the error file of a batch that expired or was cancelled.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import secrets
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.simulator.batches.files import Files, as_list, kept, page
from batchgen.simulator.batches.tasks import BREATH, Tasks, read_tasks, task_at
from batchgen.simulator.calls import Body, Call
from batchgen.simulator.faults import roll
from batchgen.simulator.refusals import RefusalError, invalid, missing
from batchgen.simulator.settings import Settings

WINDOW = 86_400  # seconds
MOST_METADATA = 16
LONGEST_NAME = 64
LONGEST_VALUE = 512
MOST_BATCHES = 100  # on one page of the list

ENDS = ("completed", "expired", "failed", "in_progress", "finalizing")
_CLOSED = ("completed", "failed", "expired", "cancelled")
_STAMPS = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
_UNFINISHED = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": (
        "batch_cancelled",
        "This request was not executed because the batch was cancelled.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one line of a batch got: an HTTP answer, or no answer at all (`status` 0, `body` an error of the line)."""

    status: int
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInfo:
    """What is told of a batch that is created, to who decides its fate; `n` counts the batches from 1."""

    n: int
    endpoint: str
    model: str | None
    lines: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of a batch whose file is sound.

    ends: the last status that it reaches by itself, out of ENDS
    answers: share of its lines that are answered until then, 0 to 1
    code: of the error that it fails with
    shows: what those who ask next are told as its status, one after the other, before anything happens
    """

    ends: str = "completed"
    answers: float = 1
    code: str = "simulated_failure"
    shows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ends not in ENDS or not 0 <= self.answers <= 1:
            raise ValueError(
                f"no batch ends as {self.ends!r} with a share of {self.answers} answered"
            )


FateOf = Callable[[BatchInfo], Fate | None]
AnswerLine = Callable[[str, Body], Awaitable[Reply]]


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch. Its files are `id` with a suffix in the folder of Files.

    order: what it was created with; takes: seconds
    turns: numbers of its lines (from 0) in the order in which they are answered; `done` of them are, `most` will be
    shows: what is left of its fate's; timeline: when which status begins, in Unix seconds
    closed: it has ended and somebody knows; files: ids of its `output` and `error` then
    """

    id: str
    order: Body
    created_at: float
    takes: float
    tasks: Tasks
    fate: Fate
    folder: Path
    turns: array[int]
    shows: list[str]
    most: int
    timeline: list[tuple[float, str]]
    done: int = 0
    completed: int = 0
    closed: bool = False
    usage: Counter[str] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def status(self, now: float) -> str:
        """Where it stands by the clock."""
        return [status for at, status in self.timeline if at <= now][-1]

    def due(self, now: float) -> int:
        """How many of its lines should be answered by now."""
        begins = next((at for at, status in self.timeline if status == "in_progress"), None)
        if begins is None or now < begins:
            return 0
        span = 0.8 * self.takes
        passed = min(now, self.created_at + WINDOW) - begins
        return min(
            self.most,
            int(len(self.turns) * self.fate.answers * min(1.0, passed / span if span else 1.0)),
        )

    def path(self, suffix: str) -> Path:
        """One of its files on disk: `input`, `output` or `error`."""
        return self.folder / f"{self.id}-{suffix}"

    def held(self) -> int:
        """Input tokens that count against the queue of its model."""
        return 0 if self.closed or self.tasks.errors else self.tasks.tokens

    def shown(self, status: str, now: float = -math.inf) -> Body:
        """The official batch object, with the times of what has happened by `now`."""
        passed = {f"{name}_at": int(at) for at, name in self.timeline if at <= now}
        ended = next(
            (int(at) for at, name in self.timeline if name == "expired"),
            int(self.created_at) + WINDOW,
        )
        errors = {"object": "list", "data": self.tasks.errors} if status == "failed" else None
        used = self.usage
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.order["endpoint"],
            "model": self.tasks.model,
            "errors": errors,
            "input_file_id": self.order["input_file_id"],
            "completion_window": "24h",
            "status": status,
            "output_file_id": self.files.get("output"),
            "error_file_id": self.files.get("error"),
            "created_at": int(self.created_at),
            "expires_at": ended,
            **dict.fromkeys(_STAMPS),
            **{name: at for name, at in passed.items() if name in _STAMPS},
            "request_counts": {
                "total": 0 if status in ("validating", "failed") else len(self.turns),
                "completed": self.completed,
                "failed": self.done - self.completed,
            },
            "usage": {
                "input_tokens": used["input"],
                "input_tokens_details": {"cached_tokens": used["cached"]},
                "output_tokens": used["output"],
                "output_tokens_details": {"reasoning_tokens": used["reasoning"]},
                "total_tokens": used["input"] + used["output"],
            },
            "metadata": self.order.get("metadata"),
        }


class Batches:
    """The batches of one simulator, oldest first.

    answer: the answer to one line, given its endpoint and body; called on the event loop
    endpoints: those that batches are taken for; clock: Unix seconds
    """

    def __init__(
        self,
        files: Files,
        *,
        answer: AnswerLine,
        endpoints: tuple[str, ...],
        clock: Callable[[], float],
        fate: FateOf | None,
    ) -> None:
        self._files = files
        self._answer = answer
        self._endpoints = endpoints
        self._clock = clock
        self._fate = fate
        self._batches: dict[str, Batch] = {}
        self._created = 0

    def close(self) -> None:
        """Forget everything."""
        self._batches.clear()

    async def create(self, call: Call, settings: Settings) -> Body:
        """Begin a batch; raises RefusalError for a call that is wrong. What is wrong with its file, the batch tells later."""
        order = call.body
        self._check(order)
        batch_id = f"batch_sim{secrets.token_hex(12)}"
        source = self._files.folder / f"{batch_id}-input"
        # The batch goes on when its input file is deleted.
        os.link(self._input(order["input_file_id"]), source)
        try:
            tasks = await read_tasks(source, order["endpoint"])
        except BaseException:
            source.unlink()
            raise
        batch = self._begin(batch_id, order, tasks, settings)
        self._batches[batch_id] = batch
        return batch.shown("validating")

    async def retrieve(self, batch_id: str) -> Body:
        """The batch as it stands now; raises RefusalError (404) for none."""
        return await self._ask(self._get(batch_id))

    async def listed(self, query: Body) -> Body:
        """A page of the batches, newest first; `query` may have after and limit."""
        found, more = page(list(self._batches.values())[::-1], query, 20, MOST_BATCHES)
        return as_list([await self._ask(batch) for batch in found], has_more=more)

    async def cancel(self, batch_id: str) -> Body:
        """Stop a batch where it is; raises RefusalError (404) for none, (409) for one that has ended otherwise."""
        batch = self._get(batch_id)
        async with batch.lock:
            now = self._clock()
            if not batch.shows:
                await self._settle(batch, now)
            status = batch.shows[0] if batch.shows else batch.status(now)
            if status in ("cancelling", "cancelled"):
                return batch.shown(status, now)
            if status in _CLOSED:
                raise RefusalError(409, f"Cannot cancel a batch with status '{status}'.")
            batch.most = batch.done
            passed = [] if batch.shows else [entry for entry in batch.timeline if entry[0] <= now]
            batch.shows.clear()
            batch.timeline = [*passed, (now, "cancelling")]
            told = batch.shown("cancelling", now)
            batch.timeline.append((now + batch.takes / 10, "cancelled"))
            return told

    def _check(self, order: Body) -> None:
        for name in ("input_file_id", "endpoint", "completion_window"):
            if order.get(name) in (None, ""):
                raise missing(name)
        if order["completion_window"] != "24h":
            raise invalid("completion_window", "24h is expected.")
        if order["endpoint"] not in self._endpoints:
            raise invalid("endpoint", f"one of {', '.join(self._endpoints)} is expected.")
        kept("output_expires_after", order.get("output_expires_after"))
        _check_metadata(order.get("metadata"))

    def _input(self, file_id: Any) -> Path:
        try:
            file = self._files.get(str(file_id))
        except RefusalError:
            message = f"Cannot find file {file_id}, or you do not have access to it."
            raise RefusalError(400, message, param="input_file_id") from None
        if file.purpose != "batch":
            raise invalid("input_file_id", "a file with the purpose batch is expected.")
        return file.path

    def _begin(self, batch_id: str, order: Body, tasks: Tasks, settings: Settings) -> Batch:
        self._created += 1
        total = len(tasks.starts)
        info = BatchInfo(
            n=self._created,
            endpoint=order["endpoint"],
            model=tasks.model,
            lines=total,
            metadata=order.get("metadata") or {},
        )
        fate = (self._fate and self._fate(info)) or Fate()
        self._queue(tasks, settings.batch_tokens)
        if fate.ends == "failed":
            tasks.wrong(fate.code, "The batch failed on purpose (simulated).")
        now, takes = self._clock(), _takes(settings, self._created)
        turns = array("I", range(total))
        random.Random(f"{settings.seed}:{self._created}").shuffle(turns)
        return Batch(
            id=batch_id,
            order=order,
            created_at=now,
            takes=takes,
            tasks=tasks,
            fate=fate,
            folder=self._files.folder,
            turns=turns,
            shows=list(fate.shows),
            most=total,
            timeline=_timeline(now, takes, "failed" if tasks.errors else fate.ends),
        )

    def _queue(self, tasks: Tasks, most: int | None) -> None:
        """A batch fails when the unfinished ones of its model leave no room for it."""
        held = sum(
            batch.held() for batch in self._batches.values() if batch.tasks.model == tasks.model
        )
        if most is not None and not tasks.errors and held + tasks.tokens > most:
            message = (
                f"Enqueued token limit reached for {tasks.model} in organization org-simulated. Limit: {most:,} enqueued "
                "tokens. Please try again once some in_progress batches have been completed."
            )
            tasks.wrong("token_limit_exceeded", message)

    def _get(self, batch_id: str) -> Batch:
        batch = self._batches.get(batch_id)
        if batch is None:
            raise RefusalError(404, f"No batch found with id '{batch_id}'.", param="id")
        return batch

    async def _ask(self, batch: Batch) -> Body:
        async with batch.lock:
            now = self._clock()
            if batch.shows:
                return batch.shown(batch.shows.pop(0))
            await self._settle(batch, now)
            return batch.shown(batch.status(now), now)

    async def _settle(self, batch: Batch, now: float) -> None:
        """Do what is due by `now`. Whoever waits for it may go away: the next one who asks goes on where it stopped."""
        if batch.closed:
            return
        status = batch.status(now)
        due = batch.due(now)
        if batch.done < due or status in _UNFINISHED:
            with _opened(batch) as (source, output, errors):
                await self._answer_up_to(due, batch, source, output, errors)
                if status in _UNFINISHED:
                    _write_unfinished(batch, source, errors, *_UNFINISHED[status])
        if status in _CLOSED:
            self._close(batch)

    async def _answer_up_to(
        self, due: int, batch: Batch, source: BinaryIO, output: BinaryIO, errors: BinaryIO
    ) -> None:
        while batch.done < due:
            number = batch.turns[batch.done]
            task = task_at(source, batch.tasks.starts[number])
            reply = await self._answer(batch.order["endpoint"], task["body"])
            succeeded = 200 <= reply.status < 300
            (output if succeeded else errors).write(_line(batch, number, task["custom_id"], reply))
            batch.done += 1
            batch.completed += succeeded
            _count(batch.usage, reply.body.get("usage"))
            if batch.done % BREATH == 0:
                await asyncio.sleep(0)

    def _close(self, batch: Batch) -> None:
        seconds = kept("output_expires_after", batch.order.get("output_expires_after"))
        for kind in ("output", "error"):
            path = batch.path(kind)
            if path.exists() and path.stat().st_size:
                batch.files[kind] = self._files.add(
                    path, f"{batch.id}_{kind}.jsonl", "batch_output", seconds
                ).id
            else:
                path.unlink(missing_ok=True)
        batch.path("input").unlink()
        batch.closed = True


def _takes(settings: Settings, number: int) -> float:
    if settings.batch_speed is not None:
        return settings.batch_speed
    return 5 + 10 * roll(settings.seed, "batch", number).jitter


def _timeline(created: float, takes: float, ends: str) -> list[tuple[float, str]]:
    """When each status begins, until the one that the batch ends with."""
    begins, over = created + takes / 10, created + takes
    if ends == "failed":
        return [(created, "validating"), (begins, "failed")]
    way = [(created, "validating"), (begins, "in_progress")]
    if ends == "expired" or (takes > WINDOW and ends != "in_progress"):
        return [*way, (min(over, created + WINDOW), "expired")]
    later = [(created + 0.9 * takes, "finalizing"), (over, "completed")]
    return way + later[: ("in_progress", "finalizing", "completed").index(ends)]


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise invalid("metadata", "an object of texts is expected.", "invalid_type")
    if len(metadata) > MOST_METADATA:
        raise invalid(
            "metadata", f"at most {MOST_METADATA} keys are taken.", "object_above_max_properties"
        )
    for name, value in metadata.items():
        if len(name) > LONGEST_NAME:
            message = f"a key has at most {LONGEST_NAME} characters."
            raise invalid(f"metadata.{name[:LONGEST_NAME]}", message, "string_above_max_length")
        if len(value) > LONGEST_VALUE:
            raise invalid(
                f"metadata.{name}",
                f"a value has at most {LONGEST_VALUE} characters.",
                "string_above_max_length",
            )


@contextmanager
def _opened(batch: Batch) -> Iterator[tuple[BinaryIO, BinaryIO, BinaryIO]]:
    """The input to read, output and errors to go on writing."""
    with ExitStack() as files:
        source = files.enter_context(batch.path("input").open("rb"))
        output = files.enter_context(batch.path("output").open("ab"))
        errors = files.enter_context(batch.path("error").open("ab"))
        yield source, output, errors


def _line(batch: Batch, number: int, custom_id: str, reply: Reply) -> bytes:
    """One line of an output or error file, in the official shape."""
    name = f"{batch.id.removeprefix('batch_')}_{number + 1}"
    answered = reply.status > 0
    response = (
        {"status_code": reply.status, "request_id": f"req_{name}", "body": reply.body}
        if answered
        else None
    )
    line = {
        "id": f"batch_req_{name}",
        "custom_id": custom_id,
        "response": response,
        "error": None if answered else reply.body,
    }
    return json.dumps(line).encode() + b"\n"


def _write_unfinished(
    batch: Batch, source: BinaryIO, errors: BinaryIO, code: str, message: str
) -> None:
    reply = Reply(status=0, body={"code": code, "message": message})
    for number in batch.turns[batch.done :]:
        errors.write(
            _line(batch, number, task_at(source, batch.tasks.starts[number])["custom_id"], reply)
        )


def _count(usage: Counter[str], used: Any) -> None:
    """Add what one answer says it used, under the names of whichever endpoint."""
    if not isinstance(used, dict):
        return
    for name, fields in (
        ("input", ("input_tokens", "prompt_tokens")),
        ("output", ("output_tokens", "completion_tokens")),
    ):
        usage[name] += next((used[field] for field in fields if field in used), 0)
    details = used.get("input_tokens_details") or used.get("prompt_tokens_details") or {}
    usage["cached"] += details.get("cached_tokens", 0)
    details = used.get("output_tokens_details") or used.get("completion_tokens_details") or {}
    usage["reasoning"] += details.get("reasoning_tokens", 0)
