"""What is sound of a damaged journal: into tables, or into a new journal."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from batchgen.disk import refuse_link, sync_folder, temporary_path, translating_errors
from batchgen.errors import InputError, OutputError, listed
from batchgen.job import Job
from batchgen.journal import Journal
from batchgen.journal.database import NAME
from batchgen.journal.salvage import Damage, lost_rows, salvage
from batchgen.report import pluralize
from batchgen.staging import staged
from batchgen.workspace import Workspace

# What stands in the names of tables that are made of a damaged journal, before their ending.
MARK = ".salvaged"

# The words for the records of the tables, as far as their loss matters by itself.
_LOSSES = {
    "attempts": "calls, which no longer count as spent",
    "reserved": "calls in flight, which no longer count as spent",
    "runs": "runs",
    "batches": "batches, whose requests may be sent again",
    "members": "requests in batches, which may be sent again",
    "files": "entries of pictures",
    "follows": "entries of what answers of conversations followed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """What was saved of a journal.

    Attributes:
        paths: the files that were written.
        damage: what could not be taken.
        lost: the ids of the rows whose answers are lost.
    """

    paths: list[Path]
    damage: Damage
    lost: list[str]

    def sentences(self) -> Iterator[str]:
        """What is lost, in words."""
        if not self.damage:
            yield "the journal is sound"
        if not (self.damage.records or self.damage.unreadable):
            yield "nothing is lost"
        if self.lost:
            yield f"answers of {pluralize(len(self.lost), 'row')} are lost: {listed(self.lost)}"
        elif self.damage.of("outcomes"):
            # Without its calls, nobody knows which rows had an answer.
            is_known = not self.damage.of("attempts")
            yield f"{'no' if is_known else 'it cannot be told which'} row has lost its answer"
        if self.damage.of("prompts", "rows", "adopted", "meta"):
            yield "what was read of the prompts is damaged; it is read again from the prompts file"
        for table, words in _LOSSES.items():
            if table in self.damage.unreadable:
                yield f"an unknown number of {words}, is lost"
            elif number := self.damage.records.get(table, 0):
                yield f"{number:,} {words}, are lost"


def export_salvaged(job: Job, *, simulate: bool = False, output: Path | None = None) -> Salvaged:
    """Write every sound answer of a damaged journal to tables of their own: results.salvaged.csv.

    Neither the journal nor the tables are touched. Raises InputError when the staged rows are
    damaged and cannot be read again, DamagedError when nothing can be read, OutputError.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with _salvaged(workspace) as (journal, damage):
        paths = workspace.tables(journal).write(workspace.folder, mark=MARK)
        return Salvaged(paths=paths, damage=damage, lost=lost_rows(journal))


def mend(job: Job, *, simulate: bool = False, output: Path | None = None) -> Salvaged:
    """Replace a damaged journal by one of its sound records; the damaged one is kept beside it.

    The next run sends the rows again whose answers are lost. A sound journal is left alone. Raises
    BusyError, and what `export_salvaged` raises.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    path = workspace.folder / NAME
    _require(workspace)
    with workspace.locked():
        _close_log(path)
        with _salvaged(workspace, may_lack_rows=True) as (journal, damage):
            lost = lost_rows(journal)
            journal.close()
            if not damage:
                return Salvaged(paths=[], damage=damage, lost=lost)
            with translating_errors(path):
                kept = _keep(path)
                _sync(journal.path)
                os.replace(journal.path, path)
                sync_folder(path.parent)
            return Salvaged(paths=[kept], damage=damage, lost=lost)


def _require(workspace: Workspace) -> None:
    """Raise InputError unless the job has a journal."""
    path = workspace.folder / NAME
    refuse_link(path)
    if not path.exists():
        raise InputError(f"{workspace.job.display_name}: has not been run yet")


@contextmanager
def _salvaged(
    workspace: Workspace, *, may_lack_rows: bool = False
) -> Iterator[tuple[Journal, Damage]]:
    """A new journal of the sound records of a job's, in a temporary file, with its rows staged.

    `may_lack_rows`: they are not staged if their prompts cannot be read; else raises InputError.
    """
    _require(workspace)
    path = temporary_path(workspace.folder, NAME)
    try:
        journal, damage = salvage(workspace.folder / NAME, path, accept=workspace.job.output.accept)
        with journal:
            if staged(journal) is None:
                with suppress(*[InputError] * may_lack_rows):
                    workspace.stage(journal, capped=bool(workspace.job.limits.on_cost))
            yield journal, damage
    finally:
        with suppress(OSError):
            path.unlink()


def _close_log(path: Path) -> None:
    """Move what the write-ahead log of a journal holds into its file.

    Raises OutputError when another program has the journal open.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=1)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise OutputError(f"{path}: another program has it open; close that and try again")


def _keep(path: Path) -> Path:
    """Give a file a second name beside it, so that its first one can be replaced."""
    names = (f"{path.stem}.damaged{f'-{n}' * (n > 1)}{path.suffix}" for n in count(1))
    kept = next(each for name in names if not os.path.lexists(each := path.with_name(name)))
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, kept)
        _sync(kept)
    return kept


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
