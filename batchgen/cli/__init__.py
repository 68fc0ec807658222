"""Words for people and scripts in, one call, exit code out.

- `terminal`  what goes in and out of the process
- `progress`  how a run is watched
- `words`     what `plan` and `status` say

Results go to stdout, progress and messages to stderr. Nothing heavy is imported before a command runs. The only door to
click and tqdm.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from batchgen.cli.messages import batch_line, planned
from batchgen.cli.progress import watching
from batchgen.cli.terminal import as_json, flush, plain, say, settle_streams, tell
from batchgen.errors import BatchgenError, InputError, OutputError, Problem

if TYPE_CHECKING:
    from batchgen.job import Job
    from batchgen.report import Report
    from batchgen.session import Options

# The exit of several jobs is the first of these that any of them had.
PRECEDENCE = (143, 130, 1, 74, 2, 4, 75, 5, 6, 3, 0)


class Commands(click.Group):
    """A group whose commands end with the exit codes of the errors they raise."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **kwargs: Any) -> NoReturn:
        """Run, and exit with the code that the README lists. What is wrong is said on stderr, and under --json it is one
        object on stdout too."""
        settle_streams()
        given, told = list(sys.argv[1:] if args is None else args), None
        try:
            code = super().main(
                given, **{**kwargs, "prog_name": "batchgen", "standalone_mode": False}
            )
        except BatchgenError as error:
            code, told = error.exit_code, str(error)
            say(told)
        except click.ClickException as error:
            code, told = 2, error.format_message()
            error.show()
        except (click.Abort, KeyboardInterrupt):
            code = 130
        except SystemExit:
            code = 0  # click's own way to end when the reader of --help has gone away
        except Exception as error:
            code, told = 1, _bug(error)
            say(told)
        if told is not None and "--json" in given:
            with suppress(OutputError):
                tell(as_json(_ending(code, told)))
        flush()
        sys.exit(code or 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they are used."""
        return list(self.commands)


def _ending(code: int, told: str) -> dict[str, Any]:
    return {"exit_code": code, "error": told}


def _bug(error: Exception) -> str:
    """Where a bug is, without its message or chain: either may hold a key or a customer's text."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"  {Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return "\n".join(
        [
            f"batchgen: a bug: {type(error).__name__}; please report it with these lines:",
            *frames[-8:],
        ]
    )


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchgen", message="%(prog)s %(version)s")
def main() -> None:
    """Bulk prompts from a CSV or JSONL through the OpenAI API, each answer recorded once, in a table.

    Exit codes: 0 every row succeeded (or enough of them: max_failures); 2 usage, job or prompts wrong; 3 some rows
    failed or are incomplete; 4 the account or the server stopped it; 5 a limit of the job stopped it; 6 a batch is with
    the server, run again later; 74 the output is
    full, unwritable or damaged; 75 the job is running already; 130, 143 interrupted.
    """


_mode_option = click.option(
    "--mode",
    type=click.Choice(["online", "batch"]),
    help="Send in this way, whatever the job says.",
)
_wait_option = click.option("--wait", is_flag=True, help="Stay until the job's batches have ended.")


def _job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command that takes a JOB takes."""
    for option in (
        click.option(
            "--simulate",
            is_flag=True,
            help="Use the simulated API, with an output folder of its own; no key needed.",
        ),
        click.option(
            "--prompts", metavar="PATH|-", help="Other prompts than the job names; - is stdin."
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


_json_option = click.option("--json", "as_object", is_flag=True, help="Print one JSON object.")


class _Usd(click.FloatRange):
    """An amount of money above 0, and a number: to Python nan and inf are in every range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        amount: float = super().convert(value, param, ctx)
        if not math.isfinite(amount):
            self.fail(f"{value} is no amount of money.", param, ctx)
        return amount


def _one_job(command: Callable[..., Any]) -> Callable[..., Any]:
    """Load the JOB argument of a command."""

    @_job_options
    @click.argument("job", metavar="JOB")
    @wraps(command)
    def loaded(job: str, prompts: str | None, **options: Any) -> Any:
        return command(_load(job, prompts), **options)

    return loaded


