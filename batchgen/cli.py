"""Words for people and scripts in, one call, exit code out.

Results go to stdout, progress and messages to stderr. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from batchgen.errors import BatchgenError, InputError, OutputError, Problem

if TYPE_CHECKING:
    from batchgen.dispatch import Progress
    from batchgen.report import Report
    from batchgen.spec import Job

# The exit of several jobs is the first of these that any of them had.
PRECEDENCE = (143, 130, 129, 1, 74, 2, 4, 75, 5, 6, 3, 0)

# Seconds between progress lines where there is no terminal, and between looks at a bar where there is one.
LINE_EVERY = 30.0
BAR_EVERY = 0.2

# C0 but tab and newline, DEL, C1: what moves a terminal's cursor or changes its colours.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text with its control characters made visible: a reply must not steer the terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def say(text: str) -> None:
    """A message for a person, on stderr."""
    with suppress(BrokenPipeError, OSError):
        click.echo(plain(text), err=True)


def tell(text: str) -> None:
    """A result, on stdout; a reader that has gone away is no fault of the job."""
    try:
        click.echo(text)
        sys.stdout.flush()
    except (BrokenPipeError, OSError):
        _forget_stdout()


def _forget_stdout() -> None:
    """Python would complain at exit that stdout cannot be flushed."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_json(value: Any) -> str:
    """A value as indented JSON, control characters escaped by JSON itself."""
    return _CONTROL.sub(
        lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, indent=2, ensure_ascii=False, default=str)
    )


class Commands(click.Group):
    """A group whose commands end with the exit codes of the errors they raise."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run, and exit with the code that the README lists."""
        with suppress(AttributeError, ValueError):
            # Under LC_ALL=C the terminal's encoding would refuse the names in people's data.
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except BatchgenError as error:
            say(str(error))
            code = error.exit_code
        except click.exceptions.Exit as done:
            code = done.exit_code
        except click.ClickException as error:
            error.show()
            code = 2
        except (click.Abort, KeyboardInterrupt):
            code = 130
        except BrokenPipeError:
            _forget_stdout()
            code = 0
        except Exception as error:
            code = _bug(error)
        with suppress(BrokenPipeError, OSError, ValueError):
            sys.stdout.flush()
        sys.exit(code or 0)


