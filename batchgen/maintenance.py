"""Commands that change or check a job without sending anything: redo, export, verify."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import batchgen
from batchgen.errors import DamagedError
from batchgen.images import is_intact
from batchgen.inspection import find_rows
from batchgen.job import Job
from batchgen.journal import (
    answered_between,
    answering_models,
    count_rows,
    find_damage,
    last_report,
    mark_redo,
    rows_with_outcomes,
    shown_outcome,
)
from batchgen.journal.files import file_at, files_of
from batchgen.page import write_page
from batchgen.report import as_json, describe_empty_cells, job_totals, write_report
from batchgen.tables import check_formats
from batchgen.tables.dataset import DatasetFacts, card_of, write_dataset
from batchgen.workspace import Workspace


def redo(
    job: Job,
    identities: Sequence[str] = (),
    *,
    statuses: Iterable[str] = (),
    simulate: bool = False,
    output: Path | None = None,
) -> int:
    """Mark rows that the next run sends again; returns how many requests were marked.

    The later turns of a conversation follow from the marked one, so they are marked too. Old
    answers stay until the new ones are there. Raises InputError, BusyError.

    Args:
        job: the job.
        identities: the ids of rows to mark.
        statuses: mark all rows in these statuses.
        simulate: mark rows of the simulated run.
        output: the folder that replaces the job's outputs folder.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    # Without a journal there is nothing to lock, and `locked` would make the folder.
    with workspace.peek() as journal:
        workspace.staged(journal)
    with workspace.locked(), workspace.open() as journal:
        return mark_redo(journal, find_rows(journal, identities), set(statuses))


def export(
    job: Job,
    *,
    simulate: bool = False,
    output: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Write the tables and report.json again, from the journal alone; returns the tables' paths.

    `say` receives what the user should know. Raises InputError, DamagedError, OutputError.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with workspace.peek() as journal, journal.snapshot():
        workspace.staged(journal)
        # Prompts, rows and outcomes are checked as they are read. The tables that are only
        # counted are checked here.
        for damage in find_damage(journal, ("attempts", "runs")):
            raise DamagedError(damage)
        tables = workspace.tables(journal)
        paths = tables.write(workspace.folder)
        counts = count_rows(journal, by_turns=workspace.by_turns)
        totals = job_totals(journal, counts, tables.empty)
        for message in (*tables.messages, *describe_empty_cells(tables.empty)):
            say(message)
        run = last_report(journal)
        write_report(workspace.folder, as_json(job.name, totals, run, simulated=simulate))
        write_page(workspace.page_facts(totals, run), journal, workspace.renderer)
        return paths


def export_dataset(
    job: Job,
    folder: Path,
    *,
    simulate: bool = False,
    output: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Write the results table and its pictures as a folder that Hugging Face's `datasets` loads.

    Args:
        job: the job.
        folder: is made; it must not have files yet.
        simulate: export the simulated run.
        output: the folder that replaces the job's outputs folder.
        say: receives what the user should know.

    Raises InputError, DamagedError, OutputError.
    """
    check_formats(job, ["parquet"])
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with workspace.peek() as journal, journal.snapshot():
        prompts = workspace.staged(journal)
        layout = workspace.layout(journal)
        began, ended = answered_between(journal)
        facts = DatasetFacts(
            name=job.name,
            kind=job.kind or str(job.prompts.format),
            prompts="no file" if prompts.source == "-" else Path(prompts.source).name,
            # Replies with pictures do not name the model.
            models=answering_models(journal) or [str(job.request.get("model", ""))],
            rows=count_rows(journal, by_turns=workspace.by_turns).lines,
            began=began,
            ended=ended,
            simulated=simulate,
            version=batchgen.__version__,
        )
        write_dataset(
            folder,
            workspace.tables(journal).results(),
            {**dict.fromkeys(layout.inputs, object), **layout.own},
            pictures=workspace.folder,
            card=card_of(facts),
            say=say,
        )


def verify(job: Job, *, simulate: bool = False, output: Path | None = None) -> list[str]:
    """Check the journal and every picture in the tables; returns a sentence for each fault.

    Raises InputError, DamagedError.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with workspace.peek() as journal:
        with journal.snapshot():
            workspace.staged(journal)
            faults = list(find_damage(journal))
            if faults:
                # A damaged journal cannot say what its pictures should be.
                return faults
            outcomes = (
                shown_outcome(journal, row, recorded)
                for row, recorded in rows_with_outcomes(journal)
            )
            broken = [
                file
                for outcome in outcomes
                if outcome is not None
                for file in files_of(journal, outcome)
                if not is_intact(workspace.folder, file, rehash=True)
            ]
        return [
            f"{workspace.folder / file['path']}: is missing or was changed; "
            "the next run draws it again"
            for file in broken
            # A run that goes on may have replaced a picture since the snapshot.
            if file_at(journal, file["path"]) == file
        ]
