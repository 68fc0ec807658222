"""All benchmarks, or those that are named: `python tests/bench [cpu ...] [--rows N] [--rounds N]`.

Nothing here passes or fails: each scenario prints what it measured beside its target. Ratios
compare rounds in turn on one machine; they hold on other machines, absolute numbers do not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

from batch import batch, pictures
from cpu import cpu, parts
from life import memory, million
from measure import TableLine, show
from pace import inflight, limit
from startup import startup

# Each takes a number of rows and of rounds, None for its own.
SCENARIOS: dict[str, Callable[[int | None, int | None], Iterator[TableLine]]] = {
    "startup": startup,
    "cpu": cpu,
    "parts": parts,
    "inflight": inflight,
    "limit": limit,
    "memory": memory,
    "million": million,
    "batch": batch,
    "pictures": pictures,
}


def main() -> None:
    """Run the scenarios that the command line names, in order."""
    parser = argparse.ArgumentParser(prog="python tests/bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--rows", type=int, help="in place of each scenario's own number of rows")
    parser.add_argument(
        "--rounds", type=int, help="in place of each scenario's own number of rounds"
    )
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    for name in given.scenarios or SCENARIOS:
        show(name, list(SCENARIOS[name](given.rows, given.rounds)))


if __name__ == "__main__":
    main()
