"""The options that commands share, and how the JOB of a command is loaded."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from batchgen.cli.terminal import print_message

if TYPE_CHECKING:
    from batchgen.job import Job

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Usd(click.FloatRange):
    """An amount of money above 0 that is a finite number."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        amount: float = super().convert(value, param, ctx)
        # click's range check lets nan and inf through.
        if not math.isfinite(amount):
            self.fail(f"{value} is not an amount of money.", param, ctx)
        return amount


json_option = click.option("--json", "as_object", is_flag=True, help="Print one JSON object.")
mode_option = click.option(
    "--mode",
    type=click.Choice(["online", "batch"]),
    help="Send in this mode, whatever the job says.",
)
wait_option = click.option("--wait", is_flag=True, help="Wait until the job's batches have ended.")


def limit_option(what: str) -> Decorator:
    """`--limit N`, for the first N of `what` (rows, requests)."""
    return click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Use only the first N {what} of the file.",
    )


def max_cost_option(scope: str) -> Decorator:
    """`--max-cost USD`; `scope` says what the money is for."""
    return click.option(
        "--max-cost",
        type=_Usd(min=0, min_open=True),
        metavar="USD",
        help=f"Spend at most this much in {scope}.",
    )


def quiet_option(when: str) -> Decorator:
    """`--quiet`; `when` says when nothing is printed."""
    return click.option("--quiet", is_flag=True, help=f"Print nothing when {when}.")


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that takes a JOB."""
    for option in (
        click.option(
            "--simulate",
            is_flag=True,
            help="Use the simulated API and a separate output folder; needs no key.",
        ),
        click.option(
            "--prompts",
            metavar="PATH|-",
            help="Read these prompts instead of the job's; - is stdin.",
        ),
        click.option(
            "--output",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="The folder that holds the jobs' output folders.",
        ),
    ):
        command = option(command)
    return command


def one_job(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the JOB argument and its options, and pass the loaded job to the command."""

    @job_options
    @click.argument("job", metavar="JOB")
    @wraps(command)
    def load_first(job: str, prompts: str | None, **options: Any) -> Any:
        return command(load_with_prompts(job, prompts), **options)

    return load_first


def load_with_prompts(path: str, prompts: str | None) -> Job:
    """The job of a job file, with other prompts if `--prompts` names some. Raises InputError."""
    from batchgen.job import load_job, with_prompts

    job = load_job(path)
    if job.env_note:
        print_message(job.env_note)
    return with_prompts(job, prompts) if prompts is not None else job


def in_mode(job: Job, mode: Any) -> Job:
    """The job in the mode that `--mode` names (None: the job's own)."""
    from batchgen.job import with_mode

    return with_mode(job, mode) if mode is not None else job


def piped_prompts(job: Job) -> BinaryIO | None:
    """The stream of the prompts, for a job whose prompts are piped in; else None."""
    return sys.stdin.buffer if job.prompts.path == "-" else None
