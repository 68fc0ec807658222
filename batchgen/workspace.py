"""One job's place: its output folder, lock and journal, and what turns its rows into requests, money and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from batchgen.disk import make_folder, refuse_link, sweep, translating_errors
from batchgen.errors import BusyError, InputError
from batchgen.images import is_intact
from batchgen.job import Connection, Job, connection
from batchgen.journal import Journal
from batchgen.pricing import Prices
from batchgen.requests import Renderer
from batchgen.staging.stager import (
    StagedPrompts,
    Stager,
    has_more,
    is_current,
    signature_of,
    staged,
)
from batchgen.tables import TableLayout, Tables, conflicts, layout

# The provider's word in the key of a simulated request, so that nothing simulated ever stands for an answer.
SIMULATED_PROVIDER = "simulate"


def _silently(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a job's results are and how they are made; nothing is opened or written by making one."""

    job: Job
    simulate: bool
    folder: Path
    connection: Connection
    renderer: Renderer
    prices: Prices

    @classmethod
    def of(cls, job: Job, *, simulate: bool = False, output: Path | None = None) -> Workspace:
        """The place of a job; `output` is the root that replaces its outputs folder. Raises InputError."""
        link = connection(job)
        return cls(
            job=job,
            simulate=simulate,
            folder=job.output_dir(output, simulate),
            connection=link,
            renderer=Renderer(job, SIMULATED_PROVIDER if simulate else link.identity),
            prices=Prices(job.pricing, link.base_url),
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the job: raises BusyError at once when another process does, OutputError when nothing can be written.

        The lock is the kernel's: it is free again the moment its process is gone, however it went.
        """
        make_folder(self.folder)
        path = self.folder / ".lock"
        refuse_link(path)
        lock = FileLock(path, timeout=0)
        with translating_errors(path):
            try:
                lock.acquire()
            except Timeout:  # an OSError too
                raise BusyError(
                    f"{self.folder}: another process is running this job; try again when it has ended"
                ) from None
        try:
            sweep(self.folder)
            if self.job.together is not None:
                sweep(self.job.together.parent, self.job.together.name)
            yield
        finally:
            lock.release()

    def open(self) -> Journal:
        """The journal for writing, under the lock."""
        return self._accepting(Journal.open(self.folder))

    def peek(self, *, shadow: bool = False) -> Journal:
        """The journal for reading; with `shadow` rows can be staged beside it without touching it."""
        return self._accepting(Journal.peek(self.folder, shadow=shadow))

    def _accepting(self, journal: Journal) -> Journal:
        journal.accept(self.job.output.accept)
        return journal

    def staged(self, journal: Journal) -> StagedPrompts:
        """What pass 1 left in the journal. Raises InputError when there was none yet."""
        found = staged(journal)
        if found is None:
            command = f"batchgen run {self.job.shown}{' --simulate' if self.simulate else ''}"
            raise InputError(f"{self.job.shown}: has not been run yet; run it first: {command}")
        return found

    def is_current(self, journal: Journal, stream: BinaryIO | None, *, capped: bool) -> bool:
        """Whether the journal holds what pass 1 would bring."""
        return not self._from(stream) and is_current(
            self.job, journal, self._signature(), capped=capped
        )

    def _signature(self) -> str:
        return signature_of(self.job, self.renderer, self.connection.base_url)

    def stage(
        self,
        journal: Journal,
        stream: BinaryIO | None = None,
        *,
        capped: bool,
        say: Callable[[str], None] = _silently,
    ) -> None:
        """Pass 1, unless the journal holds what it would bring. Prompts of a stream (`prompts.path: "-"`) that brings
        nothing are those that came last. Raises InputError."""
        bringing, last = self._from(stream), staged(journal)
        if (
            self.job.prompts.path == "-"
            and not bringing
            and last is not None
            and last.source == "-"
        ):
            say("stdin is empty; going on with the prompts of the last run")
        if self.is_current(journal, stream, capped=capped):
            return
        # A file that was renamed is no other job.
        if last is not None and last.job != str(self.job.path) and Path(last.job).is_file():
            about = "its rows leave the tables, its answers stay in the journal; set name: to keep them apart"
            say(f"{self.folder} was last used by {last.job}; {about}")
        intake = Stager(
            self.job,
            self.renderer,
            self.prices,
            self._signature(),
            check=lambda header: conflicts(self.job, header),
            capped=capped,
        )
        if self.job.prompts.path == "-" and not bringing:
            intake.read_again(journal)
        else:
            intake.read(journal, stream if bringing else None)

    def _from(self, stream: BinaryIO | None) -> bool:
        return self.job.prompts.path == "-" and stream is not None and has_more(stream)

    def missing(self, journal: Journal) -> list[tuple[str, bytes]]:
        """The (ident, key) of the answers whose pictures are not what was written."""
        return [
            (file["ident"], file["key"])
            for file in journal.files()
            if not is_intact(self.folder, file)
        ]

    def layout(self, journal: Journal) -> TableLayout:
        """How this job's tables look. Raises InputError when the job has changed so that columns would hide others."""
        found = self.staged(journal)
        if problems := conflicts(self.job, found.header):
            raise InputError(problems)
        return layout(self.job, found.header, delimiter=found.delimiter, bom=found.bom)

    def tables(self, journal: Journal) -> Tables:
        """What makes this job's tables."""
        return Tables(self.job, journal, self.renderer, self.layout(journal))

    @property
    def by_turns(self) -> bool:
        """Whether a table line is all the turns of a row."""
        return self.job.conversation is not None and self.job.conversation.turns is not None
