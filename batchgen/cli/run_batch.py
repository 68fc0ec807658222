"""`batchgen run-batch`: a file of requests in, a file of results out, without a job file."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click

from batchgen.cli.execute import execute, run_job
from batchgen.cli.jobs_json import jobs_json
from batchgen.cli.options import (
    json_option,
    limit_option,
    max_cost_option,
    piped_prompts,
    quiet_option,
)
from batchgen.cli.terminal import as_json, print_message, print_result


@click.command("run-batch")
@click.option(
    "-i",
    "--input-file",
    "source",
    metavar="PATH|-",
    required=True,
    help="The requests; - is stdin.",
)
@click.option(
    "-o",
    "--output-file",
    "target",
    metavar="PATH",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="The results. Everything else is kept beside them, in PATH.batchgen.",
)
@click.option(
    "--base-url", metavar="URL", help="The server; by default OPENAI_BASE_URL, else OpenAI's."
)
@click.option("--allow-http", is_flag=True, help="Allow plain http to another machine.")
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="The environment variable that holds the key; by default OPENAI_API_KEY, which only "
    "OpenAI's server requires.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Requests in flight at the same time.",
)
@click.option("--simulate", is_flag=True, help="Use the simulated API; needs no key.")
@limit_option("requests")
@max_cost_option("this run")
@json_option
@quiet_option("every request succeeded")
def run_batch(
    source: str,
    target: Path,
    base_url: str | None,
    allow_http: bool,
    api_key_env: str | None,
    concurrency: int | None,
    simulate: bool,
    limit: int | None,
    max_cost: float | None,
    as_object: bool,
    quiet: bool,
) -> None:
    """Send a file of requests, without a job.

    Each line of the input is a request in the Batch API's format, and is sent online. Each line of
    the output is a result in that format, successes and failures in the order of the input. The
    same command resumes.
    """
    from batchgen.job import job_for_batch_file

    _check_target(source, target)
    job = job_for_batch_file(
        source,
        target,
        base_url=base_url,
        allow_http=allow_http,
        api_key_env=api_key_env,
        concurrency=concurrency,
    )
    # The folder of real results may be gone while their file is still there: only a folder of
    # simulated results proves that the file is simulated.
    only_simulated = (
        job.output_dir(None, True).exists() and not job.output_dir(None, False).exists()
    )
    if simulate and target.exists() and not only_simulated:
        raise click.UsageError(
            f"-o {target} has real results; name another file for simulated ones."
        )
    if job.env_note:
        print_message(job.env_note)
    action = partial(
        run_job,
        limit=limit,
        max_cost=max_cost,
        simulate=simulate,
        stdin=piped_prompts(job),
        quiet=quiet,
    )
    code, as_dict = execute(action, job, summary=not as_object, quiet=quiet)
    if as_object:
        print_result(as_json(jobs_json(code, [as_dict])))
    raise click.exceptions.Exit(code)


def _check_target(source: str, target: Path) -> None:
    """Raise click.UsageError if the results cannot go to `target`."""
    from batchgen.disk import file_stamp, is_same_file

    if str(target) == "-":
        raise click.UsageError(
            "-o must be a file: the record that lets the same command resume is kept beside it."
        )
    if os.path.lexists(target) and file_stamp(target) is None:
        raise click.UsageError(f"-o {target} is a link or not a regular file; name another.")
    if source != "-" and is_same_file(Path(source), target):
        raise click.UsageError("-o would replace the requests; name another file.")