def _bug(error: Exception) -> int:
    """Where a bug is, without its message or chain: either may hold a key or a customer's text."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"  {Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    say("\n".join([f"batchgen: a bug: {type(error).__name__}; please report it with these lines:", *frames[-8:]]))
    return 1


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchgen", message="%(prog)s %(version)s")
def main() -> None:
    """Bulk prompts from a CSV or JSONL through the OpenAI API, each answer recorded once, in a table.

    Exit codes: 0 all rows succeeded; 2 usage, job or prompts wrong; 3 some rows failed; 4 the account or server stopped
    it; 5 a limit stopped it; 74 the output cannot be written; 75 the job is running already; 130, 143 interrupted.
    """


def _job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command that takes a JOB takes."""
    for option in (
        click.option(
            "--simulate", is_flag=True, help="Use the simulated API and its own output folder; no key needed."
        ),
        click.option("--prompts", metavar="PATH|-", help="Other prompts than the job names; - is stdin."),
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


def _one_job(command: Callable[..., Any]) -> Callable[..., Any]:
    """Load the JOB argument of a command."""

    @_job_options
    @click.argument("job", metavar="JOB")
    @wraps(command)
    def loaded(job: str, prompts: str | None, **options: Any) -> Any:
        return command(_load(job, prompts), **options)

    return loaded


def _load(path: str, prompts: str | None) -> Job:
    from batchgen.spec import load_job, with_prompts

    job = load_job(path)
    if job.env_note:
        say(job.env_note)
    return with_prompts(job, prompts) if prompts is not None else job


def _load_all(paths: Sequence[str], prompts: str | None) -> list[Job]:
    """Every job, or every problem of all of them."""
    jobs: list[Job] = []
    problems: list[Problem] = []
    found = 0
    for path in paths:
        try:
            jobs.append(_load(path, prompts))
        except InputError as error:
            problems += error.problems or [Problem(path=path, message=str(error))]
            found += max(error.found, 1)
    if problems:
        raise InputError(problems, found=found)
    return jobs


@main.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@_job_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the file's first N rows.")
@click.option(
    "--max-cost", type=click.FloatRange(min=0, min_open=True), metavar="USD", help="At most so much for this run."
)
@_json_option
@click.option("--quiet", is_flag=True, help="Say nothing when all is well.")
def run(
    jobs: tuple[str, ...],
    prompts: str | None,
    simulate: bool,
    output: Path | None,
    limit: int | None,
    max_cost: float | None,
    as_object: bool,
    quiet: bool,
) -> None:
    """Do what is not done of each JOB; the same command resumes."""
    loaded = _load_all(jobs, prompts)
    if prompts == "-" and len(loaded) > 1:
        raise click.UsageError("--prompts - feeds one job; name one")
    one = partial(_run_one, limit=limit, max_cost=max_cost, simulate=simulate, output=output, quiet=quiet)
    ended = []
    for job in loaded:
        ended.append(_ended(one, job))
        code, report = ended[-1]
        if report is not None and not as_object and not (quiet and code == 0):
            tell(plain(report.line()))
        if code in (129, 130, 143):
            break
    if as_object:
        objects = [report.as_json() if report else {"exit_code": code} for code, report in ended]
        tell(as_json(objects[0] if len(loaded) == 1 else {"jobs": objects}))
    sys.stdout.flush()
    raise click.exceptions.Exit(min((code for code, _ in ended), key=PRECEDENCE.index))


def _ended(one: Callable[[Job], Report], job: Job) -> tuple[int, Report | None]:
    """How a job ended; what stops one job does not stop the next."""
    try:
        report = one(job)
    except BatchgenError as error:
        say(str(error))
        return error.exit_code, None
    if report.stopped:
        say(f"{job.name}: stopped: {report.stopped}")
    return report.exit_code, report


def _run_one(
    job: Job, *, limit: int | None, max_cost: float | None, simulate: bool, output: Path | None, quiet: bool
) -> Report:
    from batchgen.runner import Options
    from batchgen.runner import run as run_job

    bar = sys.stderr.isatty() and not quiet
    with _progress(job, bar=bar, quiet=quiet) as watch:
        options = Options(
            limit=limit,
            max_cost=max_cost,
            simulate=simulate,
            output=output,
            stdin=sys.stdin.buffer if job.prompts.path == "-" else None,
            watch=watch,
            every=BAR_EVERY if bar else LINE_EVERY,
            say=(lambda text: None) if quiet else say,
        )
        return run_job(job, options)


@contextmanager
def _progress(job: Job, *, bar: bool, quiet: bool) -> Iterator[Any]:
    """What watches a run: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""
    if quiet:
        yield None
    elif bar:
        with _bar(job) as watch:
            yield watch
    else:
        yield _Lines(job)


@contextmanager
def _bar(job: Job) -> Iterator[Callable[[Progress, Mapping[str, int]], None]]:
    from tqdm import tqdm

    form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    with tqdm(desc=job.name, unit="row", bar_format=form, dynamic_ncols=True, leave=False, disable=False) as shown:

        def watch(progress: Progress, before: Mapping[str, int]) -> None:
            shown.total = max(sum(before.values()), shown.n)
            shown.n = before.get("succeeded", 0) + progress.done + progress.incomplete + progress.failed
            shown.set_postfix_str(_state(progress), refresh=False)
            shown.refresh()

        yield watch


class _Lines:
    """A progress line every half minute, none for a run that is over before."""

    def __init__(self, job: Job) -> None:
        self._name = job.name
        self._next = time.monotonic() + LINE_EVERY / 2

    def __call__(self, progress: Progress, before: Mapping[str, int]) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_EVERY / 2
        done = before.get("succeeded", 0) + progress.done
        say(f"{self._name}: {done:,} of {sum(before.values()):,} succeeded; {_state(progress)}")


def _state(progress: Progress) -> str:
    parts = [f"{progress.in_flight} in flight", f"${progress.cost / 1e9:.4f}"]
    if progress.failed or progress.incomplete:
        parts.insert(0, f"{progress.failed + progress.incomplete} failed or incomplete")
    if progress.waiting_for:
        parts.append(f"waiting for {progress.waiting_for}")
    return ", ".join(parts)


@main.command()
@_one_job
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the file's first N rows.")
@_json_option
def plan(job: Job, simulate: bool, output: Path | None, limit: int | None, as_object: bool) -> None:
    """Read everything of JOB and send nothing: what would run, why, and what it would cost."""
    from batchgen import review

    stdin = sys.stdin.buffer if job.prompts.path == "-" else None
    found = review.plan(job, limit=limit, simulate=simulate, output=output, stdin=stdin)
    if as_object:
        tell(as_json(asdict(found)))
        return
    tell(plain("\n".join(_planned(found))))


def _planned(found: Any) -> Iterator[str]:
    yield f"{found.name}: {found.kind} at {found.host} -> {found.output}"
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(found.rows.items()))
    yield f"rows:   {found.total:,} ({counts})"
    if found.changed_job:
        yield f"        {found.changed_job:,} answered rows run again because the job has changed"
    if found.changed_rows:
        yield f"        {found.changed_rows:,} answered rows run again because their cells have changed"
    yield f"calls:  {found.calls:,}, about {found.tokens:,} tokens"
    yield f"cost:   {_dollars(found.cost, 'about')}; {_dollars(found.cost_at_most, 'at most')}"
    if found.seconds is not None:
        yield f"time:   at least {found.seconds:,.0f} s under the job's limits"
    if found.first is not None:
        yield "first request:"
        yield as_json(found.first)


def _dollars(amount: float | None, word: str) -> str:
    return f"{word} unknown" if amount is None else f"{word} ${amount:,.4f}"


@main.command()
@_one_job
@_json_option
def status(job: Job, simulate: bool, output: Path | None, as_object: bool) -> None:
    """Count JOB's rows by status, from its journal; also while a run is going."""
    from batchgen import review

    found = review.status(job, simulate=simulate, output=output)
    if as_object:
        tell(as_json(found))
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(found["rows"].items()))
    tell(f"{found['name']}: {found['total']:,} rows: {counts}; {found['calls']:,} calls, ${found['cost']:.6f}")
    for reason, count in found["failures"].items():
        tell(plain(f"  {count:,} x {reason}"))


