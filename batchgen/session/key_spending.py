"""What a run spends with its key, in the file that all jobs of this machine share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from batchgen.dispatch import Progress
from batchgen.errors import BatchgenError, OutputError
from batchgen.journal import Journal
from batchgen.spend import all_spending, cost_caps, key_label, known_as, spent_by_key
from batchgen.workspace import Workspace

if TYPE_CHECKING:
    from batchgen.dispatch.limits.key_spending import Owner, SpendingStore
    from batchgen.dispatch.limits.shared_budget import SharedBudget

# Seconds between two times at which other jobs are shown what was spent.
INTERVAL = 1.0


class KeySpending:
    """Counts what a run spends, for its own caps on a day and a month and for those of other jobs.

    A simulated run counts nothing.
    """

    def __init__(
        self, workspace: Workspace, journal: Journal, key: str | None, warn: Callable[[str], None]
    ) -> None:
        """Args:
        workspace: the job's.
        journal: knows what the job spent.
        key: the API key; None for a server without keys.
        warn: shows a sentence if what the run spends cannot be counted for other jobs.
        """
        self._workspace, self._journal, self._key, self._warn = workspace, journal, key, warn
        self._caps = cost_caps(workspace.job)
        self._store: SpendingStore | None = None
        self._budget: SharedBudget | None = None
        # The progress of a run whose calls set no money aside, and how much of its cost is counted.
        self._progress: Progress | None = None
        self._counted = 0

    def begin(self, progress: Progress | None) -> SharedBudget | None:
        """Write anew what the job spent, and return what the run may spend from now on.

        progress: of a run that sets no money aside for its calls; its cost is counted.

        Returns None when nothing is counted. Raises OutputError when the file cannot be used and
        the job has caps that need it.
        """
        from batchgen.dispatch.limits.shared_budget import SharedBudget

        self._budget = None
        if self._workspace.simulate:
            return None
        try:
            store = self._write_anew()
        except OutputError as error:
            if self._caps:
                names = " and ".join(cap.name for cap in self._caps)
                raise OutputError(f"{names} cannot be kept: {error}") from None
            self._say(str(error))
            return None
        self._budget = SharedBudget(store, self._owner, self._caps, warn=self._say)
        if progress is not None:
            self._progress, self._counted = progress, progress.cost
        return self._budget

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Show other jobs what is spent, once a second while the block runs."""
        task = asyncio.create_task(self._publish(), name="publish spending")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def end(self) -> None:
        """Write anew what the job spent, as its journal has it now; nothing stays leased."""
        if self._workspace.simulate:
            return
        try:
            self._write_anew().close()
        except BatchgenError as error:
            self._say(str(error))

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            budget = self._budget
            if budget is None:
                continue
            if self._progress is not None and self._progress.cost != self._counted:
                budget.settle(0, self._progress.cost - self._counted)
                self._counted = self._progress.cost
            # A file that fails under a cap ends the run where money is set aside.
            try:
                await budget.publish()
            except OutputError:
                return

    def _write_anew(self) -> SpendingStore:
        from batchgen.dispatch.limits.key_spending import NAME, SpendingStore
        from batchgen.dispatch.limits.state_file import state_folder

        if self._store is None:
            self._store = SpendingStore(state_folder() / NAME, all_spending)
        owner = self._owner
        self._store.replace(owner, spent_by_key(self._journal).get(owner.key, {}))
        return self._store

    @property
    def _owner(self) -> Owner:
        from batchgen.dispatch.limits.key_spending import Owner

        job = self._workspace.job
        key = known_as(key_label(job, self._key))
        return Owner(key=key, folder=str(self._workspace.folder), job=job.name)

    def _say(self, reason: str) -> None:
        self._warn(f"what this run spends is not counted for the caps of other jobs: {reason}")
