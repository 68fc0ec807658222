"""All findings, for a job or for the environment alone."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from batchgen.doctor import machine, server
from batchgen.doctor.findings import Finding, ok, unknown, wrong
from batchgen.errors import AccountError, InputError
from batchgen.job import Connection, Job, api_key, connection, job_for_batch_file
from batchgen.workspace import Workspace


def examine(
    job: Job | None,
    say: Callable[[str], None],
    *,
    simulate: bool = False,
    output: Path | None = None,
) -> list[Finding]:
    """Check what a job needs, with one free call to its server. Writes nothing.

    Args:
        job: the job; None: the server and the key that the environment names.
        say: receives which call is made, before it is.
        simulate: ask the simulated API.
        output: the folder that replaces the job's outputs folder.
    """
    checked = job if job is not None else job_for_batch_file("-", Path("doctor.jsonl"))
    findings = list(_of_job(job, simulate=simulate, output=output)) if job is not None else []
    try:
        address = connection(checked)
    except InputError as error:
        findings.append(wrong("address", str(error), error.exit_code))
    else:
        findings += _of_server(checked, address, say, simulate=simulate, has_model=job is not None)
    folder = job.output_dir(output, simulate) if job is not None else output or Path.cwd()
    findings.append(machine.disk(folder))
    findings.append(machine.open_files(checked.limits.concurrency))
    findings.append(machine.state())
    return findings


def _of_job(job: Job, *, simulate: bool, output: Path | None) -> Iterator[Finding]:
    """Whether the job can be run, as far as it can be known without reading all prompts."""
    try:
        workspace = Workspace.of(job, simulate=simulate, output=output)
        if problems := workspace.renderer.problems(None):
            raise InputError(problems)
        workspace.check_schema()
        # A pipe would block, and what is read of it would be lost.
        if job.prompts_path is not None and stat.S_ISREG(job.prompts_path.stat().st_mode):
            with job.prompts_path.open("rb") as file:
                file.read(1)
    except InputError as error:
        yield wrong("job", str(error), error.exit_code)
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        yield wrong("job", f"{job.prompts_path}: {reason}; fix prompts.path", InputError.exit_code)
    else:
        yield ok("job", f"{job.display_name}; batchgen plan reads its prompts")


def _of_server(
    job: Job,
    address: Connection,
    say: Callable[[str], None],
    *,
    simulate: bool,
    has_model: bool,
) -> Iterator[Finding]:
    """What can be known of the job's server, key and model.

    - `job`, `address`: the job, and its server
    - `say`: receives which call is made
    - `simulate`: ask the simulated API
    - `has_model`: the job names one
    """
    source = f", by OPENAI_BASE_URL in {job.server_from}" if job.server_from else ""
    yield ok("address", "the simulated API" if simulate else f"{address.base_url}{source}")
    key, missing = None, None
    if not simulate:
        try:
            key = api_key(job)
        except AccountError as error:
            missing = wrong("key", str(error), error.exit_code)
        found = server.proxy(address.base_url)
        yield found
        if found.exit_code:
            yield unknown("server", "not asked, because of the proxy")
            yield missing or unknown("key", "its form is right; the server was not asked")
            return
    try:
        reached = asyncio.run(_reach(address, key, say, simulate=simulate))
    except InputError as error:
        yield wrong("certificate", str(error), error.exit_code)
        return
    if simulate:
        address = replace(address, base_url="http://localhost")
    yield from server.of_server(reached, address)
    yield missing or server.key(reached, address.host, was_sent=key is not None)
    if has_model:
        yield _model(job, reached, address)
    yield server.clock(reached)
    yield server.limits(reached)


async def _reach(
    address: Connection, key: str | None, say: Callable[[str], None], *, simulate: bool
) -> server.Reached:
    if not simulate:
        say(f"one free call: GET {address.base_url}/models")
        return await server.call(address, key, direct=False)
    from batchgen.simulator import Settings, Simulator

    say("one call to the simulated API: GET /models")
    async with Simulator(Settings()) as simulator:
        there = replace(address, base_url=simulator.url, headers={})
        return await server.call(there, None, direct=True)


def _model(job: Job, reached: server.Reached, address: Connection) -> Finding:
    name = job.request.get("model")
    if job.rows_choose("model") or not isinstance(name, str):
        return unknown("model", "not checked: the rows choose it")
    return server.model(reached, name, address)
