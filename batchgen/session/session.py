"""One run of a job: what it opens and closes, and its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

from batchgen.disk import append_line
from batchgen.dispatch import Progress
from batchgen.errors import BatchgenError, OutputError
from batchgen.images import PictureFolder
from batchgen.job import Job, api_key, as_called
from batchgen.journal import (
    Journal,
    RowCounts,
    Scope,
    answering_models,
    begin_run,
    check_before_sending,
    count_rows,
    end_run,
    mark_lost,
)
from batchgen.journal.batches import committed, open_batches
from batchgen.journal.files import restamp_files
from batchgen.page import PAGE, write_page
from batchgen.pricing import dollars
from batchgen.recorder import picture_folder, settle_pictures
from batchgen.report import (
    NO_CALLS,
    Report,
    batch_json,
    exit_code_of,
    job_totals,
    run_totals,
    write_report,
)
from batchgen.session.announcements import announcements
from batchgen.session.backends import SIMULATED_KEY, Backends
from batchgen.session.budgets import is_capped
from batchgen.session.event_loop import run_to_end
from batchgen.session.options import Options
from batchgen.session.provenance import note_journal, provenance
from batchgen.signals import Signals
from batchgen.tables import Tables, check_formats, check_size
from batchgen.workspace import Workspace, publishing


class Session:
    """One run of a job, as a context manager.

    Entering it catches signals, locks the job's folder and opens the journal. Then call `stage`,
    `announce` and `dispatch`, or `cancel` alone; after either `write_tables` and `finish`.
    """

    workspace: Workspace
    _journal: Journal
    _signals: Signals
    _pictures: PictureFolder
    _draws: bool
    _before: RowCounts
    _tables: Tables

    def __init__(self, job: Job, options: Options | None = None) -> None:
        """Open nothing yet. Raises InputError when the job cannot be run as it is."""
        self._options = options = options or Options()
        job = as_called(job, mode=options.mode, gives_rows=options.prompts is not None)
        check_formats(job, job.output.tables)
        self._job = job
        self.workspace = Workspace.of(
            job, simulate=self._options.simulate, output=self._options.output
        )
        self._stack = ExitStack()
        self._progress = Progress()
        self._stopped: BatchgenError | None = None
        # Whether there is anything to send or to collect, and whether this run may send.
        self._busy = False
        self._sends = False
        self._has_new_tables = False
        self._number = 0
        self._began = 0.0

    def __enter__(self) -> Session:
        """Raises OutputError, BusyError, DamagedError."""
        try:
            self._signals = self._stack.enter_context(Signals())
            self._stack.enter_context(self.workspace.locked())
            self._note = self._stack.enter_context(publishing(self.workspace.folder))
            self._journal = self._stack.enter_context(self.workspace.open())
        except BaseException as error:
            # No `with` and `pop_all`: a signal that comes while we leave that block would leave
            # the lock held and would not become a RunInterruptedError.
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        # A disk that fails in dispatch fails for the tables too. The first failure is the cause.
        if isinstance(error, OutputError) and isinstance(self._stopped, OutputError):
            raise self._stopped from None

    # -- the steps of a run ------------------------------------------------------------------------

    def stage(self) -> None:
        """Read the prompts into the journal's rows, unless they are there. Raises InputError."""
        self._note.write("reading the prompts", self._progress)
        with self._options.reading() as on_lines:
            self.workspace.stage(
                self._journal,
                self._options.stdin,
                capped=is_capped(self._job, self._options),
                rows=self._options.prompts,
                say=self._options.say,
                on_lines=on_lines,
            )
        if changes := self.workspace.judge_again(self._journal):
            self._say(changes)

    def announce(self) -> None:
        """Say what runs again and what it costs, before anything is paid.

        Raises DamagedError, and InputError when a table cannot hold the rows.
        """
        self._sends = True
        self._count()
        check_size(self._job, sum(self._before.lines.values()))
        for sentence in announcements(self.workspace, self._journal, self._before):
            self._say(sentence)

    def dispatch(self) -> BatchgenError | None:
        """Send what is not answered and collect what batches answered; returns what stopped it.

        Raises AccountError when the key is missing.
        """
        return self._dispatch(Backends.send)

    def cancel(self, ids: Sequence[str] = ()) -> BatchgenError | None:
        """Cancel the batches with these ids (none given: all); returns what stopped it.

        Raises AccountError when the key is missing, InputError when there could be no tables.
        """
        self.workspace.layout(self._journal)
        self._count()
        return self._dispatch(partial(Backends.cancel, ids=ids))

    def write_tables(self) -> None:
        """Write the tables, unless they are there and nothing has changed. Raises OutputError."""
        self._note.write("writing the tables", self._progress)
        if self._draws:
            settle_pictures(self._pictures, self._journal)
        self._tables = self.workspace.tables(self._journal)
        # A run that sends nothing must not read a million rows to write the same tables once more.
        if self._before.to_send or not self._tables.are_current(self.workspace.folder):
            self._has_new_tables = True
            self._journal.forget_tables()
            self._tables.write(self.workspace.folder)
            for message in self._tables.messages:
                self._say(message)

    def finish(self, stopped: BatchgenError | None) -> Report:
        """End the run in the journal, report.json and run.log. Raises OutputError."""
        report = self._report(stopped)
        end_run(
            self._journal, self._number, report.exit_code, report.run_json(), self._tables.manifest
        )
        write_report(self.workspace.folder, report.as_json())
        if self._has_new_tables or not (self.workspace.folder / PAGE).exists():
            write_page(
                self.workspace.page_facts(report.job, report.run_json()),
                self._journal,
                self.workspace.renderer,
            )
        self._log(f"ended: {report.run.calls} calls, exit {report.exit_code}")
        for line in report.notes():
            self._log(line)
        return report

    # -- their parts -------------------------------------------------------------------------------

    def _count(self) -> None:
        """Count the rows as they stand before the run, lost pictures included."""
        self._began = time.monotonic()
        self._pictures = picture_folder(self.workspace.folder, self._journal)
        # Pictures may also have come with texts.
        has_pictures = (self.workspace.folder / "images").is_dir()
        self._draws = self.workspace.staged(self._journal).draws or has_pictures
        if self._draws:
            self._pictures.prepare()
            settle_pictures(self._pictures, self._journal)
            touched: list[tuple[str, int]] = []
            missing = self.workspace.missing_pictures(self._journal, touched)
            mark_lost(self._journal, missing)
            restamp_files(self._journal, touched)
        self._scope = self.workspace.scope(self._journal, **self._options.selection)
        self._before = self._counts(self._scope)
        todo = self._before.to_send if self._sends else 0
        self._progress.to_send = todo + self._before.in_batches
        self._busy = bool(todo or open_batches(self._journal))
        if self._busy:
            # A run that sends nothing does not wait for this.
            check_before_sending(self._journal)

    def _counts(self, scope: Scope) -> RowCounts:
        return count_rows(self._journal, scope, by_turns=self.workspace.by_turns)

    def _dispatch(
        self, work: Callable[[Backends], Coroutine[Any, Any, BatchgenError | None]]
    ) -> BatchgenError | None:
        """Begin the run in the journal, then do `work`, if there is any."""
        key = self._key() if self._busy else None
        self._signals.end_in_order()
        self._number = begin_run(
            self._journal,
            provenance(self.workspace, self._options, self._journal, key),
            self._job.text,
        )
        self._log(f"began: {self._before.to_send if self._sends else 0} requests to send")
        if not self._busy:
            return None
        note_journal(self.workspace, self._say)
        if source := self.workspace.server_from:
            self._say(f"the server is {self.workspace.host}, by OPENAI_BASE_URL in {source}")
        backends = Backends(
            workspace=self.workspace,
            journal=self._journal,
            pictures=self._pictures,
            options=self._options,
            run=self._number,
            key=key,
            signals=self._signals,
            scope=self._scope,
            before=self._before,
            note=self._note,
            progress=self._progress,
        )
        try:
            self._stopped = run_to_end(work(backends))
        except OutputError as error:
            # What was recorded before can still become tables.
            self._stopped = error
        return self._stopped

    def _key(self) -> str | None:
        return SIMULATED_KEY if self.workspace.simulate else api_key(self._job)

    def _report(self, stopped: BatchgenError | None) -> Report:
        journal, number, folder = self._journal, self._number, self.workspace.folder
        # Without work the counts from before still hold; a million rows are not counted again.
        now = self._counts(self._scope) if self._busy else self._before
        whole = now if self._scope == Scope() else self._counts(Scope())
        batches = open_batches(journal)
        held = now.to_send if self._progress.deferred else 0
        # Asked as late as possible: a signal that comes after this is not in the report.
        stopped = self._signals.reason_to_stop(stopped)
        if stopped is not None:
            code = stopped.exit_code
        elif batches or held:
            code = 6
        else:
            code = exit_code_of(self._job, now) if self._sends else 0
        return Report(
            name=self._job.name,
            number=number,
            exit_code=code,
            rows=now.lines,
            total=sum(now.lines.values()),
            run=run_totals(journal, number) if self._busy else NO_CALLS,
            job=job_totals(journal, whole, self._tables.empty),
            models=answering_models(journal, number) if self._busy else (),
            elapsed=time.monotonic() - self._began,
            simulated=self.workspace.simulate,
            stopped=str(stopped) if stopped else None,
            output=str(folder),
            tables=tuple(map(str, self._tables.paths(folder))),
            error_tables=tuple(map(str, self._tables.paths(folder, "errors"))),
            page="" if self._job.output_file else str(folder / PAGE),
            disarmed=self._tables.disarmed,
            noted=self._tables.noted,
            learned=self._progress.learned,
            in_batches=now.in_batches,
            batches=tuple(map(batch_json, batches)),
            held=held,
            committed=dollars(committed(journal, number)) if self._busy else 0.0,
        )

    def _say(self, message: str) -> None:
        self._options.say(f"{self._job.name}: {message}")

    def _log(self, text: str) -> None:
        append_line(self.workspace.folder / "run.log", f"run {self._number} {text}")
