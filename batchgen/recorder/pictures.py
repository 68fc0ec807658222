"""The pictures of a job as its journal knows them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from batchgen.images import PictureFolder
from batchgen.journal import Journal
from batchgen.journal.files import file_at, forget_files, orphaned_files


def picture_folder(output: Path, journal: Journal) -> PictureFolder:
    """The picture folder below a job's output folder. Touches nothing yet."""
    return PictureFolder(output, partial(file_at, journal))


def settle_pictures(pictures: PictureFolder, journal: Journal) -> None:
    """Make the folder what the journal says: each picture that an answer owns has its name, and
    what no answer owns any more is in `replaced/`.

    Call it while nothing is being answered. Raises OutputError, DamagedError.
    """
    pictures.settle()
    orphans = orphaned_files(journal)
    for file in orphans:
        pictures.set_aside(file)
    forget_files(journal, orphans)
