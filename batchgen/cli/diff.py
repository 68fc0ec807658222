"""`batchgen diff`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.comparison_text import pair_lines, summary_lines
from batchgen.cli.options import one_job
from batchgen.cli.terminal import print_result

if TYPE_CHECKING:
    from batchgen.job import Job


@click.command()
@one_job
@click.option(
    "--run",
    "runs",
    type=click.IntRange(min=1),
    metavar="N",
    multiple=True,
    help="Compare what the rows had after this run and after another; give it twice.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write a page instead.",
)
def diff(
    job: Job, runs: tuple[int, ...], html: Path | None, simulate: bool, output: Path | None
) -> None:
    """Compare answers before and after a change.

    Prints, side by side, the answers of JOB that changed with its prompt or its model: the last
    one of each row, and the one before it. It only reads.
    """
    from batchgen.comparison import compare, write_comparison

    if len(runs) not in (0, 2):
        raise click.UsageError("--run is given twice: --run A --run B")
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError("--html writes a page; name a file that ends in .html")
    chosen = (runs[0], runs[1]) if runs else None
    with compare(job, runs=chosen, simulate=simulate, output=output) as comparison:
        if html is not None:
            write_comparison(comparison, html)
            print_result(str(html))
            return
        for pair in comparison.pairs:
            if lines := list(pair_lines(pair, comparison.names)):
                print_result("\n".join([*lines, ""]))
        print_result("\n".join(summary_lines(comparison)))
