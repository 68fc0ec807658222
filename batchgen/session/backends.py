"""The server, the client and the backends that a run sends with.

The server is the job's own, or a simulated one that lives as long as the run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from batchgen.disk import append_line
from batchgen.dispatch import Progress
from batchgen.errors import BatchgenError
from batchgen.images import PictureFolder
from batchgen.job import Connection
from batchgen.journal import Journal, RowCounts, Scope
from batchgen.recorder import (
    Corrections,
    FolderReplyReader,
    JournalBatchRecorder,
    JournalRecorder,
    RequestSource,
)
from batchgen.session.budgets import failures_left, is_capped, spending
from batchgen.session.key_spending import KeySpending
from batchgen.session.memory import frozen_objects
from batchgen.session.options import Options
from batchgen.session.progress import Monitor
from batchgen.session.stopping import StopNotices
from batchgen.signals import Signals
from batchgen.workspace import RunningNote, Workspace

if TYPE_CHECKING:
    from batchgen.dispatch.api.client import Client
    from batchgen.dispatch.batches.backend import BatchBackend
    from batchgen.dispatch.limits.spending import Spending

# The key for the simulated API, which takes any key. Keys are cut out of every answer, so it must
# be a text that no answer holds by chance.
SIMULATED_KEY = "sk-the-simulated-api-takes-any"

# Seconds that a batch takes at the simulated API of a run, so that a rehearsal is short.
SIMULATED_BATCH = 1.0


# Not slotted: cached_property needs a __dict__.
@dataclass(frozen=True, kw_only=True)
class Backends:
    """Sends what a run has to send, or cancels what it has in batches.

    Attributes:
        workspace: the job's folder, connection and prices.
        journal: open for writing.
        pictures: the folder that takes the pictures of answers.
        options: what the caller set.
        run: the number of the run.
        key: the API key; None for a server that needs none.
        signals: receive the function that stops the active backend.
        scope: the rows that may be sent.
        before: the row counts from before the run.
        note: says how the run goes on, for `status`.
        progress: updated in place by the backend at work.
    """

    workspace: Workspace
    journal: Journal
    pictures: PictureFolder
    options: Options
    run: int
    key: str | None
    signals: Signals
    scope: Scope
    before: RowCounts
    note: RunningNote
    progress: Progress = field(default_factory=Progress)

    async def send(self) -> BatchgenError | None:
        """Collect what batches have answered, then send. Returns what stopped it, or None."""
        from batchgen.dispatch.batches.client import ServerUnresponsiveError

        async with self._open() as (source, recorder, client, batches):
            stopped = await self._collect_earlier(batches)
            if stopped is None and self.workspace.job.mode == "online":
                return await self._send_online(client, source, recorder)
            # A simulated API ends with the run, and its batches with it.
            wait = self.options.wait or self.workspace.simulate
            while stopped is None:
                stopped = await batches.run(source.threads())
                if isinstance(stopped, ServerUnresponsiveError) and wait and batches.is_waiting:
                    # What could not be sent now is sent when a batch has ended.
                    stopped = None
                if stopped is None and batches.must_send_again:
                    continue
                if stopped is not None or not wait or not batches.is_waiting:
                    break
                stopped = await batches.wait()
            return stopped or (None if batches.is_waiting else batches.never_fits_error)

    async def cancel(self, ids: Collection[str] = ()) -> BatchgenError | None:
        """Cancel the batches with these ids (none given: all) and collect what they answered.

        Returns what stopped it, or None.
        """
        async with self._open() as (_, _, _, batches):
            if self.workspace.simulate:
                # They were at the simulated API of an earlier run, which is gone.
                stopped = await batches.forget()
            else:
                stopped = await batches.cancel(ids)
            while stopped is None and self.options.wait and batches.is_waiting:
                stopped = await batches.wait()
            return stopped

    async def _collect_earlier(self, batches: BatchBackend) -> BatchgenError | None:
        """Collect what earlier runs sent in batches; with `wait` in mode online, all of it."""
        if self.workspace.simulate:
            # They were at the simulated API of an earlier run, which is gone.
            stopped = await batches.forget()
        else:
            stopped = await batches.settle()
        wait = self.options.wait and self.workspace.job.mode == "online"
        while stopped is None and wait and batches.is_waiting:
            stopped = await batches.wait()
        return stopped

    @asynccontextmanager
    async def _open(
        self,
    ) -> AsyncIterator[tuple[RequestSource, JournalRecorder, Client, BatchBackend]]:
        # openai takes a second to import, and plan and status do not need it.
        from batchgen.dispatch.api.client import Client
        from batchgen.dispatch.api.redaction import SHORTEST_KEY
        from batchgen.dispatch.batches.backend import BatchBackend
        from batchgen.journal import Writer

        workspace, writer = self.workspace, Writer(self.journal.path)
        try:
            async with (
                self._server() as connection,
                Client(
                    connection,
                    self.key,
                    connections=self._concurrency,
                    direct=workspace.simulate,
                ) as client,
            ):
                corrections = Corrections(workspace.job, workspace.expectations, self.journal)
                source = RequestSource(
                    workspace.job,
                    workspace.renderer,
                    self.journal,
                    writer,
                    corrections,
                    run=self.run,
                    scope=self.scope,
                )
                recorder = JournalRecorder(source, self._reader(), writer, self.run)
                batches = BatchBackend(
                    transport=client,
                    recorder=JournalBatchRecorder(
                        recorder, corrections, self.journal, writer, self.run
                    ),
                    job=workspace.job,
                    failures_left=failures_left(workspace.job, self.before),
                    prices=workspace.prices,
                    spending=self._spending,
                    capped=is_capped(workspace.job, self.options),
                    progress=self.progress,
                    host=workspace.host,
                    folder=workspace.folder,
                    metadata={"job": workspace.job.name, "run": str(self.run)},
                    say=self._warn,
                )
                self.signals.set_stop(self._notices.around(batches.stop))
                if not client.redacts_key:
                    self._warn(
                        f"the API key has fewer than {SHORTEST_KEY} characters, so it cannot be"
                        " told from the text of an answer; answers are kept as they come"
                    )
                async with self._monitor().watching(), self._key_spending.publishing():
                    with frozen_objects():
                        yield source, recorder, client, batches
        finally:
            self.signals.set_stop(None)
            await writer.close()
            self._key_spending.end()

    def _reader(self) -> FolderReplyReader:
        workspace = self.workspace
        return FolderReplyReader(self.pictures, workspace.expectations, workspace.job.output.accept)

    async def _send_online(
        self, client: Client, source: RequestSource, recorder: JournalRecorder
    ) -> BatchgenError | None:
        from batchgen.dispatch.limits.admission import own_limiter
        from batchgen.dispatch.limits.shared import SharedLimits
        from batchgen.dispatch.online.backend import OnlineBackend

        shared = SharedLimits(self.workspace.connection.base_url, self.key, say=self._warn)
        online = OnlineBackend(
            transport=client,
            recorder=recorder,
            job=self.workspace.job,
            concurrency=self._concurrency,
            failures_left=failures_left(self.workspace.job, self.before),
            prices=self.workspace.prices,
            spending=self._spending(),
            progress=self.progress,
            host=self.workspace.host,
            # A simulated API belongs to this run alone, so its limits are not shared.
            limiters=own_limiter if self.workspace.simulate else shared.limiter,
        )
        self.signals.set_stop(self._notices.around(online.stop))
        try:
            return await online.run(source.threads())
        finally:
            shared.close()

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[Connection]:
        if not self.workspace.simulate:
            yield self.workspace.connection
            return
        from batchgen.simulator import Settings, Simulator

        async with Simulator(Settings(batch_speed=SIMULATED_BATCH)) as simulator:
            yield replace(self.workspace.connection, base_url=simulator.url, headers={})

    def _warn(self, message: str) -> None:
        self.options.say(f"{self.workspace.job.name}: {message}")
        self._log(message)

    def _log(self, message: str) -> None:
        append_line(self.workspace.folder / "run.log", message)

    def _monitor(self) -> Monitor:
        return Monitor(
            options=self.options,
            progress=self.progress,
            before=self.before.requests,
            note=self.note,
            log=self._log,
        )

    @cached_property
    def _notices(self) -> StopNotices:
        return StopNotices(self.progress, self.journal, self._warn)

    @cached_property
    def _concurrency(self) -> int:
        """How many workers the run has: as the job asks, within the limit on open files."""
        from batchgen.dispatch.api.file_descriptors import available_connections

        return available_connections(self.workspace.job.limits.concurrency)

    def _spending(self) -> Spending:
        workspace, options = self.workspace, self.options
        # A batch counts at its highest when it is sent, and calls under a cap before they are.
        alone = workspace.job.mode == "batch" or is_capped(workspace.job, options)
        shared = self._key_spending.begin(None if alone else self.progress)
        return spending(
            workspace.job,
            options,
            self.journal,
            workspace.prices,
            self.run,
            self.progress,
            shared,
        )

    @cached_property
    def _key_spending(self) -> KeySpending:
        return KeySpending(self.workspace, self.journal, self.key, self._warn)
