"""Commands that change or check a job without sending anything: redo, export, verify."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.errors import DamagedError
from batchgen.images import is_intact
from batchgen.job import Job
from batchgen.report import as_json, job_totals, write_report
from batchgen.workspace import Workspace

if TYPE_CHECKING:
    pass
from batchgen.queries import rows_named


def redo(
    job: Job,
    identities: Sequence[str] = (),
    *,
    statuses: Iterable[str] = (),
    simulate: bool = False,
    output: Path | None = None,
) -> int:
    """Mark rows to be asked again by the next run: those named, those in these statuses, and of conversations the later
    turns, which follow from them. The old answers stay until the new ones land. Returns how many requests were marked,
    later turns included. Raises InputError, BusyError."""
    place = Workspace.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
    with place.locked(), place.open() as journal:
        return journal.mark_redo(rows_named(journal, identities), set(statuses))


def export(job: Job, *, simulate: bool = False, output: Path | None = None) -> list[Path]:
    """Make the tables and report.json again from the journal, without the network. Raises DamagedError."""
    place = Workspace.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
        # Prompts, rows and outcomes are checked as they are read; what is only counted is checked here.
        for trouble in journal.damage(("attempts", "runs")):
            raise DamagedError(trouble)
        paths = place.tables(journal).write(place.folder)
        about = job_totals(journal, journal.standing(None, by_turns=place.by_turns))
        write_report(
            place.folder, as_json(job.name, about, journal.last_report(), simulated=simulate)
        )
        return paths


def verify(job: Job, *, simulate: bool = False, output: Path | None = None) -> list[str]:
    """Check the journal and every picture that the tables show; everything that is not what was written, a sentence
    each."""
    place = Workspace.of(job, simulate=simulate, output=output)
    with place.peek() as journal:
        place.staged(journal)
        troubles = list(journal.damage())
        if troubles:
            return troubles
        shown = (journal.shown(row, recorded) for row, recorded in journal.answered())
        return [
            f"{place.folder / file['path']}: is missing or not what was written; the next run draws it again"
            for recorded in shown
            if recorded is not None
            for file in journal.files_of(recorded)
            if not is_intact(place.folder, file, rehash=True)
        ]
