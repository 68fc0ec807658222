"""The problems that pass 1 finds: all of them are counted, the first are kept."""

from __future__ import annotations

from collections.abc import Iterable

from batchgen.errors import InputError, Problem, ProblemList


class Problems:
    """Collects problems. `path` is the prompts file's name in the problems of its rows."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._list = ProblemList()

    def __bool__(self) -> bool:
        return bool(self._list.found)

    def add(self, message: str, line: int) -> None:
        """Add a problem in a line of the prompts file."""
        self._list.add(Problem(path=self._path, line=line, message=message))

    def add_all(self, problems: Iterable[Problem], count: int = 0) -> None:
        """Add problems found elsewhere; `count` is their number where only some are given."""
        before = self._list.found
        for problem in problems:
            self._list.add(problem, always=True)
        self._list.found = max(self._list.found, before + count)

    def raise_any(self) -> None:
        """Raise InputError if there are problems; it lists them by file and line."""
        if self:
            ordered = sorted(
                self._list.problems(), key=lambda problem: (problem.path, problem.line)
            )
            raise InputError(ordered, found=self._list.found)
