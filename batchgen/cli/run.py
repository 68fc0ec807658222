"""`batchgen run`: one or more jobs, one exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchgen.cli.execute import PRECEDENCE, execute, run_job, stage_job
from batchgen.cli.jobs_json import jobs_json
from batchgen.cli.options import (
    in_mode,
    job_options,
    json_option,
    limit_option,
    load_with_prompts,
    max_cost_option,
    mode_option,
    piped_prompts,
    quiet_option,
    wait_option,
)
from batchgen.cli.sample import SEED, check_mode, check_sample, print_sample, rest_command
from batchgen.cli.terminal import as_json, print_message, print_result
from batchgen.errors import BatchgenError, BusyError, InputError, OutputError, Problem

if TYPE_CHECKING:
    from batchgen.job import Job


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@job_options
@limit_option("rows")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Send N rows at random, print their answers, and say what the rest costs.",
)
@click.option(
    "--seed",
    type=int,
    metavar="S",
    help=f"Draw other rows; the same seed draws the same rows.  [default: {SEED}]",
)
@mode_option
@wait_option
@max_cost_option("this run, all jobs together")
@json_option
@quiet_option("every row succeeded or is in a batch")
def run(
    jobs: tuple[str, ...],
    prompts: str | None,
    simulate: bool,
    output: Path | None,
    limit: int | None,
    sample: int | None,
    seed: int | None,
    mode: str | None,
    wait: bool,
    max_cost: float | None,
    as_object: bool,
    quiet: bool,
) -> None:
    """Send what has no answer yet.

    Sends the unanswered rows of each JOB, collects the answers of its batches, and writes its
    tables. The same command resumes.
    """
    if prompts == "-" and len(jobs) > 1:
        raise click.UsageError("--prompts - feeds one job; name one")
    check_sample(jobs, limit=limit, seed=seed, sample=sample, quiet=quiet)
    seed = SEED if seed is None else seed
    loaded = _load_all(jobs, prompts=prompts, mode=mode, simulate=simulate, output=output)
    options: dict[str, Any] = {
        "max_cost": max_cost,
        "quiet": quiet,
        "simulate": simulate,
        "output": output,
    }
    if sample is not None:
        check_mode(loaded[0])
        options |= {"sample": sample, "seed": seed}
    staged = _stage_all(loaded, **options) if len(loaded) > 1 else set()
    ends = _run_all(loaded, staged, wait=wait, summary=not as_object, limit=limit, **options)
    code = min((code for code, _ in ends), key=PRECEDENCE.index)
    if as_object:
        print_result(as_json(jobs_json(code, [as_dict for _, as_dict in ends])))
    elif sample is not None and "error" not in ends[0][1]:
        command = rest_command(jobs[0], prompts=prompts, simulate=simulate, output=output)
        drawn = {"sample": sample, "seed": seed, "simulate": simulate, "output": output}
        print_sample(load_with_prompts(jobs[0], prompts), command, drawn)
    raise click.exceptions.Exit(code)


def _load_all(
    paths: Sequence[str],
    *,
    prompts: str | None,
    mode: str | None,
    simulate: bool,
    output: Path | None,
) -> list[Job]:
    """Load every job before the first one starts.

    Raises InputError with the problems of all jobs, also if two of them share an output folder.

    - `paths`: the job files
    - `prompts`, `mode`, `simulate`, `output`: the options of the command
    """
    from batchgen.workspace import Workspace

    jobs: list[Job] = []
    problems = _Problems()
    paths_by_folder: dict[Path, str] = {}
    for path in paths:
        try:
            job = in_mode(load_with_prompts(path, prompts), mode)
            with notifying(job, simulate=simulate, output=output):
                workspace = Workspace.of(job, simulate=simulate, output=output)
                if template_problems := workspace.renderer.problems(None):
                    raise InputError(template_problems)
            if (other := paths_by_folder.get(workspace.folder)) is not None:
                raise InputError(
                    f"has the output folder of {other} ({workspace.folder}); "
                    "set name: to keep them apart"
                )
            paths_by_folder[workspace.folder] = path
            jobs.append(job)
        except InputError as error:
            problems.add(error, path)
    problems.raise_any()
    return _in_order(jobs)


@contextmanager
def notifying(
    job: Job, *, simulate: bool, output: Path | None, **_: Any
) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
    """What tells of the end of a run, for the block in which the job runs.

    Of a job that cannot run (2), and of a bug (1), is told when the block ends with that.
    """
    from batchgen import notify

    def tell(code: int, as_dict: Mapping[str, Any]) -> None:
        if not simulate:
            notify.notify(job, code, as_dict, output=output, say=print_message)

    try:
        yield tell
    except Exception as error:
        if isinstance(error, InputError) or not isinstance(error, BatchgenError):
            tell(getattr(error, "exit_code", BatchgenError.exit_code), {})
        raise


def _in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs in the order of the command, but each after the job whose answers it needs."""
    by_path = {job.path: job for job in jobs}
    ordered: dict[Path, Job] = {}

    def add(job: Job) -> None:
        # No job waits for itself, however far: a workspace cannot be made of such jobs.
        if job.upstream_path in by_path:
            add(by_path[job.upstream_path])
        ordered.setdefault(job.path, job)

    for job in jobs:
        add(job)
    return list(ordered.values())


