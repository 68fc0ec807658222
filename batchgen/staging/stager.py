"""Pass 1: prompts -> requests -> rows, so that what is wrong is known before anything is sent.

It replaces all rows or none: with problems, the journal stays as it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import BinaryIO

from batchgen.errors import InputError, Problem
from batchgen.job import OPENAI_BATCH, Job, Prompts
from batchgen.journal import Journal
from batchgen.pricing import Prices
from batchgen.prompts import (
    Dialect,
    GivenRows,
    Prompt,
    TableOptions,
    open_given,
    open_prompts,
)
from batchgen.requests import Renderer, unknown_column
from batchgen.staging.problems import Problems
from batchgen.staging.prompt_stager import MOST_FEES, PromptStager
from batchgen.staging.result import PictureStamps, StagedPrompts, staged
from batchgen.staging.rows import StagingTables, kept_prompts

HeaderCheck = Callable[[Sequence[str]], list[Problem]]
# Receives how many lines of the prompts were read, very often.
LinesCallback = Callable[[int], None]


def has_prompts(stream: BinaryIO) -> bool:
    """Whether a stream holds any prompts. A terminal does not, nor an empty pipe as under cron."""
    if stream.isatty():
        return False
    peek = getattr(stream, "peek", None)
    return bool(peek(1)) if peek is not None else True


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenPrompts:
    """Prompts that come from no file.

    prompts: in order; iterated once.
    dialect: as if they had a file.
    digest: returns, after they were iterated, what changes whenever they may have changed.
    """

    prompts: Iterable[Prompt]
    dialect: Dialect
    digest: Callable[[], str]


class Stager:
    """One pass over the prompts of a job."""

    def __init__(
        self,
        job: Job,
        renderer: Renderer,
        prices: Prices,
        signature: str,
        *,
        check: HeaderCheck,
        capped: bool,
        on_lines: LinesCallback,
    ) -> None:
        """Read nothing yet.

        Args:
            job: the job.
            renderer: makes its requests.
            prices: what they cost.
            signature: the job's, from `signature_of`.
            check: finds problems in the prompts' header.
            capped: whether a request without a bound on its cost is a problem.
            on_lines: called very often with how many lines were read.
        """
        self._job, self._renderer, self._prices, self._signature = job, renderer, prices, signature
        self._check, self._capped, self._on_lines = check, capped, on_lines
        self._problems = Problems(job.prompts.source)

    def read(self, journal: Journal, stream: BinaryIO | None = None) -> StagedPrompts:
        """Stage the prompts file, or a `stream` in its place, in one transaction.

        Raises InputError with every problem; the journal is then as it was.
        """
        prompts = self._job.prompts
        if problems := self._renderer.problems(None):
            raise InputError(problems)
        with (
            open_prompts(
                self._job.prompts_path,
                stream=stream,
                display_name=prompts.source,
                format=prompts.format,
                encoding=prompts.encoding,
                bad_rows=prompts.bad_rows,
                on_lines=self._on_lines,
                table=_table_options(prompts),
            ) as file,
            journal.transaction() as connection,
        ):
            return self._stage(file, file.dialect, lambda: file.digest, connection, journal)

    def read_rows(self, journal: Journal, rows: GivenRows) -> StagedPrompts:
        """Stage the rows that a caller gives, in one transaction. Raises InputError."""
        prompts = self._job.prompts
        requests = prompts.format == OPENAI_BATCH
        file = open_given(rows, requests=requests, bad_rows=prompts.bad_rows)
        given = GivenPrompts(prompts=file, dialect=file.dialect, digest=lambda: file.digest)
        return self.read_given(journal, given)

    def read_given(self, journal: Journal, given: GivenPrompts) -> StagedPrompts:
        """Stage prompts that come from no file, in one transaction. Raises InputError."""
        if problems := self._renderer.problems(None):
            raise InputError(problems)
        with journal.transaction() as connection:
            return self._stage(given.prompts, given.dialect, given.digest, connection, journal)

    def read_again(self, journal: Journal) -> StagedPrompts:
        """Stage the kept prompts that came from no file once more, for a job that has changed.

        Raises InputError, also when none are kept.
        """
        last = staged(journal)
        if last is None or last.source != "-":
            raise InputError(
                "stdin: is empty, and prompts.path is '-'; pipe the prompts into batchgen, or give "
                "the rows in Python: run(job, prompts=rows)"
            )
        if problems := self._renderer.problems(None):
            raise InputError(problems)
        dialect = Dialect(
            format=last.format,
            delimiter=last.delimiter,
            encoding="utf-8",
            bom=last.bom,
            header=tuple(last.header),
        )
        with journal.transaction() as connection:
            return self._stage(
                kept_prompts(connection), dialect, lambda: last.digest, connection, journal
            )

    def _stage(
        self,
        prompts: Iterable[Prompt],
        dialect: Dialect,
        digest: Callable[[], str],
        connection: sqlite3.Connection,
        journal: Journal,
    ) -> StagedPrompts:
        """Stage prompts in a transaction.

        Args:
            prompts: in order.
            dialect: of their file. A JSONL file has no header before its end.
            digest: returns the file's digest, once the file is read to its end.
            connection, journal: the transaction's, and the journal that it is in.

        Raises InputError, which rolls the transaction back.
        """
        if dialect.header is not None and (problems := self._header_problems(dialect.header)):
            raise InputError(problems)
        tables = StagingTables(connection, self._report_duplicate)
        stager = PromptStager(
            self._job, self._renderer, self._prices, tables, self._problems, capped=self._capped
        )
        header: dict[str, None] = dict.fromkeys(dialect.header or ())
        with self._renderer.recording_pictures() as noted:
            stamps = PictureStamps(journal, noted)
            for prompt in self._readable(prompts):
                header.update(dict.fromkeys(prompt.columns))
                stager.stage(prompt)
                stamps.keep_full_page()
            stamps.keep_rest()
        stager.finish()
        if dialect.header is None and not self._problems:
            self._problems.add_all(self._header_problems(tuple(header)))
        self._problems.raise_any()
        tables.adopt_outcomes()
        result = StagedPrompts(
            signature=self._signature,
            source=self._job.prompts.path or self._job.prompts.job or "-",
            digest=digest(),
            format=dialect.format,
            delimiter=dialect.delimiter,
            bom=dialect.bom,
            header=list(header),
            job=str(self._job.path),
            capped=self._capped,
            pictures=stamps.pages,
            draws=stager.draws,
            batch_cost=stager.batch_shares.cost,
            batch_bound=stager.batch_shares.bound,
            fees_not_included=sorted(stager.fees)[:MOST_FEES],
            left_out=dict(stager.selection.left_out),
            empty=stager.selection.empty,
            assumes=list(stager.assumes),
            charged_share=stager.charged_share,
        )
        if not journal.shadowed:
            journal.keep("staged", asdict(result))
        return result

    def _readable(self, prompts: Iterable[Prompt]) -> Iterator[Prompt]:
        """The prompts up to where reading stops; the rows before may have problems too."""
        try:
            for prompt in prompts:
                self._on_lines(prompt.line)
                yield prompt
        except InputError as error:
            self._problems.add_all(error.problems, error.found)

    def _header_problems(self, header: Sequence[str]) -> list[Problem]:
        job = self._job
        columns: list[tuple[tuple[str, ...], str | None]] = [(("prompts", "id"), job.prompts.id)]
        if job.conversation is not None:
            columns += [
                (("conversation", "id"), job.conversation.id),
                (("conversation", "turns"), job.conversation.turns),
            ]
        missing = [
            job.problem(where, f"{'.'.join(where)}: {unknown_column(name, header)}{_hint(header)}")
            for where, name in columns
            if name is not None and name not in header
        ]
        hidden = [
            job.problem(
                ("matrix", axis),
                f"matrix.{axis}: the prompts have a column of this name; rename one of them",
            )
            for axis in job.matrix
            if axis in header
        ]
        return [*missing, *hidden, *self._renderer.problems(header), *self._check(header)]

    def _report_duplicate(self, row_id: str, line: int, first: int) -> None:
        # A problem also with `bad_rows: fail`, because either of the two rows may be the wrong one.
        self._problems.add(
            f"{self._job.prompts.id} {row_id!r} is the id of line {first} already", line
        )


def _table_options(prompts: Prompts) -> TableOptions:
    names = [each.name for each in fields(TableOptions)]
    values = {name: getattr(prompts, name) for name in names}
    header = values["header"]
    return TableOptions(**{**values, "header": tuple(header) if header else header})


def _hint(header: Sequence[str]) -> str:
    """A hint for a header that another delimiter would cut."""
    uncut = len(header) == 1 and any(mark in header[0] for mark in ",;\t|")
    return "; the header came out as one column: is prompts.delimiter right?" if uncut else ""
