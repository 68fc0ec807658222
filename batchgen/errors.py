"""Everything that can go wrong, drawn as a tree.

Each branch has an exit code, and its message says what the reader can do.

```text
BatchgenError            1   a bug in batchgen
├── InputError           2   usage, job or prompts are wrong; nothing was sent; holds the Problems
├── AccountError         4   the account or the server stopped the job
├── LimitError           5   a limit of the job stopped it
├── OutputError          74  the output cannot be written
│   └── DamagedError     74  the journal or a picture is not what batchgen wrote
├── BusyError            75  another process is running this job
└── RunInterruptedError  130 or 143, by the signal
```
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import ClassVar

# Problems that are shown before the rest is only counted: a screenful.
SHOWN = 25
# Further lines that are named for a fault that many have.
ALSO = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One fault in the user's input.

    Attributes:
        path: the file, or what else has the fault.
        message: what is wrong and what to do, in one sentence.
        line: from 1; 0 means unknown and is not shown.
        column: from 1; 0 means unknown and is not shown.
        also: the next lines with the same fault, at most ALSO of them.
        more: how many lines have it besides.
    """

    path: str
    message: str
    line: int = 0
    column: int = 0
    also: tuple[int, ...] = ()
    more: int = 0

    @property
    def count(self) -> int:
        """How many lines have the fault."""
        return 1 + len(self.also) + self.more

    def __str__(self) -> str:
        location = [self.path, *(str(number) for number in (self.line, self.column) if number)]
        return f"{':'.join(location)}: {self.message}{self._others()}"

    def _others(self) -> str:
        if not self.also:
            return ""
        lines = ", ".join(map(str, self.also))
        more = f" and {self.more:,} more" if self.more else ""
        return f" (also in line{'s' * (self.count > 2)} {lines}{more})"


class ProblemList:
    """Collects problems; all are counted, and as many are kept as are shown.

    Equal faults of a file become one problem, so that a million broken rows neither fill the memory
    nor hide another fault.

    Attributes:
        found: how many problems there were.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Problem] = {}
        self.found = 0

    def add(self, problem: Problem, *, always: bool = False) -> None:
        """Add a problem; `always`: one that is kept even after SHOWN others."""
        self.found += problem.count
        key = (problem.path, problem.message)
        first = self._kept.get(key)
        if first is None:
            if always or len(self._kept) < SHOWN:
                self._kept[key] = problem
        elif len(first.also) < ALSO:
            self._kept[key] = replace(first, also=(*first.also, problem.line))
        else:
            self._kept[key] = replace(first, more=first.more + 1)

    def problems(self) -> list[Problem]:
        """The problems that were kept, in the order of their first lines."""
        return list(self._kept.values())


class BatchgenError(Exception):
    """The root of all errors that batchgen raises; `exit_code` is what the command returns."""

    exit_code: ClassVar[int] = 1


class InputError(BatchgenError):
    """The command line, the job file or the prompts are wrong; nothing was sent."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | str, *, found: int = 0) -> None:
        """`problems` are the faults, or one sentence; `found` counts those left out too."""
        self.problems = () if isinstance(problems, str) else tuple(problems)
        self.found = max(found, sum(problem.count for problem in self.problems))
        super().__init__(problems if isinstance(problems, str) else self._text())

    def _text(self) -> str:
        shown = self.problems[:SHOWN]
        lines = [str(problem) for problem in shown]
        if left := self.found - sum(problem.count for problem in shown):
            lines.append(f"... and {left:,} more")
        return "\n".join(lines)


class AccountError(BatchgenError):
    """The key, the account, the model or the server stopped the job; unsent rows stay pending."""

    exit_code = 4


class LimitError(BatchgenError):
    """A limit of the job (cost, time, failures, give_up) stopped it; the rest stays pending."""

    exit_code = 5


class OutputError(BatchgenError):
    """The output folder is full, cannot be written, or is where no journal is safe."""

    exit_code = 74


class DamagedError(OutputError):
    """The journal or an image is not what batchgen wrote."""


class BusyError(BatchgenError):
    """Another process is running this job."""

    exit_code = 75


class RunInterruptedError(BatchgenError):
    """A signal stopped the run; every answer is kept.

    `exit_code` is 130 for SIGINT and 143 for SIGTERM and SIGHUP.
    """

    def __init__(self, number: int) -> None:
        # A class variable elsewhere; only here does it depend on the instance.
        self.exit_code = 130 if number == signal.SIGINT else 143  # type: ignore[misc]
        super().__init__(
            f"interrupted ({signal.Signals(number).name}); every answer is kept; run again to go on"
        )


# Names that a message lists before the rest is only counted.
LISTED = 30


def listed(names: Sequence[str]) -> str:
    """`a, b, c`, and beyond LISTED names ` and 12 more`."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` with the known word nearest to `word`; "" when none is near."""
    matches = get_close_matches(word, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
