"""`batchgen doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.options import job_options, json_option, load_with_prompts
from batchgen.cli.terminal import as_json, print_message, print_result
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.doctor import Finding

# What the states are called, as wide as the widest.
_STATES = {"ok": "ok", "wrong": "WRONG", "unknown": "-"}


@click.command()
@click.argument("job", metavar="[JOB]", required=False)
@job_options
@json_option
def doctor(
    job: str | None, prompts: str | None, simulate: bool, output: Path | None, as_object: bool
) -> None:
    """Check key, server, disk and machine.

    Says of all that JOB needs whether it is ok, or what is wrong and what to do. Asks the server
    for its list of models, which is free, and sends no prompt. Without JOB it checks the key and
    the server that the environment names.
    """
    from batchgen.doctor import examine, exit_code_of

    if job is None and prompts is not None:
        raise click.UsageError("--prompts needs a JOB")
    loaded = load_with_prompts(job, prompts) if job is not None else None
    findings = examine(loaded, print_message, simulate=simulate, output=output)
    code = exit_code_of(findings)
    if as_object:
        findings_json = [asdict(each) for each in findings]
        print_result(as_json({"exit_code": code, "findings": findings_json}))
    else:
        print_result(escape_controls("\n".join(_lines(findings))))
    raise click.exceptions.Exit(code)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    width = max(len(each.name) for each in findings)
    for each in findings:
        yield f"{each.name:<{width}}  {_STATES[each.state]:<5}  {each.message}"
    count = sum(each.state == "wrong" for each in findings)
    yield f"{count} of {len(findings)} wrong" if count else "nothing is wrong"
