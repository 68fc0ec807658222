"""/batches: create, poll, list and cancel.

A batch proceeds by the clock, and only when a client polls it.

Nothing runs in the background. While a batch is in progress, its lines are answered evenly over
that time, in an order of its own. Those that are answered are kept, however the batch ends; the
others go to the error file of a batch that expired or was cancelled.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.simulator.batches.batch import (
    AnswerLine,
    Batch,
    BatchInfo,
    Fate,
    FateOf,
    seconds_taken,
    timeline_of,
)
from batchgen.simulator.batches.files import Files, as_list, kept, page
from batchgen.simulator.batches.outputs import UNFINISHED, opened, result_line, write_unfinished
from batchgen.simulator.batches.tasks import BREATH, Tasks, read_tasks, task_at
from batchgen.simulator.calls import Body, Call
from batchgen.simulator.refusals import RefusalError, invalid, missing
from batchgen.simulator.settings import Settings

MOST_METADATA = 16
LONGEST_NAME = 64
LONGEST_VALUE = 512
MOST_BATCHES = 100  # on one page of the list

_CLOSED = ("completed", "failed", "expired", "cancelled")


class Batches:
    """The batches of one simulator, oldest first.

    files: the input files, and where result files go
    answer: the reply to one line, given its endpoint and body; called on the event loop
    endpoints: those that take batches
    clock: returns Unix seconds
    fate: decides what becomes of a new batch; None lets each complete
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
        """Begin a batch; raises RefusalError for a wrong call.

        Errors in the input file show later, in the batch object.
        """
        order = call.body
        self._check(order)
        batch_id = f"batch_sim{secrets.token_hex(12)}"
        source = self._files.folder / f"{batch_id}-input"
        # A link: the batch must continue when a client deletes its input file.
        os.link(self._input(order["input_file_id"]), source)
        try:
            tasks = await read_tasks(source, order["endpoint"])
        except BaseException:
            source.unlink()
            raise
        batch = self._begin(batch_id, order, tasks, settings)
        self._batches[batch_id] = batch
        return batch.as_json("validating")

    async def retrieve(self, batch_id: str) -> Body:
        """The batch object as it is now; raises RefusalError (404) if there is none."""
        return await self._poll(self._get(batch_id))

    async def listed(self, query: Body) -> Body:
        """A page of the batches, newest first; `query` may have after and limit."""
        batches, more = page(list(self._batches.values())[::-1], query, 20, MOST_BATCHES)
        return as_list([await self._poll(batch) for batch in batches], has_more=more)

    async def cancel(self, batch_id: str) -> Body:
        """Cancel a batch; raises RefusalError (404) for none, (409) if it has ended."""
        batch = self._get(batch_id)
        async with batch.lock:
            now = self._clock()
            if not batch.shows:
                await self._settle(batch, now)
            status = batch.shows[0] if batch.shows else batch.status(now)
            if status in ("cancelling", "cancelled"):
                return batch.as_json(status, now)
            if status in _CLOSED:
                raise RefusalError(409, f"Cannot cancel a batch with status '{status}'.")
            batch.most = batch.done
            passed = [] if batch.shows else [entry for entry in batch.timeline if entry[0] <= now]
            batch.shows.clear()
            batch.timeline = [*passed, (now, "cancelling")]
            cancelling = batch.as_json("cancelling", now)
            batch.timeline.append((now + batch.takes / 10, "cancelled"))
            return cancelling

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
        self._check_queue(tasks, settings.batch_tokens)
        if fate.ends == "failed":
            tasks.add_error(fate.code, "The batch failed on purpose (simulated).")
        now, takes = self._clock(), seconds_taken(settings, self._created)
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
            timeline=timeline_of(now, takes, "failed" if tasks.errors else fate.ends),
        )

    def _check_queue(self, tasks: Tasks, most: int | None) -> None:
        """Fail a batch if the queue of its model has no room: `most` tokens (None: no bound)."""
        queued = sum(
            batch.queued_tokens
            for batch in self._batches.values()
            if batch.tasks.model == tasks.model
        )
        if most is not None and not tasks.errors and queued + tasks.tokens > most:
            message = (
                f"Enqueued token limit reached for {tasks.model} in organization org-simulated. "
                f"Limit: {most:,} enqueued tokens. "
                "Please try again once some in_progress batches have been completed."
            )
            tasks.add_error("token_limit_exceeded", message)

    def _get(self, batch_id: str) -> Batch:
        batch = self._batches.get(batch_id)
        if batch is None:
            raise RefusalError(404, f"No batch found with id '{batch_id}'.", param="id")
        return batch

    async def _poll(self, batch: Batch) -> Body:
        async with batch.lock:
            now = self._clock()
            if batch.shows:
                return batch.as_json(batch.shows.pop(0))
            await self._settle(batch, now)
            return batch.as_json(batch.status(now), now)

    async def _settle(self, batch: Batch, now: float) -> None:
        """Do what is due by `now`.

        A client may disconnect meanwhile: the next poll continues there.
        """
        if batch.closed:
            return
        status = batch.status(now)
        due = batch.due(now)
        if batch.done < due or status in UNFINISHED:
            with opened(batch) as (source, output, errors):
                await self._answer_up_to(due, batch, source, output, errors)
                if status in UNFINISHED:
                    write_unfinished(batch, status, source, errors)
        if status in _CLOSED:
            self._close(batch)

    async def _answer_up_to(
        self, due: int, batch: Batch, source: BinaryIO, output: BinaryIO, errors: BinaryIO
    ) -> None:
        """Answer lines of a batch.

        due: how many are answered afterwards
        batch: whose lines they are
        source: its input file
        output, errors: its result files
        """
        while batch.done < due:
            number = batch.turns[batch.done]
            task = task_at(source, batch.tasks.starts[number])
            reply = await self._answer(batch.order["endpoint"], task["body"])
            succeeded = 200 <= reply.status < 300
            line = result_line(batch, number, task["custom_id"], reply)
            (output if succeeded else errors).write(line)
            batch.done += 1
            batch.completed += succeeded
            batch.add_usage(reply.body.get("usage"))
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
