"""The files that a job is made of, which it must never write over."""

from __future__ import annotations

from pathlib import Path

from batchgen.disk import is_same_file
from batchgen.errors import InputError
from batchgen.job import Job, KeyPath
from batchgen.page import PAGE
from batchgen.tables import table_paths

# What a run writes into the output folder beside the tables and the pictures.
_DATABASE = ("journal.db", "journal.db-shm", "journal.db-wal")
_OWN_FILES = (*_DATABASE, ".lock", PAGE, "report.json", "run.log")

_TABLES = ("results", "errors", "results.salvaged", "errors.salvaged")


def refuse_to_replace_inputs(job: Job, folder: Path) -> None:
    """Raise InputError when a file that the job writes is its prompts file or the job file.

    Only files that exist are compared: by what they are, because links and a file system that
    takes `A` for `a` give one file many names.
    """
    own = [folder / name for name in _OWN_FILES]
    written = [path for table in _TABLES for path in table_paths(job, folder, table)]
    inputs: list[tuple[KeyPath, str, Path]] = []
    if job.output_file is None:
        inputs.append(((), "the job file", job.path))
    if job.prompts_path is not None:
        inputs.append((("prompts", "path"), "prompts.path", job.prompts_path))
    if isinstance(job.output.schema_, str):
        name = "output.schema"
        inputs.append((("output", "schema"), name, job.folder / job.output.schema_))
    if problems := [
        job.problem(
            where,
            f"{name}: a run would write {target} over this file; "
            "choose another output.dir, or copy the file and name the copy",
        )
        for where, name, path in inputs
        for target in (*written, *own)
        if is_same_file(path, target)
    ]:
        raise InputError(problems)
