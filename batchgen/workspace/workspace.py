"""One job's folder, lock and journal, and what makes its requests, prices and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.errors import InputError
from batchgen.images import intact_mtime
from batchgen.job import Connection, Job, connection
from batchgen.journal import Journal, Scope, scope_of
from batchgen.journal.files import all_files
from batchgen.journal.scope import DrawnBy, Sample
from batchgen.page import PageFacts
from batchgen.pricing import Prices
from batchgen.prompts import GivenRows
from batchgen.recorder import judge_again
from batchgen.report import JobTotals
from batchgen.requests import Renderer
from batchgen.schemas import Expectations
from batchgen.staging import (
    LinesCallback,
    StagedPrompts,
    Stager,
    has_prompts,
    is_current,
    signature_of,
    staged,
)
from batchgen.tables import TableLayout, Tables, conflicts, layout_of
from batchgen.workspace.inputs import refuse_to_replace_inputs
from batchgen.workspace.lock import locked
from batchgen.workspace.upstream import answers, state_of, upstream_of

# The provider in the fingerprint of a simulated request, so that its answer never counts as a real
# one.
SIMULATED_PROVIDER = "simulate"


def _ignore(_: object) -> None:
    """Ignore a message, or a number of lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a job's results are and how they are made. Making one opens and writes nothing.

    Attributes:
        job: the job.
        simulate: whether the simulated API answers it.
        folder: its output folder.
        connection: its server.
        renderer: makes its requests.
        prices: what its calls cost.
        expectations: what its answers must be.
        upstream: the workspace of the job whose answers are its prompts, if one's are.
    """

    job: Job
    simulate: bool
    folder: Path
    connection: Connection
    renderer: Renderer
    prices: Prices
    expectations: Expectations
    upstream: Workspace | None = None

    @classmethod
    def of(
        cls,
        job: Job,
        *,
        simulate: bool = False,
        output: Path | None = None,
        downstream: tuple[Path, ...] = (),
    ) -> Workspace:
        """The workspace of a job.

        Args:
            job: the job.
            simulate: whether the simulated API answers it.
            output: replaces its outputs folder.
            downstream: the jobs whose prompts its answers are, one the next one's.

        Raises InputError, also when the job would write over a file that it is made of.
        """
        server = connection(job)
        folder = job.output_dir(output, simulate)
        refuse_to_replace_inputs(job, folder)
        make = partial(cls.of, simulate=simulate, output=output)
        upstream = upstream_of(job, folder, downstream, make)
        provider = SIMULATED_PROVIDER if simulate else server.provider_id
        return cls(
            job=job,
            simulate=simulate,
            folder=folder,
            connection=server,
            renderer=Renderer(job, provider, upstream.folder if upstream else None),
            prices=Prices(job.pricing, server.base_url),
            expectations=Expectations(job),
            upstream=upstream,
        )

    @property
    def host(self) -> str:
        """The server, as messages name it."""
        return "the simulated API" if self.simulate else self.connection.host

    @property
    def server_from(self) -> str | None:
        """The `.env` whose OPENAI_BASE_URL names the server; None if none does."""
        path = None if self.simulate else self.job.server_from
        return str(path) if path else None

    @property
    def by_turns(self) -> bool:
        """Whether a line of the tables stands for all turns of a row."""
        return self.job.conversation is not None and self.job.conversation.turns is not None

    # -- folder, lock and journal ------------------------------------------------------------------

    def locked(self) -> AbstractContextManager[None]:
        """Hold the job's lock while the block runs. Raises BusyError, OutputError."""
        return locked(self.folder, self.job.output_file)

    def open(self) -> Journal:
        """Open the journal for writing. Only under the lock."""
        return Journal.open(self.folder, accept=self.job.output.accept)

    def peek(self, *, shadow: bool = False) -> Journal:
        """Open the journal for reading; with `shadow`, rows can be staged without touching it."""
        return Journal.peek(self.folder, accept=self.job.output.accept, shadow=shadow)

    # -- prompts -> rows ---------------------------------------------------------------------------

    def staged(self, journal: Journal) -> StagedPrompts:
        """What the last staging left in the journal. Raises InputError when there was none."""
        prompts = staged(journal)
        if prompts is None:
            command = (
                f"batchgen run {self.job.display_name}{' --simulate' if self.simulate else ''}"
            )
            raise InputError(
                f"{self.job.display_name}: has not been run yet; run it first: {command}"
            )
        return prompts

    def is_current(self, journal: Journal, stdin: BinaryIO | None, *, capped: bool) -> bool:
        """Whether the journal's rows are those that `stage` would make."""
        return not self._reads(stdin) and is_current(
            self.job,
            journal,
            self._signature(),
            capped=capped,
            given=state_of(self.upstream) if self.upstream else None,
        )

    def stage(
        self,
        journal: Journal,
        stdin: BinaryIO | None = None,
        *,
        capped: bool,
        rows: GivenRows | None = None,
        say: Callable[[str], None] = _ignore,
        on_lines: LinesCallback = _ignore,
    ) -> StagedPrompts:
        """Read the prompts into the journal's rows, unless the journal has those rows already.

        Returns what is staged. Raises InputError.

        Args:
            journal: open for writing, or a shadow.
            stdin: the prompts of a job whose `prompts.path` is "-". If it is empty or None, the
                prompts of the last run stay.
            capped: whether the cost is capped, so that every request needs an upper bound.
            rows: the prompts of a job made by `as_called`, which are always read.
            say: called with messages for a person.
            on_lines: called very often with how many lines of the prompts were read.
        """
        self.check_schema()
        reads_stdin, last = self._reads(stdin), staged(journal)
        from_stdin = self.job.prompts.path == "-"
        is_empty = stdin is not None and not reads_stdin
        if from_stdin and is_empty and last is not None and last.source == "-":
            say("stdin is empty; going on with the prompts of the last run")
        if rows is None and self.is_current(journal, stdin, capped=capped):
            # Pass 1 does not depend on the templates of output.columns, which may be new.
            self.layout(journal)
            return self.staged(journal)
        # A job file that was renamed is still the same job: only one that exists is another.
        if last is not None and last.job != str(self.job.path) and Path(last.job).is_file():
            say(
                f"{self.folder} was last used by {last.job}; its rows leave the tables, "
                "its answers stay in the journal; set name: to keep them apart"
            )
        stager = Stager(
            self.job,
            self.renderer,
            self.prices,
            self._signature(),
            check=lambda header: conflicts(self.job, header),
            capped=capped,
            on_lines=on_lines,
        )
        if rows is not None:
            return stager.read_rows(journal, rows)
        if self.upstream:
            with answers(self.upstream) as given:
                return stager.read_given(journal, given)
        if from_stdin and not reads_stdin:
            return stager.read_again(journal)
        return stager.read(journal, stdin if reads_stdin else None)

    def scope(
        self, journal: Journal, *, limit: int | None, sample: int | None = None, seed: int = 1
    ) -> Scope:
        """The rows that a run or a plan is about.

        journal: holds the rows.
        limit: only the first ones, this many (None: all).
        sample, seed: only this many at random, drawn by the seed; of a job whose rows make
            conversations, this many conversations.
        """
        if sample is None:
            return scope_of(journal, limit)
        by_thread = self.job.conversation is not None and self.job.conversation.id is not None
        by: DrawnBy = "conversation" if by_thread else "id" if self.job.prompts.id else "cells"
        return scope_of(journal, limit, Sample(rows=sample, seed=seed, by=by))

    def check_schema(self) -> None:
        """Raise InputError when the job's own JSON Schema cannot be used."""
        if problems := self.expectations.problems():
            raise InputError(problems)

    def judge_again(self, journal: Journal) -> str:
        """Judge recorded answers by what the job asks for now; returns what came of it, or ""."""
        return judge_again(self.job, self.renderer, self.expectations, journal)

    def _signature(self) -> str:
        return signature_of(self.job, self.renderer, self.connection.base_url)

    def _reads(self, stdin: BinaryIO | None) -> bool:
        return self.job.prompts.path == "-" and stdin is not None and has_prompts(stdin)

    # -- answers -> files --------------------------------------------------------------------------

    def missing_pictures(
        self, journal: Journal, touched: list[tuple[str, int]] | None = None
    ) -> list[tuple[str, bytes]]:
        """The (outcome id, fingerprint) of answers whose pictures are gone or were changed.

        `touched` gets the path and the mtime (ns) of each picture that only has another mtime than
        it had, as in a restored backup: it was read to find that out.
        """
        missing = []
        for file in all_files(journal):
            mtime = intact_mtime(self.folder, file)
            if mtime is None:
                missing.append((file["ident"], file["key"]))
            elif touched is not None and mtime != file["mtime"]:
                touched.append((file["path"], mtime))
        return missing

    def layout(self, journal: Journal) -> TableLayout:
        """The layout of the job's tables.

        Raises InputError when the job has changed so that two columns would have one name, or one
        could never have a cell.
        """
        prompts = self.staged(journal)
        columns = self.renderer.columns
        if problems := conflicts(self.job, prompts.header) + columns.problems(prompts.header):
            raise InputError(problems)
        return layout_of(self.job, prompts.header, delimiter=prompts.delimiter, bom=prompts.bom)

    def page_facts(self, totals: JobTotals, run: Mapping[str, Any] | None) -> PageFacts:
        """What the job's page says; `run` is the last run's part of report.json."""
        return PageFacts(
            job=self.job,
            folder=self.folder,
            host=self.host,
            simulated=self.simulate,
            totals=totals,
            run=run,
        )

    def tables(self, journal: Journal) -> Tables:
        """What makes the job's tables. Raises InputError as `layout` does."""
        return Tables(self.job, journal, self.renderer, self.layout(journal))