def _load(path: str, prompts: str | None) -> Job:
    from batchgen.job import load_job, with_prompts

    job = load_job(path)
    if job.env_note:
        say(job.env_note)
    return with_prompts(job, prompts) if prompts is not None else job


def _in_mode(job: Job, mode: Any) -> Job:
    from batchgen.job import with_mode

    return with_mode(job, mode) if mode is not None else job


def _load_all(
    paths: Sequence[str], prompts: str | None, mode: str | None, simulate: bool, output: Path | None
) -> list[Job]:
    """Every job, or every problem of all of them: no job starts while another is wrong."""
    from batchgen.workspace import Workspace

    jobs: list[Job] = []
    problems: list[Problem] = []
    folders: dict[Path, str] = {}
    found = 0
    for path in paths:
        try:
            job = _in_mode(_load(path, prompts), mode)
            place = Workspace.of(job, simulate=simulate, output=output)
            if wrong := place.renderer.problems(None):
                raise InputError(wrong)
            if place.folder in folders:
                other = folders[place.folder]
                raise InputError(
                    f"has the output folder of {other} ({place.folder}); set name: to keep them apart"
                )
            folders[place.folder] = path
            jobs.append(job)
        except InputError as error:
            problems += error.problems or [Problem(path=path, message=str(error))]
            found += max(error.found, 1)
    if problems:
        raise InputError(problems, found=found)
    return jobs


@main.command()
@click.argument("prompts", metavar="[PROMPTS]", required=False, type=click.Path(path_type=Path))
def init(prompts: Path | None) -> None:
    """Write a job that runs.

    One made for your PROMPTS file (.csv .tsv .txt .jsonl, each also .gz), beside it; without PROMPTS an example in jobs/.
    """
    from batchgen.init import write_job

    path = write_job(prompts)
    job = shlex.quote(str(path))
    tell(plain(f"wrote {path}\nnext: batchgen plan {job}\n      batchgen run {job} --simulate"))


@main.command()
@_one_job
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the file's first N rows."
)
@_mode_option
@_json_option
def plan(
    job: Job,
    simulate: bool,
    output: Path | None,
    limit: int | None,
    mode: str | None,
    as_object: bool,
) -> None:
    """Read everything, send nothing.

    Tells what a run of JOB would send and why, what that would cost, and the first request in full.
    """
    from batchgen import planner

    found = planner.plan(
        _in_mode(job, mode), limit=limit, simulate=simulate, output=output, stdin=_stdin(job)
    )
    if as_object:
        tell(as_json(asdict(found)))
        return
    tell(plain("\n".join(planned(found, job))))


@main.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@_job_options
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the file's first N rows."
)
@_mode_option
@_wait_option
@click.option(
    "--max-cost",
    type=_Usd(min=0, min_open=True),
    metavar="USD",
    help="Spend at most so much in this run, all jobs together.",
)
@_json_option
@click.option(
    "--quiet", is_flag=True, help="Say nothing when every row succeeded or is in a batch."
)
def run(
    jobs: tuple[str, ...],
    prompts: str | None,
    simulate: bool,
    output: Path | None,
    limit: int | None,
    mode: str | None,
    wait: bool,
    max_cost: float | None,
    as_object: bool,
    quiet: bool,
) -> None:
    """Do what is not done.

    Sends what is not answered of each JOB, collects what its batches brought, and writes its tables; the same command
    resumes.
    """
    if prompts == "-" and len(jobs) > 1:
        raise click.UsageError("--prompts - feeds one job; name one")
    loaded = _load_all(jobs, prompts, mode, simulate, output)
    told = {"limit": limit, "simulate": simulate, "output": output}
    ended = _run_all(loaded, wait=wait, max_cost=max_cost, line=not as_object, quiet=quiet, **told)
    if as_object:
        objects = [shown for _, shown in ended]
        tell(as_json(objects[0] if len(loaded) == 1 else {"jobs": objects}))
    raise click.exceptions.Exit(min((code for code, _ in ended), key=PRECEDENCE.index))


