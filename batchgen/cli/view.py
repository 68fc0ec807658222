"""`batchgen view`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.options import one_job
from batchgen.cli.serving import until_signalled
from batchgen.cli.terminal import print_message

if TYPE_CHECKING:
    from batchgen.job import Job


@click.command()
@one_job
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port on 127.0.0.1; by default any free one.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def view(job: Job, simulate: bool, output: Path | None, port: int, no_browser: bool) -> None:
    """Look at a job in the browser.

    Serves the page of JOB from its journal to this machine alone, also while a run is going, until
    interrupted.
    """
    import asyncio

    from batchgen.view import serve

    def announce(url: str) -> None:
        print_message(f"{job.name} is at {url} (Ctrl-C ends it)")
        if not no_browser:
            import webbrowser

            webbrowser.open(url)

    serving = serve(job, port=port, simulate=simulate, output=output, on_ready=announce)
    asyncio.run(until_signalled(serving))
