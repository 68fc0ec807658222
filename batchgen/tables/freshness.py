"""Whether the tables in a folder are those that would be written.

A run that sends nothing must not read a million rows to write the same tables once more. So the
journal keeps, until it changes, a digest of what its tables were made of besides the journal
itself, and the stamp of each file when it was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from batchgen.disk import file_stamp
from batchgen.job import Job
from batchgen.journal.records import digest_of
from batchgen.requests import Renderer, canonical
from batchgen.tables.layout import TableLayout

# Raise this number whenever the code makes other tables from the same journal: tables of an older
# version are then written again.
TABLES_VERSION = 5


def recipe_of(job: Job, renderer: Renderer, layout: TableLayout) -> str | None:
    """A digest of everything that the tables are made of, except the journal.

    None when a column shows pictures: their bytes are only known while the cells are made.
    """
    columns = renderer.columns_signature()
    if columns is None:
        return None
    # Another version of the template engine may render a computed column differently.
    engine = version("jinja2")
    parts = [TABLES_VERSION, engine, columns, job.output.model_dump(), repr(layout)]
    return digest_of(canonical(parts)).hex()


def are_unchanged(folder: Path, files: Mapping[str, Sequence[int]]) -> bool:
    """Whether each of these files has the size (bytes) and mtime (ns) that it had.

    An edit that keeps both is not noticed.
    """
    return all(file_stamp(folder / name) == tuple(stamp) for name, stamp in files.items())