def _stage_all(jobs: Sequence[Job], **options: Any) -> set[int]:
    """Read the prompts of every job before the first one starts; the jobs that were read, by index.

    The answers of a job of this command are not there yet; they are read when their turn comes. A
    job that another process is running, or whose output cannot be written, ends with that when
    its turn comes. Raises InputError with the problems of all jobs.
    """
    staged = set()
    problems = _Problems()
    paths = {job.path for job in jobs}
    for index, job in enumerate(jobs):
        if job.upstream_path in paths:
            continue
        try:
            with notifying(job, **options):
                stage_job(job, stdin=piped_prompts(job), **options)
            staged.add(index)
        except InputError as error:
            problems.add(error, job.display_name)
        except (BusyError, OutputError):
            continue
    problems.raise_any()
    return staged


class _Problems:
    """The problems of several jobs."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._found = 0

    def add(self, error: InputError, path: str) -> None:
        """Add those of an error of the job at `path`."""
        self._problems += error.problems or [Problem(path=path, message=str(error))]
        self._found += max(error.found, 1)

    def raise_any(self) -> None:
        """Raise InputError if there are any."""
        if self._problems:
            raise InputError(self._problems, found=self._found)


def _run_all(
    jobs: Sequence[Job],
    staged: Set[int],
    *,
    wait: bool,
    max_cost: float | None,
    summary: bool,
    quiet: bool,
    **options: Any,
) -> list[tuple[int, dict[str, Any]]]:
    """Run every job; of each the exit code, and its report or its error as JSON.

    - `staged`: the indexes of the jobs whose prompts are read already
    - `wait`: wait for batches, once those of all jobs are sent
    - `max_cost`: USD that all jobs may spend together
    - `summary`, `quiet`: as `execute` takes them
    - `options`: fields of `Options` for every run
    """
    ends: dict[int, tuple[int, dict[str, Any]]] = {}
    for waits in [False, True] if wait and len(jobs) > 1 else [wait]:
        again: set[Path | None] = set()
        for number, job in enumerate(jobs):
            waited = number not in ends or ends[number][0] == 6
            if not waited and job.upstream_path not in again:
                continue
            again.add(job.path)
            stdin = None if number in staged else piped_prompts(job)
            action = partial(
                run_job, wait=waits, max_cost=max_cost, quiet=quiet, stdin=stdin, **options
            )
            with notifying(job, **options) as notify:
                code, as_dict = execute(action, job, summary=summary, quiet=quiet)
                notify(code, as_dict)
            ends[number] = code, as_dict
            if max_cost is not None:
                # The next job may spend what this one left. A job whose output failed has no
                # report and may have spent everything.
                unknown = None if code == OutputError.exit_code else 0.0
                spent = as_dict.get("run", {}).get("committed", unknown)
                max_cost = 0.0 if spent is None else max(0.0, max_cost - spent)
            if code in (130, 143):
                return list(ends.values())
    return list(ends.values())
