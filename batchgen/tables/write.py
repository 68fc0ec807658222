"""Writes every table of a job in one pass over its journal."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from batchgen.disk import FileStamp
from batchgen.job import OPENAI_BATCH, Job
from batchgen.journal import Journal, RecordedOutcome, Row
from batchgen.requests import Renderer
from batchgen.tables.batchfiles import (
    WriteResult,
    answer_of,
    batch_writer,
    custom_id,
    failure_of,
)
from batchgen.tables.build import Records, reason_of
from batchgen.tables.formats import WRITERS, ColumnType, Picture, Record, TableFile, Write
from batchgen.tables.formulas import disarmed
from batchgen.tables.freshness import are_unchanged, recipe_of
from batchgen.tables.layout import TableLayout

# The ending of a table's file, where that is not the name of its format.
_ENDINGS = {OPENAI_BATCH: "batch.jsonl"}


class Tables:
    """The tables of a job.

    Attributes:
        disarmed: how many cells got an apostrophe in the tables that were written or found.
        noted: how many answers in them had something to tell, as `Records` counts them.
        messages: what `write` has to tell the user about cells that a format cannot hold.
        empty: the columns of output.columns with empty cells in those tables, as `ComputedCells`
            counts them.
    """

    def __init__(self, job: Job, journal: Journal, renderer: Renderer, layout: TableLayout) -> None:
        self._job, self._journal, self._renderer, self._layout = job, journal, renderer, layout
        self._records = Records(job, journal, renderer, layout)
        self._files: dict[str, FileStamp] = {}
        self.disarmed = 0
        self.noted: dict[str, int] = {}
        self.messages: list[str] = []
        self.empty: dict[str, dict[str, Any]] = {}

    def results(self) -> Iterator[Record]:
        """The records of the results table, in the prompts file's order. Raises DamagedError."""
        return self._records.results()

    # -- freshness ---------------------------------------------------------------------------------

    def are_current(self, folder: Path) -> bool:
        """Whether the folder's tables are those that `write` would write."""
        kept = self._journal.meta("tables")
        if (
            kept is None
            or kept["recipe"] != self._recipe()
            or not are_unchanged(folder, kept["files"])
        ):
            return False
        self.disarmed, self.empty, self._files = kept["disarmed"], kept["empty"], kept["files"]
        self.noted = kept["noted"]
        return True

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What the journal keeps about the tables that were written or found, until it changes.

        None when nothing can tell later whether they are still current.
        """
        recipe = self._recipe()
        if not recipe or not self._files:
            return None
        return {
            "recipe": recipe,
            "files": self._files,
            "disarmed": self.disarmed,
            "noted": self.noted,
            "empty": self.empty,
        }

    def _recipe(self) -> str | None:
        return recipe_of(self._job, self._renderer, self._layout)

    # -- writing -----------------------------------------------------------------------------------

    def paths(self, folder: Path, table: str = "results") -> list[Path]:
        """The files of the results table, or of the errors table."""
        return table_paths(self._job, folder, table)

    def write(self, folder: Path, *, mark: str = "") -> list[Path]:
        """Write every table of the job; returns the paths of the results tables.

        With a `mark`, they are other files: it stands in their names before the ending. Raises
        OutputError, DamagedError; each file then has its old content or its new one.
        """
        layout, records = self._layout, self._records
        with ExitStack() as stack:
            results = self._open(folder, f"results{mark}", layout.inputs, layout.own, stack)
            errors = self._open(folder, f"errors{mark}", layout.named, layout.errors, stack)
            answers, failures = self._open_batch_files(folder, mark, stack)
            for prompt in records.prompts():
                for record in records.lines(prompt) if results else ():
                    for write in results:
                        write(record)
                for row, recorded in chain.from_iterable(prompt):
                    if errors and row.status in ("failed", "incomplete"):
                        error = records.error(row, recorded)
                        for write in errors:
                            write(error)
                    if answers and failures:
                        self._write_batch_line(row, recorded, folder, answers, failures)
        self.empty, self.noted = records.computed.empty, dict(records.noted)
        return self.paths(folder, f"results{mark}")

    def _open(
        self,
        folder: Path,
        table: str,
        first: Sequence[str],
        own: Mapping[str, ColumnType],
        stack: ExitStack,
    ) -> list[Write]:
        """Open a table in every format of the job but that of the Batch API.

        Args:
            folder: the job's output folder.
            table: the file's name without its ending.
            first: the user's columns, which come first and are never changed.
            own: the columns that batchgen adds, with their types.
            stack: closes the files; each then appears.
        """
        if self._job.output_file is not None:
            return []
        layout = self._layout
        # Text in batchgen's own columns comes from a model or a server, or is made of it.
        texts = frozenset(name for name, kind in own.items() if kind in (str, Picture, object))
        return [
            stack.enter_context(
                WRITERS[form](
                    TableFile(
                        path=folder / _file_name(table, form),
                        columns={**dict.fromkeys(first, object), **own},
                        delimiter=layout.delimiter,
                        bom=layout.bom,
                        disarm=partial(self._disarm, texts) if layout.safe else None,
                        on_written=partial(self._note, folder),
                        say=self.messages.append,
                    )
                )
            )
            for form in self._job.output.tables
            if form != OPENAI_BATCH
        ]

    def _open_batch_files(
        self, folder: Path, mark: str, stack: ExitStack
    ) -> tuple[WriteResult, WriteResult] | tuple[None, None]:
        """Open the Batch API's files: answers and failures apart, or both in one file."""
        note = partial(self._note, folder)
        if self._job.output_file is not None:
            both = stack.enter_context(batch_writer(self._job.output_file, on_written=note))
            return both, both
        if OPENAI_BATCH not in self._job.output.tables:
            return None, None
        answers, failures = (
            stack.enter_context(
                batch_writer(folder / _file_name(f"{table}{mark}", OPENAI_BATCH), on_written=note)
            )
            for table in ("results", "errors")
        )
        return answers, failures

    def _write_batch_line(
        self,
        row: Row,
        recorded: RecordedOutcome | None,
        folder: Path,
        answers: WriteResult,
        failures: WriteResult,
    ) -> None:
        """Write how a request ended, or nothing if it has not ended.

        Args:
            row: its row.
            recorded: its outcome (None: it could not be made).
            folder: the job's output folder, which holds the pictures.
            answers: writes a line of the output file.
            failures: writes a line of the error file.
        """
        name = custom_id(self._job, row)
        # With an answer, another one was asked for by `redo` and failed: one file tells both.
        answered = recorded if recorded is not None and recorded.status != "failed" else None
        if row.status == "failed" and not (answered and answers is failures):
            reason = reason_of(recorded) if recorded else "input"
            failures(row.seq, failure_of(name, row, recorded, reason))
        if row.status in ("succeeded", "incomplete", "failed") and answered:
            answer = answer_of(name, row, answered, self._renderer, folder)
            if answer is not None:
                answers(row.seq, answer)

    def _note(self, folder: Path, path: Path, stamp: FileStamp) -> None:
        self._files[os.path.relpath(path, folder)] = stamp

    def _disarm(self, texts: Collection[str], name: str, cell: str) -> str:
        """Keep a spreadsheet from running a cell, in the columns `texts`."""
        safe = disarmed(cell) if name in texts else cell
        self.disarmed += safe != cell
        return safe


def table_paths(job: Job, folder: Path, table: str) -> list[Path]:
    """The files of a job's table "results" or "errors"."""
    if job.output_file is not None:
        return [job.output_file] if table == "results" else []
    return [folder / _file_name(table, form) for form in job.output.tables]


def _file_name(table: str, form: str) -> str:
    return f"{table}.{_ENDINGS.get(form, form)}"
