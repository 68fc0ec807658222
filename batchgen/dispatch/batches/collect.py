"""An ended batch -> outcomes: fetches its result files to disk, reads and records them.

A collection that was interrupted starts again from the beginning. A request with an outcome is no
longer a member of the batch, so its line is skipped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchgen.batch_format import encoded
from batchgen.disk import temporary_path, translating_errors
from batchgen.dispatch import Attempt, Failure, Outcome, Progress, Received
from batchgen.dispatch.api.body import MAX_PICTURE_REPLY, MAX_TEXT_REPLY
from batchgen.dispatch.api.errors import account_error, classify
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.api.replies import attempt_fields, interpret
from batchgen.dispatch.batches.client import BatchClient, BatchTransport, Json, RequestRejectedError
from batchgen.dispatch.batches.file_counts import FileCounts
from batchgen.dispatch.batches.records import (
    Batch,
    BatchRecorder,
    Member,
    MemberResult,
    counts_of,
)
from batchgen.dispatch.batches.refused import named_lines, same_refusal
from batchgen.dispatch.batches.registry import BatchRegistry
from batchgen.dispatch.batches.result_file import GROUP, LineResult, read_results
from batchgen.job import Job
from batchgen.kinds import KIND_BY_ENDPOINT
from batchgen.pricing import Prices
from batchgen.replies import accepted, is_accepted

# How often the result files are fetched at first while they lack answers, and the seconds between.
FETCHES = 3
BETWEEN_FETCHES = 2.0

# The fields of a batch object that name its result files, and those that say when it ended.
_FILES = ("output_file_id", "error_file_id")
_ENDS = ("completed_at", "failed_at", "expired_at", "cancelled_at")


class Collector:
    """Records the answers of ended batches.

    transport: redacts what is quoted from the server
    server: the Batch API
    recorder: makes outcomes durable
    registry: receives the error that stops the run, for a failure of the account
    job: says which finish reasons count as success, and whether rows choose their model
    prices: price the answers
    progress: updated in place
    folder: holds the result files while they are read
    capped: whether there is a cap on money; then an attempt of unknown cost counts as the most that
        it may cost
    """

    def __init__(
        self,
        *,
        transport: BatchTransport,
        server: BatchClient,
        recorder: BatchRecorder,
        registry: BatchRegistry,
        job: Job,
        prices: Prices,
        progress: Progress,
        folder: Path,
        capped: bool,
    ) -> None:
        self._transport, self._server, self._recorder = transport, server, recorder
        self._registry, self._job, self._prices = registry, job, prices
        self._progress, self._folder, self._capped = progress, folder, capped
        self._accept = accepted(job.output.accept)

    async def collect(self, batch: Batch) -> FileCounts:
        """Record every answer in the result files of an ended batch; returns what they hold.

        Raises RequestRejectedError if a result file is missing, and OutputError.
        """
        found, problem = await self._read_files(batch)
        for _ in range(0 if batch.lacking_since else FETCHES - 1):
            # A torn line may have been torn on the way.
            lacks = found.lacking(batch) or found.torn
            if problem.failure.is_passing if problem else lacks:
                await self._server.sleep(BETWEEN_FETCHES)
                found, problem = await self._read_files(batch)
        if problem is not None:
            raise problem
        return found

    async def fail_unanswered(self, batch: Batch, lines: Sequence[int]) -> None:
        """Fail the members of these lines, of which no answer comes any more."""
        for start in range(0, len(lines), GROUP):
            members = await self._recorder.members(batch, lines[start : start + GROUP])
            await self._record_lost(batch, members, "the batch has no answer for this request")

    async def give_up(self, batch: Batch) -> None:
        """Fail the members that are left: it is unknown whether they were executed."""
        while members := await self._recorder.members(batch):
            await self._record_lost(
                batch, members, "the batch was given up, and may have been executed"
            )

    async def _record_lost(self, batch: Batch, members: Mapping[int, Member], why: str) -> None:
        """Fail members that may have been executed, and paid for. Another run retries them."""
        failure = Failure(
            meaning="transient", reason="invalid_response", message=why, may_be_billed=True
        )
        await self._record(self._failed(batch, member, failure) for member in members.values())

    async def record_line_errors(self, batch: Batch, errors: Sequence[Json]) -> int:
        """Record the errors of a failed batch that name a line; returns how many there are."""
        by_line: dict[int, Failure] = {}
        for error in errors:
            failure, line = self.classified(error), error.get("line")
            named = [line] if type(line) is int else named_lines(failure.message, batch.requests)
            for each in named:
                if 0 < each <= batch.requests:
                    by_line.setdefault(each, failure)
        return await self._fail_by_line(batch, by_line)

    async def fail_lines(self, batch: Batch, lines: Sequence[int], failure: Failure) -> None:
        """Fail the members of the lines for which the server refuses a batch."""
        await self._fail_by_line(batch, dict.fromkeys(lines, replace(failure, meaning="row")))

    async def _fail_by_line(self, batch: Batch, failures: Mapping[int, Failure]) -> int:
        lines, count = list(failures), 0
        for start in range(0, len(lines), GROUP):
            members = await self._recorder.members(batch, lines[start : start + GROUP])
            await self._record(
                self._failed(batch, member, failures[line]) for line, member in members.items()
            )
            count += len(members)
        return count

    def classified(self, error: Json) -> Failure:
        """What an error in the object of a batch means; it has no HTTP status."""
        # Its line is one of the input file, which the user never sees.
        body = encoded({"error": {name: error[name] for name in error if name != "line"}})
        return self._transport.redact_failure(classify(None, body, {}))

    async def _read_files(self, batch: Batch) -> tuple[FileCounts, RequestRejectedError | None]:
        """Record what the result files hold; returns what that is, and why one is missing."""
        found, problem = FileCounts(), None
        for name in _FILES:
            if file := batch.seen.get(name):
                try:
                    await self._read_file(batch, file, found)
                except RequestRejectedError as rejected:
                    problem = problem or rejected
        return found, problem

    async def _read_file(self, batch: Batch, file: str, found: FileCounts) -> None:
        path = temporary_path(self._folder, "answers")
        longest = (
            MAX_PICTURE_REPLY if KIND_BY_ENDPOINT[batch.endpoint].makes_images else MAX_TEXT_REPLY
        )
        try:
            await self._server.download(file, path)
            groups = read_results(path, batch.requests, longest, self._transport.parse)
            while (results := await asyncio.to_thread(next, groups, None)) is not None:
                self._server.raise_if_stopped()
                found.add(results)
                members = await self._recorder.members(batch, results.by_line.keys())
                ended = [
                    await self._member_result(batch, member, results.by_line[line])
                    for line, member in members.items()
                ]
                failures = [each.outcome.failure for each in ended if each]
                if not found.succeeded and all(failures):
                    why = same_refusal(self._server.host, [each for each in failures if each])
                    if why is not None:
                        # The members are pending again when the batch is closed.
                        self._registry.stop_with(why)
                        continue
                await self._record(ended)
        finally:
            with translating_errors(path):
                path.unlink(missing_ok=True)

    async def _member_result(
        self, batch: Batch, member: Member, result: LineResult
    ) -> MemberResult | None:
        """How a member ended; None if it stays in the batch."""
        reply = result.reply
        if reply is None:
            return None
        if not 200 <= reply.status < 300:
            return self._failed(batch, member, self._classified(reply))
        received = await interpret(
            self._recorder, self._transport, member.request, result.body, reply
        )
        if isinstance(received, Failure):
            status = reply.status if result.is_http else None
            return self._failed(batch, member, replace(received, status=status))
        cost = self._prices.answer_cost(member.request, received.answer, batch=True)
        return _ended(batch, member, received, reply, self._worst(member) if cost is None else cost)

    def _classified(self, reply: Reply) -> Failure:
        return self._transport.redact_failure(classify(reply.status, reply.body, reply.headers))

    def _failed(self, batch: Batch, member: Member, failure: Failure) -> MemberResult | None:
        judged = self._judged(failure, batch)
        if judged is None:
            # The member is pending again when the batch is closed.
            return None
        cost = None if judged.may_be_billed or judged.usage is not None else 0
        if judged.usage is not None:
            cost = self._prices.usage_cost(member.request, judged.usage, batch=True)
        return _ended(batch, member, judged, judged, self._worst(member) if cost is None else cost)

    def _worst(self, member: Member) -> int | None:
        """What an unknown cost counts as: the highest possible if there is a cap, else None."""
        return member.cost if self._capped else None

    def _judged(self, failure: Failure, batch: Batch) -> Failure | None:
        """The failure of a row; None for a failure of the account, which stops the run."""
        if failure.meaning != "account":
            return failure
        answered, failed = counts_of(batch)
        if failure.reason == "forbidden" and (answered > failed or self._progress.done):
            # The account may do what it did for others.
            return replace(failure, meaning="row")
        if failure.reason in ("model", "service_tier") and self._job.rows_choose(failure.reason):
            return replace(failure, meaning="row")
        self._registry.stop_with(account_error(failure, self._server.host, batch.model))
        return None

    async def _record(self, results: Iterable[MemberResult | None]) -> None:
        ended = [result for result in results if result is not None]
        if not ended:
            return
        for result in await self._recorder.record_results(ended):
            answer, failure = result.outcome.answer, result.outcome.failure
            complete = answer is not None and (
                answer.ended or is_accepted(answer.finish_reason, self._accept)
            )
            self._progress.done += complete
            self._progress.incomplete += answer is not None and not complete
            # A passing failure is retried by another batch.
            self._progress.failed += failure is not None and not failure.is_passing
            # The cost of a failure is only an upper bound.
            self._progress.cost += (result.outcome.cost or 0) if answer is not None else 0


def _ended_at(seen: Mapping[str, Any]) -> float:
    """When a batch ended, in seconds since 1970; now, if the server names no past time."""
    times = [float(seen[name]) for name in _ENDS if name in seen]
    return min([*times[:1], time.time()])


def _ended(
    batch: Batch,
    member: Member,
    result: Received | Failure,
    reply: Reply | Failure,
    cost: int | None,
) -> MemberResult:
    """The outcome of a member, and its attempt.

    batch, member: which request it is
    result: its answer, or why there is none
    reply: what `result` was read from
    cost: nano-dollars, None if unknown
    """
    at = _ended_at(batch.seen)
    elapsed = max(0.0, at - batch.made_at)
    attempt = Attempt(
        number=1,
        started_at=batch.made_at,
        wait=0.0,
        elapsed=elapsed,
        cost=cost,
        batch=batch.number,
        **attempt_fields(result, reply),
    )
    received = result if isinstance(result, Received) else None
    outcome = Outcome(
        request=member.request,
        attempts=1,
        elapsed=elapsed,
        answered_at=at,
        answer=received.answer if received else None,
        reply=received.reply if received else b"",
        files=received.files if received else (),
        failure=result if isinstance(result, Failure) else None,
        request_id=attempt.request_id,
        cost=cost,
    )
    return MemberResult(member=member, outcome=outcome, attempt=attempt)
