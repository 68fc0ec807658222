"""The problems that pass 1 finds: all of them are counted, the first are kept."""

from __future__ import annotations

from collections.abc import Iterable

from batchgen.errors import SHOWN, InputError, Problem


class Problems:
    """Collects problems. `path` is the prompts file's name in the problems of its rows."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept: list[Problem] = []
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, message: str, line: int) -> None:
        """Add a problem in a line of the prompts file."""
        self._count += 1
        # A file with a million broken rows must not fill the memory.
        if len(self._kept) < SHOWN:
            self._kept.append(Problem(path=self._path, line=line, message=message))

    def add_all(self, problems: Iterable[Problem], count: int = 0) -> None:
        """Add problems found elsewhere; `count` is their number where only some are given."""
        problems = list(problems)
        self._kept += problems
        self._count += max(count, len(problems))

    def raise_any(self) -> None:
        """Raise InputError if there are problems; it lists them by file and line."""
        if self._kept:
            ordered = sorted(self._kept, key=lambda problem: (problem.path, problem.line))
            raise InputError(ordered, found=max(self._count, len(ordered)))
