"""`batchgen run --sample`: a few answers to read, then the price of the rest."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchgen.cli.cells import terminal_width, wrap
from batchgen.cli.plan_lines import describe_expected_cost, describe_expected_time
from batchgen.cli.row_text import COLOURS
from batchgen.cli.terminal import print_result, styled
from batchgen.escapes import escape_controls, one_line

if TYPE_CHECKING:
    from batchgen.job import Job
    from batchgen.page import Card
    from batchgen.planner import Plan

# The seed of samples that name none.
SEED = 1

# The widest that a card is, in columns; longer lines are hard to read.
_WIDEST = 100
_NAMES = 8
# Lines of a prompt, and of an answer, that a card shows.
_ASKED = 3
_ANSWERED = 16


def check_sample(
    jobs: Sequence[object], *, limit: int | None, seed: int | None, sample: int | None, quiet: bool
) -> None:
    """Raise a usage error for options that do not go together with a sample.

    - `jobs`: the jobs of the command
    - `limit`, `seed`, `sample`, `quiet`: its options
    """
    if sample is None:
        if seed is not None:
            raise click.UsageError("--seed chooses the rows of --sample; give both")
        return
    if limit is not None:
        raise click.UsageError("--limit and --sample both choose rows; give one of them")
    if len(jobs) > 1:
        raise click.UsageError("--sample takes one job; name one")
    if quiet:
        raise click.UsageError("--sample prints answers to read, and --quiet prints nothing")


def check_mode(job: Job) -> None:
    """Raise a usage error for a sample of a job whose answers come in batches."""
    if job.mode == "batch":
        raise click.UsageError(
            "--sample shows answers at once, and batches take up to a day; add --mode online "
            "(the sample then costs the full price, and counts for the batches all the same)"
        )


def print_sample(job: Job, command: str, options: Mapping[str, Any]) -> None:
    """Print the answers of a sample, and what the rest costs.

    - `job`: the job in the mode that it has without `--mode`
    - `command`: runs the rest
    - `options`: `sample`, `seed`, `simulate` and `output` of the command
    """
    from batchgen import planner, queries

    for card in queries.sample(job, **options):
        print_result("\n".join(_card_lines(card, _width())) + "\n")
    rest = planner.plan(job, simulate=options["simulate"], output=options["output"])
    print_result("\n".join(_rest_lines(rest, job, command, options)))


def _width() -> int:
    return min(terminal_width(), _WIDEST)


def _card_lines(card: Card, width: int) -> Iterator[str]:
    axes = [f"{name} {value}" for name, value in card.get("axes", {}).items()]
    title = [*axes, card["status"]]
    name = one_line(str(card.get("thread") or card["id"]))
    head = one_line(" · ".join(title))
    rule = "─" * max(0, width - len(name) - len(head) - 5)
    colour = COLOURS.get(card["status"])
    yield f"{styled(name, bold=True)} · {styled(head, colour=colour)} {rule}"
    for turn in card.get("turns", ()):
        yield from _turn_lines(turn, card, width)
    if card.get("reason"):
        message = f": {card['message']}" if card.get("message") else ""
        yield from _wrapped("why", f"{card['reason']}{message}", width, _ASKED)
    if took := _took(card):
        yield from _wrapped("took", took, width, _ASKED)


def _turn_lines(turn: Mapping[str, Any], card: Card, width: int) -> Iterator[str]:
    """What was asked, or answered, in a turn. What the system says is the same in all, and long."""
    if turn["role"] == "assistant":
        text = turn.get("picture") or turn.get("text") or ""
        yield from _wrapped(
            "answer", text, width, _ANSWERED, more=f" (batchgen show, {card['id']})"
        )
    elif turn["role"] == "problem":
        yield from _wrapped("why", turn["text"], width, _ASKED)
    elif turn["role"] not in ("system", "developer"):
        text = turn.get("text") or turn.get("file") or ""
        yield from _wrapped("asked", " ".join(str(text).split()), width, _ASKED)


def _took(card: Card) -> str:
    from batchgen.report import describe_dollars, pluralize

    if "model" not in card and "seconds" not in card:
        return ""
    tokens = card.get("input_tokens", 0) + card.get("output_tokens", 0)
    cost = card.get("cost")
    parts = [
        f"{tokens:,} tokens ({card.get('input_tokens', 0):,} in)" if tokens else "",
        "cost unknown" if cost is None else describe_dollars(cost),
        f"{card.get('seconds', 0):.1f} s",
        pluralize(card["attempts"], "call") if card.get("attempts", 1) != 1 else "",
    ]
    return ", ".join(part for part in parts if part)


def _wrapped(name: str, text: str, width: int, most: int, *, more: str = "") -> Iterator[str]:
    """A text beside its name, in at most so many lines; `more`: where the rest of it is."""
    lines = wrap(escape_controls(text), width - _NAMES - 2)
    if len(lines) > most:
        hidden = len(lines) - most
        lines = [*lines[:most], f"... {hidden:,} more line{'s' * (hidden != 1)}{more}"]
    for head, line in zip([name, *[""] * len(lines)], lines, strict=False):
        yield f"  {head:{_NAMES}}{line}".rstrip()


def _rest_lines(rest: Plan, job: Job, command: str, options: Mapping[str, Any]) -> Iterator[str]:
    """What was drawn, what the rest costs, and the command that runs it."""
    from batchgen.report import describe_dollars, pluralize

    what = "conversations" if job.conversation and job.conversation.id else "rows"
    drawn = f"{options['sample']:,} {what} at random, of {pluralize(rest.prompts, 'row')}"
    yield from _wrapped("sample", f"{drawn}; --seed {options['seed']}", _width(), _ASKED)
    if not rest.calls:
        yield from _wrapped("rest", "nothing is left to send", _width(), _ASKED)
        return
    most = "unknown" if rest.cost_at_most is None else describe_dollars(rest.cost_at_most)
    text = f"{pluralize(rest.calls, 'request')}, {describe_expected_cost(rest)}; at most {most}"
    if rest.expected_seconds is not None:
        text += f"; {describe_expected_time(rest, job)}"
    yield from _wrapped("rest", text, _width(), _ANSWERED)
    # A command is never cut, so that it can be pasted.
    yield f"  {'next':{_NAMES}}{escape_controls(command)}"


def rest_command(job: str, *, prompts: str | None, simulate: bool, output: Path | None) -> str:
    """The command that runs what a sample left.

    - `job`: the job file, as it was given
    - `prompts`, `simulate`, `output`: the options of the command
    """
    parts = ["batchgen", "run", shlex.quote(job)]
    if prompts is not None and prompts != "-":
        parts += ["--prompts", shlex.quote(prompts)]
    if simulate:
        parts.append("--simulate")
    if output is not None:
        parts += ["--output", shlex.quote(str(output))]
    return " ".join(parts)