def _run_all(
    jobs: Sequence[Job], *, wait: bool, max_cost: float | None, line: bool, quiet: bool, **told: Any
) -> list[tuple[int, dict[str, Any]]]:
    """Run every job; how each ended, and that as an object. The batches of all are sent before those of one are waited for."""
    ended: dict[int, tuple[int, dict[str, Any]]] = {}
    for waits in [False, True] if wait and len(jobs) > 1 else [wait]:
        for number, job in enumerate(jobs):
            if number in ended and ended[number][0] != 6:
                continue
            one = partial(_run_one, wait=waits, max_cost=max_cost, quiet=quiet, **told)
            code, shown = ended[number] = _ended(one, job, line=line, quiet=quiet)
            if max_cost is not None:
                # The cap is the command's; what one job spent is not there for the next.
                # One whose output failed may have sent anything.
                unknown = max_cost if code == OutputError.exit_code else 0.0
                max_cost = max(0.0, max_cost - shown.get("run", {}).get("committed", unknown))
            if code in (130, 143):
                return list(ended.values())
    return list(ended.values())


@main.command("run-batch")
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
    help="The results. All else that is kept lies beside it, in PATH.batchgen.",
)
@click.option(
    "--base-url", metavar="URL", help="The server; by default OPENAI_BASE_URL, else OpenAI's."
)
@click.option("--allow-http", is_flag=True, help="Plain http to another machine is all right.")
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="The variable that holds the key; by default OPENAI_API_KEY, which other servers than OpenAI's can do without.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Requests in flight at one time.",
)
@click.option("--simulate", is_flag=True, help="Use the simulated API; no key needed.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the file's first N requests."
)
@click.option(
    "--max-cost",
    type=_Usd(min=0, min_open=True),
    metavar="USD",
    help="Spend at most so much in this run.",
)
@_json_option
@click.option("--quiet", is_flag=True, help="Say nothing when every request succeeded.")
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

    Each line of the input is a request as the Batch API takes it, sent online; each line of the output is a result as the
    Batch API gives it, successes and failures in the input's order. The same command resumes.
    """
    from batchgen.job import job_of_requests

    _refuse_target(source, target)
    job = job_of_requests(
        source,
        target,
        base_url=base_url,
        allow_http=allow_http,
        api_key_env=api_key_env,
        concurrency=concurrency,
    )
    # Whoever removes the folder of real results may have kept the file.
    rehearsed = job.output_dir(None, True).exists() and not job.output_dir(None, False).exists()
    if simulate and target.exists() and not rehearsed:
        raise click.UsageError(
            f"-o {target} has real results; name another file for simulated ones."
        )
    if job.env_note:
        say(job.env_note)
    one = partial(
        _run_one, limit=limit, max_cost=max_cost, simulate=simulate, output=None, quiet=quiet
    )
    code, shown = _ended(one, job, line=not as_object, quiet=quiet)
    if as_object:
        tell(as_json(shown))
    raise click.exceptions.Exit(code)


def _refuse_target(source: str, target: Path) -> None:
    from batchgen.disk import file_stamp

    if str(target) == "-":
        raise click.UsageError(
            "-o must be a file: what is recorded, so that the same command resumes, lies beside it."
        )
    if os.path.lexists(target) and file_stamp(target) is None:
        raise click.UsageError(f"-o {target} is a link or no regular file; name another.")
    if source != "-" and os.path.realpath(source) == os.path.realpath(target):
        raise click.UsageError("-o would replace the requests; name another file.")


def _ended(
    one: Callable[[Job], Report], job: Job, *, line: bool, quiet: bool
) -> tuple[int, dict[str, Any]]:
    """How a job ended, and that as an object; what stops one job does not stop the next."""
    try:
        report = one(job)
        if report.stopped:
            say(f"{job.name}: stopped: {report.stopped}")
        # Batches that are on their way need nobody.
        if line and not (quiet and report.exit_code in (0, 6)):
            tell(plain(report.line()))
        if report.rows.get("failed") and not report.run.calls and not report.stopped:
            say(
                f"{job.name}: failed rows are asked again when they or the job change, or {_redone(job, report)}"
            )
    except BatchgenError as error:
        say(str(error))
        return error.exit_code, {"name": job.name, **_ending(error.exit_code, str(error))}
    return report.exit_code, report.as_json()


def _redone(job: Job, report: Report) -> str:
    """How failed rows are asked once more."""
    if job.together is not None:
        return f"all rows without {shlex.quote(report.output)}"
    return f"by: batchgen redo {shlex.quote(job.shown)} --failed{' --simulate' * report.simulated}"


def _run_one(job: Job, *, quiet: bool, **told: Any) -> Report:
    from batchgen import runner

    with _options(job, quiet=quiet, stdin=_stdin(job), **told) as options:
        return runner.run(job, options)


@contextmanager
def _options(job: Job, *, quiet: bool, **told: Any) -> Iterator[Options]:
    """What a run is told, and who watches it."""
    from batchgen.session import Options

    with watching(job.name, quiet=quiet) as (watch, every):
        yield Options(watch=watch, every=every, say=(lambda text: None) if quiet else say, **told)


def _stdin(job: Job) -> BinaryIO | None:
    """Where the prompts of a job come from that has them piped in."""
    return sys.stdin.buffer if job.prompts.path == "-" else None


@main.command()
@_one_job
@click.argument("batches", metavar="[BATCH]...", nargs=-1)
@_wait_option
@_json_option
@click.option("--quiet", is_flag=True, help="Say nothing when it went well.")
def cancel(
    job: Job,
    batches: tuple[str, ...],
    simulate: bool,
    output: Path | None,
    wait: bool,
    as_object: bool,
    quiet: bool,
) -> None:
    """Cancel a job's batches.

    All of them, or those of the ids BATCH, as `status` shows them. What they answered until then is kept; the rest is sent by
    the next run of JOB, by --mode online at once. A server takes minutes to cancel a batch: until then this ends with 6,
    or stays with --wait; with 0 when no batch is left.
    """
    from batchgen import runner

    def one(job: Job) -> Report:
        with _options(job, quiet=quiet, simulate=simulate, output=output, wait=wait) as options:
            return runner.cancel(job, options, ids=batches)

    code, shown = _ended(one, job, line=not as_object, quiet=quiet)
    if as_object:
        tell(as_json(shown))
    raise click.exceptions.Exit(code)


@main.command()
@_one_job
@click.argument("identities", metavar="[ID]...", nargs=-1)
@click.option("--failed", is_flag=True, help="All rows that failed.")
@click.option("--incomplete", is_flag=True, help="All incomplete rows.")
@click.option("--all", "everything", is_flag=True, help="All rows.")
@click.option(
    "--from",
    "source",
    type=click.File("rb"),
    metavar="FILE",
    help="The ids in FILE, one a line; - is stdin.",
)
def redo(
    job: Job,
    identities: tuple[str, ...],
    failed: bool,
    incomplete: bool,
    everything: bool,
    source: Any,
    simulate: bool,
    output: Path | None,
) -> None:
    """Mark rows to be asked again.

    The next run of JOB asks them, and of conversations the turns after them; each old answer stays until its new one
    lands.
    """
    from batchgen import maintenance

    given = [*identities, *(_ids(source) if source else [])]
    statuses = {"failed"} if failed else set()
    statuses |= {"incomplete"} if incomplete else set()
    statuses |= {"succeeded", "failed", "incomplete"} if everything else set()
    if not given and not statuses:
        raise click.UsageError("name rows by ID, --from FILE, --failed, --incomplete or --all")
    marked = maintenance.redo(job, given, statuses=statuses, simulate=simulate, output=output)
    after = ", later turns included" * (job.conversation is not None)
    tell(
        f"{job.name}: {marked:,} marked{after}; batchgen run {job.shown}{' --simulate' * simulate} asks them again"
    )


def _ids(source: BinaryIO) -> list[str]:
    try:
        text = source.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            [Problem(path=source.name, message="is not UTF-8; save the ids as UTF-8")]
        ) from None
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


@main.command()
@_one_job
@click.argument("identity", metavar="ID")
def show(job: Job, identity: str, simulate: bool, output: Path | None) -> None:
    """Show one row.

    The request, the answer and every attempt of the row ID of JOB, as JSON.
    """
    from batchgen import queries

    tell(as_json(queries.show(job, identity, simulate=simulate, output=output)))


@main.command()
@_one_job
@_json_option
def status(job: Job, simulate: bool, output: Path | None, as_object: bool) -> None:
    """Count rows by status.

    From the journal of JOB alone, also while a run is going.
    """
    from batchgen import queries
    from batchgen.report import RunTotals, describe_cost, pluralize

    found = queries.status(job, simulate=simulate, output=output)
    if as_object:
        tell(as_json(found))
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(found["rows"].items()))
    took = RunTotals(**{each.name: found[each.name] for each in fields(RunTotals)})
    tell(
        f"{found['name']}: {pluralize(found['total'], 'row')}: {counts}; {pluralize(took.calls, 'call')}, {describe_cost(took)}"
    )
    for reason, count in found["failures"].items():
        tell(plain(f"  {count:,} x {reason}"))
    for batch in found["batches"]:
        tell(plain(f"  {batch_line(batch)}"))


@main.command()
@_one_job
def export(job: Job, simulate: bool, output: Path | None) -> None:
    """Make the tables again.

    Tables and report of JOB, from its journal alone, without the network.
    """
    from batchgen import maintenance

    for path in maintenance.export(job, simulate=simulate, output=output):
        tell(str(path))


@main.command()
@_one_job
def verify(job: Job, simulate: bool, output: Path | None) -> None:
    """Check what is stored.

    Checks the journal of JOB, digests too, and hashes every picture again.
    """
    from batchgen import maintenance

    troubles = maintenance.verify(job, simulate=simulate, output=output)
    for trouble in troubles:
        say(trouble)
    if troubles:
        raise click.exceptions.Exit(OutputError.exit_code)
    tell(f"{job.name}: sound")


@main.command()
def schema() -> None:
    """Print the JSON Schema of a job file."""
    from batchgen.job import json_schema

    tell(json.dumps(json_schema(), indent=2))


@main.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="On 127.0.0.1."
)
@click.option(
    "--latency",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Seconds for an answer.",
)
@click.option(
    "--faults",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of faulty answers.",
)
@click.option(
    "--rpm", type=click.FloatRange(0, min_open=True), help="Requests a minute that are allowed."
)
@click.option(
    "--tpm", type=click.FloatRange(0, min_open=True), help="Tokens a minute that are allowed."
)
@click.option(
    "--batch-speed", type=click.FloatRange(0), help="Seconds for a batch, otherwise 5 to 15."
)
def simulate(
    port: int,
    latency: float,
    faults: float,
    rpm: float | None,
    tpm: float | None,
    batch_speed: float | None,
) -> None:
    """Serve the simulated API.

    On this machine only, until interrupted; every answer is labelled as simulated.
    """
    import asyncio

    from batchgen.simulator import Settings, serve

    settings = Settings(latency=latency, faults=faults, rpm=rpm, tpm=tpm, batch_speed=batch_speed)
    asyncio.run(_until_signalled(serve(settings, port, _is_at)))


def _is_at(url: str) -> None:
    say(f"the simulated API is at {url} (Ctrl-C ends it)")


async def _until_signalled(serving: Any) -> None:
    import asyncio

    task = asyncio.ensure_future(serving)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
