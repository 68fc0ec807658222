"""`batchgen redo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from batchgen.cli.options import one_job
from batchgen.cli.terminal import print_result
from batchgen.errors import InputError, Problem

if TYPE_CHECKING:
    from batchgen.job import Job


@click.command()
@one_job
@click.argument("identities", metavar="[ID]...", nargs=-1)
@click.option("--failed", is_flag=True, help="All failed rows.")
@click.option("--incomplete", is_flag=True, help="All incomplete rows.")
@click.option("--all", "everything", is_flag=True, help="All rows.")
@click.option(
    "--damaged",
    is_flag=True,
    help="All rows whose answers are damaged: make a new journal of all that is sound.",
)
@click.option(
    "--from",
    "source",
    type=click.File("rb"),
    metavar="FILE",
    help="The rows whose ids are in FILE, one per line; - is stdin.",
)
def redo(
    job: Job,
    identities: tuple[str, ...],
    failed: bool,
    incomplete: bool,
    everything: bool,
    damaged: bool,
    source: BinaryIO | None,
    simulate: bool,
    output: Path | None,
) -> None:
    """Mark rows to run again.

    The next run of JOB sends them again, and in a conversation also the turns after them. Each old
    answer stays until its new one arrives.
    """
    from batchgen import maintenance

    ids = [*identities, *(_read_ids(source) if source else [])]
    statuses = {"succeeded", "failed", "incomplete"} if everything else set()
    statuses |= {"failed"} if failed else set()
    statuses |= {"incomplete"} if incomplete else set()
    if damaged:
        _mend(job, simulate=simulate, output=output)
        if not ids and not statuses:
            return
    if not ids and not statuses:
        raise click.UsageError(
            "name rows by ID, --from FILE, --failed, --incomplete, --damaged or --all"
        )
    marked = maintenance.redo(job, ids, statuses=statuses, simulate=simulate, output=output)
    command = _run_again(job, simulate)
    later_turns = ", later turns included" * (job.conversation is not None)
    print_result(f"{job.name}: {marked:,} marked{later_turns}; {command} sends them again")


def _run_again(job: Job, simulate: bool) -> str:
    return f"batchgen run {job.display_name}{' --simulate' * simulate}"


def _mend(job: Job, *, simulate: bool, output: Path | None) -> None:
    """Replace a damaged journal by what is sound of it."""
    from batchgen.salvage import mend

    mended = mend(job, simulate=simulate, output=output)
    for sentence in mended.sentences():
        print_result(f"{job.name}: {sentence}")
    for path in mended.paths:
        print_result(f"{job.name}: the damaged journal is kept as {path}")
    if mended.lost:
        print_result(f"{job.name}: {_run_again(job, simulate)} sends the rows again")


def _read_ids(source: BinaryIO) -> list[str]:
    """The ids in a text file, one per line. Raises InputError if it is not UTF-8."""
    try:
        text = source.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            [Problem(path=source.name, message="is not UTF-8; save the ids as UTF-8")]
        ) from None
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
