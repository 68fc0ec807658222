"""`batchgen spend`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from batchgen.cli.cells import pad, width_of
from batchgen.cli.options import json_option
from batchgen.cli.terminal import as_json, print_message, print_result
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.spend import Account, Spent

_WAYS = ("day", "month", "key", "job")


@click.command()
@click.option(
    "--by",
    "ways",
    type=click.Choice(_WAYS),
    multiple=True,
    help="What the money is summed up by; may be given several times. [default: day]",
)
@json_option
def spend(ways: tuple[str, ...], as_object: bool) -> None:
    """Show what all jobs spent.

    Adds up the journals of all jobs that ran on this machine under this user, by day, month, key or
    job. Days are in UTC; simulated runs cost nothing.
    """
    from batchgen.spend import account

    found = account()
    for reason in found.unread:
        print_message(f"not counted: {reason}")
    if as_object:
        print_result(as_json(_as_object(found)))
    else:
        print_result(escape_controls("\n".join(_lines(found, ways or ("day",)))))


def _as_object(found: Account) -> dict[str, object]:
    return {
        "exit_code": 0,
        "totals": _totals(found.spent),
        "spent": [{**asdict(each), "month": each.month} for each in found.spent],
        "in_batches": found.in_batches,
        "unread": list(found.unread),
    }


def _totals(spent: Sequence[Spent]) -> dict[str, Any]:
    known = [each.cost for each in spent if each.cost is not None]
    return {
        "calls": sum(each.calls for each in spent),
        "tokens": sum(each.tokens for each in spent),
        "cost": sum(known) if known or not spent else None,
        "unpriced": sum(each.unpriced for each in spent),
    }


def _lines(found: Account, ways: Sequence[str]) -> Iterator[str]:
    """A line for each day, month, key or job, and the sums of today, of this month and of all."""
    if not found.spent:
        yield "no job has spent anything on this machine yet"
        return
    groups: dict[tuple[str, ...], list[Spent]] = {}
    for each in found.spent:
        groups.setdefault(tuple(str(getattr(each, way)) for way in ways), []).append(each)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    rows = [
        [*ways, "calls", "tokens", "cost"],
        *([*names, *_numbers(group)] for names, group in sorted(groups.items())),
    ]
    sums = {
        "today (UTC)": [each for each in found.spent if each.day == today],
        "this month": [each for each in found.spent if each.month == today[:7]],
        "in all": list(found.spent),
    }
    blank = [""] * (len(ways) - 1)
    rows += [[name, *blank, *_numbers(group)] for name, group in sums.items()]
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            pad(cell, width) if index < len(ways) else " " * (width - width_of(cell)) + cell
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    yield from _notes(found)


def _numbers(spent: Sequence[Spent]) -> list[str]:
    from batchgen.report import in_dollars

    totals = _totals(spent)
    cost = "unknown" if totals["cost"] is None else in_dollars(totals["cost"])
    return [f"{totals['calls']:,}", f"{totals['tokens']:,}", cost]


def _notes(found: Account) -> Iterator[str]:
    """What is in no sum."""
    from batchgen.report import in_dollars, pluralize

    if unpriced := sum(each.unpriced for each in found.spent):
        yield f"without {pluralize(unpriced, 'call')} of unknown cost"
    if found.in_batches:
        yield f"batches that have not ended may cost up to {in_dollars(found.in_batches)} more"