@main.command()
@_one_job
@click.argument("identity", metavar="ID")
def show(job: Job, identity: str, simulate: bool, output: Path | None) -> None:
    """Show one row of JOB: its request, its answer and every attempt, as JSON."""
    from batchgen import review

    tell(as_json(review.show(job, identity, simulate=simulate, output=output)))


@main.command()
@_one_job
@click.argument("identities", metavar="[ID]...", nargs=-1)
@click.option("--failed", is_flag=True, help="All rows that failed.")
@click.option("--incomplete", is_flag=True, help="All incomplete rows.")
@click.option("--all", "everything", is_flag=True, help="All rows.")
@click.option(
    "--from", "source", type=click.File(encoding="utf-8"), metavar="FILE", help="The ids in FILE, one a line."
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
    """Mark rows of JOB to be asked again by the next run; each old answer stays until its new one lands."""
    from batchgen import review

    given = [*identities, *([line.rstrip("\r\n") for line in source if line.strip()] if source else [])]
    statuses = {"failed"} if failed else set()
    statuses |= {"incomplete"} if incomplete else set()
    statuses |= {"succeeded", "failed", "incomplete"} if everything else set()
    if not given and not statuses:
        raise click.UsageError("name rows by ID, --from FILE, --failed, --incomplete or --all")
    marked = review.redo(job, given, statuses=statuses, simulate=simulate, output=output)
    tell(f"{job.name}: {marked:,} marked; batchgen run {job.shown} asks them again")


@main.command()
@_one_job
def export(job: Job, simulate: bool, output: Path | None) -> None:
    """Make JOB's tables and report again, from its journal alone."""
    from batchgen import review

    for path in review.export(job, simulate=simulate, output=output):
        tell(str(path))


@main.command()
@_one_job
def verify(job: Job, simulate: bool, output: Path | None) -> None:
    """Check JOB's journal and re-hash every picture."""
    from batchgen import review

    troubles = review.verify(job, simulate=simulate, output=output)
    for trouble in troubles:
        say(trouble)
    if troubles:
        raise click.exceptions.Exit(OutputError.exit_code)
    tell(f"{job.name}: sound")


@main.command()
def schema() -> None:
    """Print the JSON Schema of a job file."""
    from batchgen.spec import json_schema

    tell(json.dumps(json_schema(), indent=2))


@main.command()
@click.argument("prompts", metavar="[PROMPTS]", required=False, type=click.Path(path_type=Path))
def init(prompts: Path | None) -> None:
    """Write a job that runs: an example, or one made for your PROMPTS file."""
    from batchgen.init import write_job

    path = write_job(prompts)
    tell(f"wrote {path}")
    tell(f"next: batchgen plan {path}")
    tell(f"      batchgen run {path} --simulate")


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="On 127.0.0.1.")
@click.option("--latency", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds for an answer.")
@click.option("--faults", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of faulty answers.")
@click.option("--rpm", type=click.FloatRange(0, min_open=True), help="Requests a minute that are allowed.")
@click.option("--tpm", type=click.FloatRange(0, min_open=True), help="Tokens a minute that are allowed.")
def simulate(port: int, latency: float, faults: float, rpm: float | None, tpm: float | None) -> None:
    """Serve the simulated API until interrupted; every answer is labelled as simulated."""
    import asyncio

    from batchgen.simulator import Settings, serve

    say(f"the simulated API is at http://127.0.0.1:{port}/v1 (Ctrl-C ends it)")
    settings = Settings(latency=latency, faults=faults, rpm=rpm, tpm=tpm)
    try:
        asyncio.run(_until_signalled(serve(settings, port)))
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}; choose another with --port") from None


async def _until_signalled(serving: Any) -> None:
    import asyncio

    task = asyncio.ensure_future(serving)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
